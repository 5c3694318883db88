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


def test_a_table_of_predictions(painseq, lstm, video):
    said = painseq("predict", video, "--checkpoint", lstm)
    assert said.code == 0
    words = said.out.split()
    assert "clip.mp4" in words and {"no_pain", "low_pain", "high_pain"} & {*words}
    assert "no medical device" in said.out and "locator Sidecar" in said.log


def test_json_of_predictions(painseq, lstm, video):
    said = painseq("predict", video, "--checkpoint", lstm, "--json", "--end-s", "5")
    (prediction,) = json.loads(said.out)
    assert said.code == 0 and prediction["frames"] == 15 == len(prediction["frame_probabilities"])
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)


def test_unreadable_and_faceless_videos_do_not_stop_the_others(painseq, lstm, video, tmp_path):
    broken, missing = tmp_path / "broken.mp4", tmp_path / "missing.mp4"
    broken.write_bytes(video.read_bytes()[:300])
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes())
    sidecar = video.with_suffix(".faces.safetensors")
    other.with_suffix(".faces.safetensors").write_bytes(sidecar.read_bytes())
    blind(other)
    said = painseq("predict", broken, missing, other, video, "--checkpoint", lstm, "--json")
    assert said.code == 1
    assert [(row["video"], row["label"] is None) for row in json.loads(said.out)] == [
        (str(other), True),
        (str(video), False),
    ]
    assert "broken.mp4 cannot be read as a video" in said.err and f"No video at {missing}" in said.err
    assert "other.mp4: no face found in any frame" in said.err
    assert painseq("predict", other, "--checkpoint", lstm).code == 1


def test_a_locator_of_the_users_replaces_the_models(painseq, lstm, video):
    video.with_suffix(".faces.safetensors").unlink()
    said = painseq("predict", video, "--checkpoint", lstm)
    assert said.code == 1 and "No sidecar with the faces of" in said.err
    assert painseq("predict", video, "--checkpoint", lstm, "--locator", "full_frame").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--device", "cude"], "no such device"),
        (["--checkpoint", "none.ckpt"], "No checkpoint at none.ckpt"),
        (["--yunet-model", "x.onnx"], "--yunet-model goes with --locator yunet"),
        (["--locator", "yunet", "--yunet-model", "x.onnx"], "No YuNet model at x.onnx"),
    ],
)
def test_a_prediction_that_cannot_be(painseq, lstm, video, change, message):
    said = painseq("predict", video, "--checkpoint", lstm, *change)
    assert said.code == 1 and message in said.err


def test_explaining_a_generated_video_shows_the_generated_face(painseq, lstm, electrical, tmp_path):
    generated = electrical / "Test" / "S06" / "S06_1.mp4"
    said = painseq("explain", generated, "--checkpoint", lstm, "--out", tmp_path / "x.png")
    assert said.code == 0 and "Faces not drawn" not in said.log
    assert Image.open(tmp_path / "x.png").format == "PNG"


def test_no_other_face_is_drawn_without_the_users_word(painseq, ann, video, tmp_path):
    plain, shown = tmp_path / "plain.png", tmp_path / "shown.png"
    said = painseq("explain", video, "--checkpoint", ann, "--out", plain)
    assert said.code == 0 and "Faces not drawn." in said.log
    said = painseq("explain", video, "--checkpoint", ann, "--out", shown, "--show-faces", "--class-name", "low_pain")
    assert said.code == 0 and "Faces not drawn." not in said.log
    # A row of faces more.
    assert Image.open(shown).height > Image.open(plain).height


def test_an_explanation_that_cannot_be(painseq, lstm, video, tmp_path):
    out = ["--checkpoint", lstm, "--out", tmp_path / "x.png"]
    said = painseq("explain", video, *out, "--class-name", "joy")
    assert said.code == 1 and "No class 'joy'; this model's classes: no_pain, low_pain, high_pain" in said.err
    said = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "no" / "x.png")
    assert said.code == 1 and "cannot be written" in said.err
    blind(video)
    said = painseq("explain", video, *out)
    assert said.code == 1 and "no face found in any frame, so there is nothing to explain" in said.err
