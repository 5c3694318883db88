"""One video, explained from Python."""

import json

import pytest

import painseq
from painseq.errors import PainseqError
from painseq.studies.explain_video import ExplainVideoOptions, explain_video


def test_nothing_is_written_unless_asked_for(lstm, video, tmp_path):
    before, seen = sorted(tmp_path.iterdir()), []
    options = ExplainVideoOptions(end_s=2.0, class_name="high_pain", method="saliency", checkpoints=(lstm,))
    model = painseq.load(lstm)
    found = explain_video(model, video, options=options, on_progress=lambda *now: seen.append(now))
    assert sorted(tmp_path.iterdir()) == before and seen[-1][:2] == (100, 100)
    assert found.space.method == "saliency" and found.time.class_name == "high_pain" and not found.faces
    assert found.space.maps.shape[0] == len(found.time.over_time) == found.prediction.frames
    again = explain_video(model, str(video), tmp_path / "out", options)
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert facts["checkpoints"] == [str(lstm)] and facts["space"] == json.loads(json.dumps(found.to_dict()["space"]))
    assert (tmp_path / "out" / "explanation.png").read_bytes() == again.picture() == found.picture()


@pytest.mark.parametrize(
    ("change", "facts"),
    [({"method": "lime"}, "method.*lime"), ({"layer": "layer9"}, "layer9"), ({"most_steps": 0}, r"most_steps.*\b0\b")],
)
def test_options_that_do_not_fit_leave_no_folder(lstm, video, tmp_path, change, facts):
    with pytest.raises(PainseqError, match=f"(?s){facts}"):
        explain_video(painseq.load(lstm), video, tmp_path / "out", ExplainVideoOptions(end_s=1.0, **change))
    assert not (tmp_path / "out").exists()
