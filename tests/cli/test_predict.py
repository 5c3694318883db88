"""Predicting and explaining videos."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file


def blind(video: Path) -> None:
    """Let the sidecar tell of no face."""
    path = video.with_suffix(".faces.safetensors")
    tensors = dict(load_file(path))
    tensors["boxes"][:] = np.nan
    save_file(tensors, path)


def seen_in(video: Path, frames: int) -> None:
    """Let the sidecar tell of a face in the first frames alone."""
    path = video.with_suffix(".faces.safetensors")
    tensors = dict(load_file(path))
    tensors["boxes"][frames:] = np.nan
    save_file(tensors, path)


def test_a_prediction_from_few_frames_with_a_face_is_told_everywhere(painseq, lstm, ann, video, tmp_path):
    seen_in(video, 4)
    result = painseq("predict", video, "--checkpoint", lstm)
    assert result.code == 0 and result.out.names("clip.mp4:", "only 4 of 75 frames")
    both = painseq("predict", video, "--checkpoint", lstm, "--checkpoint", ann)
    assert both.out.names("only 4 of 75 frames")
    (told,) = json.loads(painseq("predict", video, "--checkpoint", lstm, "--json").out)
    assert told["face_share"] == pytest.approx(4 / 75, abs=1e-6) and "4 of 75" in told["warning"]
    explained = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "why")
    assert explained.code == 0 and explained.log.names("4 of 75")
    assert "4 of 75" in json.loads((tmp_path / "why" / "explanation.json").read_text())["prediction"]["warning"]
    fewer = ("--min-face-share", "0.05")
    result = painseq("predict", video, "--checkpoint", lstm, *fewer)
    assert "4 of 75" not in result.out
    (told,) = json.loads(painseq("predict", video, "--checkpoint", lstm, "--json", *fewer).out)
    assert told["warning"] and "75" not in told["warning"]
    result = painseq("predict", video, "--checkpoint", lstm, "--min-face-share", "50")
    assert result.code == 1 and result.err.names("--min-face-share", "50.0")


def test_without_look_ahead_the_last_face_is_held_for_a_moment(painseq, lstm, video):
    seen_in(video, 40)
    ahead, causal = (
        json.loads(painseq("predict", video, "--checkpoint", lstm, "--json", *option).out)[0]
        for option in ((), ("--causal",))
    )
    assert len(ahead["frame_times_s"]) == 40 and len(causal["frame_times_s"]) == 41
    assert causal["frame_times_s"][:40] == ahead["frame_times_s"]


def other_person_after(video: Path, first_s: float, end_s: float) -> None:
    """Let the sidecar tell of no face for a while, and of one half as large after it."""
    path = video.with_suffix(".faces.safetensors")
    tensors = dict(load_file(path))
    times_s, boxes = tensors["times_s"], tensors["boxes"]
    boxes[(times_s >= first_s) & (times_s < end_s)] = np.nan
    after = boxes[times_s >= end_s]
    boxes[times_s >= end_s, 2:] = (after[:, :2] + after[:, 2:]) / 2
    save_file(tensors, path)


def test_another_person_followed_is_told_everywhere(painseq, lstm, ann, video, tmp_path):
    other_person_after(video, 1, 2.2)
    result = painseq("predict", video, "--checkpoint", lstm)
    assert result.code == 0 and result.out.names("clip.mp4:", "another person", "2.33 s")
    both = painseq("predict", video, "--checkpoint", lstm, "--checkpoint", ann)
    assert both.out.names("another person")
    (told,) = json.loads(painseq("predict", video, "--checkpoint", lstm, "--json").out)
    assert told["switched_s"] == pytest.approx([7 / 3], abs=1e-3) and "another person" in told["warning"]
    explained = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "why")
    assert explained.code == 0 and explained.log.names("another person")
    assert json.loads((tmp_path / "why" / "explanation.json").read_text())["prediction"]["switched_s"]


def test_a_prediction_from_all_frames_is_not_doubted(painseq, lstm, video):
    result = painseq("predict", video, "--checkpoint", lstm)
    assert "doubtful" not in result.out and result.code == 0


def test_a_table_of_predictions(painseq, lstm, video):
    result = painseq("predict", video, "--checkpoint", lstm)
    assert result.code == 0
    words = result.out.split()
    assert "clip.mp4" in words and {"no_pain", "low_pain", "high_pain"} & {*words}
    assert result.log.names("Sidecar")


def test_json_of_predictions(painseq, lstm, video):
    result = painseq("predict", video, "--checkpoint", lstm, "--json", "--end-s", "5")
    (prediction,) = json.loads(result.out)
    assert result.code == 0 and prediction["frames"] == 15 == len(prediction["frame_probabilities"])
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


def test_several_models_are_shown_side_by_side(painseq, lstm, ann, video, electrical):
    videos = [video, electrical / "Test" / "S06" / "S06_1.mp4"]
    models = ["--checkpoint", lstm, "--checkpoint", ann]
    result = painseq("predict", *videos, *models, "--json")
    content = json.loads(result.out)
    assert result.code == 0 and list(content) == [str(lstm), str(ann)]
    for checkpoint in (lstm, ann):
        alone = json.loads(painseq("predict", *videos, "--checkpoint", checkpoint, "--json").out)
        assert content[str(checkpoint)] == alone and len(alone) == 2
    table = painseq("predict", *videos, *models)
    assert table.code == 0 and table.out.names("clip.mp4", "S06_1.mp4", *(path.parent.name for path in (lstm, ann)))


def test_unreadable_and_faceless_videos_do_not_stop_the_others(painseq, lstm, video, tmp_path):
    broken, missing = tmp_path / "broken.mp4", tmp_path / "missing.mp4"
    broken.write_bytes(video.read_bytes()[:300])
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes())
    sidecar = video.with_suffix(".faces.safetensors")
    other.with_suffix(".faces.safetensors").write_bytes(sidecar.read_bytes())
    blind(other)
    result = painseq("predict", broken, missing, other, video, "--checkpoint", lstm, "--json")
    assert result.code == 1
    assert [(row["video"], row["label"] is None) for row in json.loads(result.out)] == [
        (str(other), True),
        (str(video), False),
    ]
    assert result.err.names("broken.mp4", missing, "other.mp4", "face")
    assert painseq("predict", other, "--checkpoint", lstm).code == 1


def test_a_locator_of_the_users_replaces_the_models(painseq, lstm, video):
    video.with_suffix(".faces.safetensors").unlink()
    result = painseq("predict", video, "--checkpoint", lstm)
    assert result.code == 1 and result.err.names("sidecar", video)
    assert painseq("predict", video, "--checkpoint", lstm, "--locator", "full_frame").code == 0


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--device", "cude"], ("--device", "cude")),
        (["--checkpoint", "none.ckpt"], ("none.ckpt",)),
        (["--yunet-model", "x.onnx"], ("--yunet-model", "--locator")),
        (["--locator", "yunet", "--yunet-model", "x.onnx"], ("YuNet", "x.onnx")),
    ],
)
def test_a_prediction_that_cannot_be(painseq, lstm, video, change, facts):
    result = painseq("predict", video, "--checkpoint", lstm, *change)
    assert result.code == 1 and result.err.names(*facts)


def test_explaining_a_generated_video_shows_the_generated_face(painseq, lstm, electrical, tmp_path):
    generated = electrical / "Test" / "S06" / "S06_1.mp4"
    result = painseq("explain", generated, "--checkpoint", lstm, "--out", tmp_path / "x.png")
    assert result.code == 0 and not result.log.names("show_faces")
    assert Image.open(tmp_path / "x.png").format == "PNG"


def test_no_other_face_is_drawn_without_the_users_word(painseq, ann, video, tmp_path):
    plain, shown = tmp_path / "plain.png", tmp_path / "shown.png"
    result = painseq("explain", video, "--checkpoint", ann, "--out", plain)
    assert result.code == 0 and result.log.names("show_faces")
    result = painseq("explain", video, "--checkpoint", ann, "--out", shown, "--show-faces", "--class-name", "low_pain")
    assert result.code == 0 and not result.log.names("show_faces")
    # A row of faces more.
    assert Image.open(shown).height > Image.open(plain).height


def test_an_explanation_that_cannot_be(painseq, lstm, video, tmp_path):
    out = ["--checkpoint", lstm, "--out", tmp_path / "x.png"]
    result = painseq("explain", video, *out, "--class-name", "joy")
    assert result.code == 1 and result.err.names("joy", "no_pain", "low_pain", "high_pain")
    result = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "no" / "x.png")
    assert result.code == 1 and result.err.names(tmp_path / "no" / "x.png")
    blind(video)
    result = painseq("explain", video, *out)
    assert result.code == 1 and result.err.names("clip.mp4", "face")


@pytest.mark.parametrize("name", ["pain [id].mp4", "a [bold] b.mp4", "x:heart:.mp4", "[/].mp4"])
def test_names_are_printed_as_they_are(painseq, lstm, ann, video, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    # A name of a folder cannot hold a slash.
    other = video.with_name(name.replace("/", "-"))
    video.with_suffix(".faces.safetensors").rename(other.with_suffix(".faces.safetensors"))
    video.rename(other)
    for models in (["--checkpoint", lstm], ["--checkpoint", lstm, "--checkpoint", ann]):
        result = painseq("predict", other, *models)
        assert result.code == 0 and other.name in result.out
