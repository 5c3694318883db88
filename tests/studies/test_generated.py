"""A model knows whether it was fitted on generated faces alone, and says so when it is given others."""

import json
from dataclasses import replace

import pytest

import painseq
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.model.averaging import AveragedModel
from painseq.studies.evaluate import EvaluateOptions, evaluate
from painseq.studies.explain_video import ExplainVideoOptions, explain_video
from painseq.video.generated import other_faces_warning, root_is_generated


@pytest.fixture
def model(lstm):
    return painseq.load(lstm)


def test_a_root_is_generated_real_or_unknown(electrical, tmp_path):
    assert root_is_generated(electrical) is True
    assert root_is_generated(electrical / "Test") is None
    assert root_is_generated(tmp_path) is False
    assert root_is_generated(tmp_path / "missing") is None


def test_real_videos_are_told_to_a_model_of_generated_faces_and_the_reverse(model, electrical, video):
    assert model.record.generated is True
    own, copied = model.predict(electrical / "Test" / "S06" / "S06_1.mp4"), model.predict(video)
    assert (own.generated, own.fitted_on_generated, own.warning) == (True, True, None)
    assert (copied.generated, copied.to_dict()["fitted_on_generated"]) == (False, True)
    assert "generated" in copied.warning and "generated" in copied.to_dict()["warning"]
    model.record = replace(model.record, generated=False)
    assert model.predict(video).warning is None
    assert "generated" in model.predict(electrical / "Test" / "S06" / "S06_1.mp4").warning
    model.record = replace(model.record, generated=None)
    assert model.predict(video).warning is None


def test_an_explanation_warns_too(model, video, tmp_path, caplog):
    explain_video(model, video, tmp_path / "why", ExplainVideoOptions(method="saliency"))
    written = json.loads((tmp_path / "why" / "explanation.json").read_text())["prediction"]
    assert written["fitted_on_generated"] is True and "generated" in written["warning"]
    assert written["warning"] in caplog.text


@pytest.mark.parametrize(("fitted", "warns"), [(True, False), (False, True), (None, False)])
def test_an_evaluation_warns_in_log_file_and_page(model, electrical, store, tmp_path, caplog, fitted, warns):
    data = AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner"), store=store))
    model.record = replace(model.record, generated=fitted)
    truth = {clip.clip_id: "No_Pain" for clip in data.clips("test")}
    evaluate(model, data, tmp_path / "out", EvaluateOptions(truth=truth))
    warning = other_faces_warning(fitted, True)
    assert (warning is not None) is warns
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["generated"] == {
        "fitted_on": fitted,
        "scored": True,
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("fitted on real faces" in caplog.text) is warns is ("fitted on real faces" in page)


def test_averages_and_heads_that_started_from_others_are_of_known_faces_only(model, lstm):
    assert AveragedModel([model, painseq.load(lstm)]).record.generated is True
    other = painseq.load(lstm)
    other.record = replace(other.record, generated=False)
    assert AveragedModel([model, other]).record.generated is None
    assert other_faces_warning(None, True) is None
