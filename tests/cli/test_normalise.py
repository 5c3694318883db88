"""Models of features that are normalised by each person's own clips: predicted, explained, evaluated, and marked."""

import json

import numpy as np
import pytest
import torch

from painseq.cli.fit import fit
from painseq.errors import PainseqError
from painseq.model.checkpoint import load, read_checkpoint
from painseq.moments import Moments


@pytest.fixture
def by_subject(on_electrical, store, tmp_path):
    args = [*on_electrical, "--config", "configs/head/frame_ann.yaml", "--trainer.max_epochs", "1"]
    args += ["--data.options.normalise", "subject", "--data.options.store", str(store)]
    return fit([*args, "--out", str(tmp_path / "subject")]) / "best.ckpt"


def test_a_single_video_is_standardised_by_itself_and_by_what_is_given_of_the_person(by_subject, video, electrical):
    model = load(by_subject)
    clip = model.read(video)
    seen = clip.features[clip.present]
    alone = model.predict(video)
    scaled = torch.from_numpy((clip.features - seen.mean(0)) / Moments.of(seen).sd.astype(np.float32))[None]
    present = torch.from_numpy(clip.present)
    with torch.inference_mode():
        expected = model.classify(torch.where(present[None, :, None], scaled, 0.0), present[None])
    shown = model.objective.shown(expected[0, present])
    np.testing.assert_allclose(alone.frame_probabilities, shown.numpy(), atol=1e-4)
    assert alone.normalised_by == (str(video),) == tuple(alone.to_dict()["normalised_by"]) and "alone" in alone.note
    other = electrical / "Test" / "S06" / "S06_2.mp4"
    both = model.with_same_person([other]).predict(video)
    assert both.normalised_by == (str(video), str(other)) and both.probabilities != alone.probabilities
    with pytest.raises(PainseqError, match=r"\bbaseline\b"):
        model.predict(video, baseline=video)


def test_the_command_line_takes_other_videos_of_the_person(painseq, by_subject, lstm, video, electrical):
    other = electrical / "Test" / "S06" / "S06_2.mp4"
    result = painseq("predict", video, "--json", "--checkpoint", by_subject, "--same-person", other)
    assert json.loads(result.out)[0]["normalised_by"] == [str(video), str(other)]
    assert "alone" in painseq("predict", video, "--checkpoint", by_subject).out
    refused = painseq("predict", video, "--checkpoint", lstm, "--same-person", other)
    assert refused.code == 1 and refused.err.names("same_person")


def test_what_is_transductive_is_marked(painseq, on_electrical, by_subject, store, tmp_path):
    args = [*on_electrical, "--data.options.store", store, "--data.options.normalise", "subject"]
    args += ["--part", "validation", "--data.options.split.protocol", "official"]
    result = painseq("evaluate", *args, "--checkpoint", by_subject, "--out", tmp_path / "scores")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    (name,) = metrics["models"]
    assert "transductive" in name and metrics["transductive"] is True and metrics["normalise"] == ["subject", "train"]
    assert "TRANSDUCTIVE" in (tmp_path / "scores" / "report.html").read_text()
    assert read_checkpoint(by_subject).record.transductive


def test_an_explanation_takes_the_clip_itself(by_subject, video):
    from painseq.studies.explain_video import ExplainVideoOptions, explain_video

    model = load(by_subject)
    found = explain_video(model, video, options=ExplainVideoOptions(most_steps=8))
    expected = model.predict(video)
    assert found.prediction.normalised_by == (str(video),)
    np.testing.assert_allclose(found.prediction.frame_probabilities, expected.frame_probabilities, atol=1e-3)


def test_an_explanation_takes_other_videos_of_the_person(painseq, by_subject, lstm, video, electrical, tmp_path):
    other = electrical / "Test" / "S06" / "S06_2.mp4"
    args = ["--same-person", other, "--most-steps", 8, "--out", tmp_path / "out"]
    result = painseq("explain", video, "--checkpoint", by_subject, *args)
    assert result.code == 0 and result.log.names("1 of the same person"), result.err
    told = json.loads((tmp_path / "out" / "explanation.json").read_text())["prediction"]
    assert told["normalised_by"] == [str(video), str(other)]
    expected = load(by_subject).with_same_person([other]).predict(video)
    np.testing.assert_allclose(told["frame_probabilities"], expected.frame_probabilities, atol=1e-3)
    refused = painseq("explain", video, "--checkpoint", lstm, "--same-person", other, "--out", tmp_path / "no")
    assert refused.code == 1 and refused.err.names("same_person") and not (tmp_path / "no").exists()


def test_the_columns_of_a_data_set_are_those_of_each_person(painseq, on_electrical, store, tmp_path):
    args = [*on_electrical, "--data.options.store", str(store), "--data.options.normalise", "subject"]
    args += ["--data.options.streams", "[landmarks]"]
    head = ["--config", "configs/head/linear_probe.yaml", "--trainer.max_epochs", "1"]
    checkpoint = fit([*args, *head, "--out", str(tmp_path / "run")]) / "best.ckpt"
    out = ["--checkpoint", checkpoint, "--part", "train", "--repeats", 1, "--out", tmp_path / "out"]
    result = painseq("explain", "columns", *args, *out)
    assert result.code == 0 and result.log.names("transductive"), result.err
    assert json.loads((tmp_path / "out" / "columns.json").read_text())["normalise"][0] == "subject"


def test_a_transductive_cross_validation_is_marked(painseq, on_electrical, store, tmp_path):
    args = [*on_electrical, "--data.options.store", store, "--data.options.normalise", "subject"]
    args += ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    args += ["--config", "configs/head/linear_probe.yaml", "--trainer.max_epochs", "1", "--jobs", "1"]
    result = painseq("crossval", *args, "--out", tmp_path / "out")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    (name,) = metrics["models"]
    assert "transductive" in name and metrics["how"]["transductive"] is True
    assert "TRANSDUCTIVE" in (tmp_path / "out" / "report.html").read_text()
