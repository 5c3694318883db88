"""Labels that are numbers on a scale: fitted, kept, scored and predicted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.batch import Sample, collate
from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.evaluation.value_predictions import ValuePredictions, read_value_predictions
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import load
from painseq.model.decision import estimate
from painseq.records import UNKNOWN

PSPI = Scale("pspi", 0, 16)


def test_a_frame_heads_number_is_the_mean_over_real_frames():
    numbers = torch.tensor([[[1.0], [5.0], [99.0]], [[2.0], [3.0], [4.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    estimates = estimate("frame", numbers, mask)
    assert estimates[0] == 3 and torch.isnan(estimates[1])
    assert torch.isnan(estimate("video", numbers[:, 0], mask)[1])


def test_targets_of_a_batch_are_floats():
    def sample(target: float) -> Sample:
        return Sample("a", "s", target, torch.ones(1, dtype=torch.bool), torch.zeros(1), features=torch.zeros(1, 2))

    assert collate([sample(3.5), sample(UNKNOWN)]).target.tolist() == [3.5, -1]


@pytest.fixture(scope="module")
def on_unbc(work: Path, tiny: str) -> list[str]:
    """Six people, two sequences of images each, through the tiny network."""
    from painseq.synthetic import UNBCPlan, write_unbc

    write_unbc(work / "clinical", UNBCPlan(subjects=6, sequences=2, frames=10, fps=5, size_px=64), seed=0)
    config = ["--config", "configs/data/unbc.yaml", "--config", tiny, "--data.root", str(work / "clinical")]
    return [*config, "--data.fps", "5"]


TARGETS = {
    "frame": ["--data.target", "frame", "--data.options.labels", "pspi"],
    "window": ["--data.window_s", "1", "--data.stride_s", "1", "--data.options.labels", "pspi"],
    "sequence": ["--data.target", "sequence", "--data.label", "vas", "--data.options.labels", "vas"],
}
HEADS = {"frame": "linear_frames", "window": "lstm", "sequence": "frame_ann"}


@pytest.fixture(scope="module")
def fitted(work: Path, on_unbc: list[str]) -> dict[str, list[str]]:
    """Target -> the options that it was extracted and fitted with; the checkpoints are in `<target>_run`."""
    from painseq.cli.extract import main as extract
    from painseq.cli.fit import fit

    options = {}
    for target, wanted in TARGETS.items():
        options[target] = [*on_unbc, *wanted, "--data.options.store", str(work / f"{target}_store")]
        extract([*on_unbc, *wanted, "--out", str(work / f"{target}_store"), "--dtype", "float32"])
        head = ["--config", f"configs/head/{HEADS[target]}.yaml", "--model.loss", "mse", "--trainer.max_epochs", "2"]
        head += ["--model.class_weights", "none"]
        fit([*options[target], *head, "--out", str(work / f"{target}_run")])
    return options


@pytest.mark.parametrize("target", TARGETS)
def test_frames_windows_and_sequences_are_fitted_and_scored(target, fitted, work, tmp_path):
    from painseq.cli.evaluate import main

    run = work / f"{target}_run"
    main([*fitted[target], "--checkpoint", str(run / "best.ckpt"), "--out", str(tmp_path / "scored")])
    predictions = read_value_predictions(tmp_path / "scored" / "predictions.csv")
    model = load(run / "best.ckpt")
    assert model.scale is not None and predictions.scale == model.scale.name
    assert predictions.scored.all() and len(set(predictions.subject_ids)) == 1
    assert ((predictions.value >= model.scale.low) & (predictions.value <= model.scale.high)).all()
    scores = json.loads((tmp_path / "scored" / "metrics.json").read_text())["models"]
    (found,) = scores.values()
    assert found["scores"]["mse"] == pytest.approx(((predictions.truth - predictions.value) ** 2).mean(), abs=1e-9)
    history = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val_mse" in history and "balanced" not in history


def test_a_video_gets_a_number_and_so_does_the_mean_of_models(fitted, work):
    folder = next(path for path in (work / "clinical" / "Images").glob("*/*") if path.is_dir())
    model = load(work / "window_run" / "best.ckpt")
    prediction = model.predict(folder, image_fps=5)
    assert prediction.label is None and prediction.value is not None and 0 <= prediction.value <= 16
    assert prediction.to_dict()["value"] == prediction.value and "probabilities" not in prediction.to_dict()
    assert prediction.frame_values.shape == prediction.frame_times_s.shape
    assert prediction.frame_values[-1] == pytest.approx(prediction.value)
    other = load(work / "window_run" / "last.ckpt")
    both = AveragedModel([model, other])
    x, mask = torch.randn(2, 5, *model.record.in_shape), torch.ones(2, 5, dtype=torch.bool)
    assert torch.allclose(both.classify(x, mask), (model.classify(x, mask) + other.classify(x, mask)) / 2)
    with pytest.raises(PainseqError, match=r"\bpspi\b.*\b0\b.*\b16\b"):
        model.with_prior({"no_pain": 1.0})


def test_the_curve_of_a_number_is_told_by_the_scale_not_by_its_own_maximum(fitted, work):
    from painseq.studies.explain_video import ExplainVideoOptions, explain_video

    folder = next(path for path in (work / "clinical" / "Images").glob("*/*") if path.is_dir())
    for target in ("frame", "window"):
        explained = explain_video(
            load(work / f"{target}_run" / "best.ckpt"), folder, options=ExplainVideoOptions(image_fps=5)
        )
        _, numbers, label = explained.curves()[0]
        assert label.startswith("pspi / 16") and np.allclose(numbers, explained.prediction.frame_values / 16)


def test_classes_and_numbers_do_not_mix(fitted, on_unbc, work, tmp_path, painseq):
    classes = [*on_unbc, *TARGETS["window"], "--data.options.store", str(work / "window_store")]
    head = ["--config", "configs/head/lstm.yaml", "--model.class_weights", "none"]
    result = painseq("fit", *classes, *head, "--out", tmp_path / "a")
    assert result.code == 1 and result.err.names("pspi", 0, 16, "cross_entropy")
    classes += ["--data.options.labels", "binary"]
    result = painseq("fit", *classes, *head, "--model.loss", "mse", "--out", tmp_path / "b")
    assert result.code == 1 and result.err.names("classes", "mse")
    result = painseq("evaluate", *classes, "--checkpoint", work / "window_run" / "best.ckpt", "--out", tmp_path / "c")
    assert result.code == 1 and result.err.names("pspi", 0, 16, "classes")
    result = painseq(
        "fit", *fitted["window"], *head, "--model.loss", "mse", "--model.class_weights", "inverse_frequency"
    )
    assert result.code == 1 and result.err.names("class_weights")


def test_predictions_are_read_as_they_were_written(tmp_path):
    numbers = np.array([0.1 + 0.2, np.nan, 16.0])
    counts = np.array([5, 0, -1])
    written = ValuePredictions("pspi", ("a", "b", "c"), ("s", "s", "t"), numbers, numbers[::-1], counts, counts)
    written.write_csv(tmp_path / "p.csv")
    read = read_value_predictions(tmp_path / "p.csv")
    assert read.scale == "pspi" and read.clip_ids == written.clip_ids and read.subject_ids == written.subject_ids
    np.testing.assert_array_equal(read.truth, written.truth)
    np.testing.assert_array_equal(read.value, written.value)
    np.testing.assert_array_equal(read.frames, counts)
    assert read.scored.tolist() == [True, False, True]
    assert read.only([2]).clip_ids == ("c",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_id,subject_id,truth\na,s,1\n", r"value_"),
        ("clip_id,subject_id,value_a,value_b\na,s,1,2\n", r"value_a.*value_b"),
        ("clip_id,subject_id,value_a\na,s,much\n", r"\b2\b.*value_a.*'much'"),
        ("clip_id,subject_id,value_a\na,s,1\na,s,2\n", r"\b3\b.*'a'.*\b2\b"),
        ("clip_id,subject_id,value_a\na,s,inf\n", r"\bvalue\b.*infinite"),
    ],
)
def test_files_of_numbers_say_what_is_wrong(text, message, tmp_path):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(PainseqError, match=message):
        read_value_predictions(tmp_path / "p.csv")
