"""A threshold tuned on folds of the training subjects: kept in the record, never from test subjects."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import out_of_fold_splits
from painseq.data_modules import AI4Pain, BioVid
from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone
from painseq.features import FeatureStore
from painseq.heads import LSTM, FrameANN
from painseq.heads.trees import GradientBoosting
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import load, read_checkpoint
from painseq.studies.predict_part import predict_part
from painseq.training import FitOptions, PainClassifier, ThresholdTuning, fit, fit_fold
from painseq.training.fitting import Trainer

TUNING = ThresholdTuning("balanced_accuracy", inner_folds=3)
OPTIONS = FitOptions(max_epochs=2, accelerator="cpu", tune_threshold=TUNING)


def binary(electrical: Path, store: Path, **options: object) -> PainDataModule:
    split = SplitOptions(protocol="official")
    return AI4Pain(electrical, DataOptions(labels="binary", split=split, store=store, batch_size=5, **options))


@pytest.fixture
def data(electrical: Path, store: Path) -> PainDataModule:
    return binary(electrical, store)


@pytest.fixture
def tuned(data, tmp_path):
    return fit(PainClassifier(head=LSTM), data, tmp_path / "run", OPTIONS)


def test_every_training_subject_is_held_out_once_and_no_test_subject_is_in_a_fold(data):
    splits = out_of_fold_splits(data.split, data.manifest, 3, 0, data.scheme)
    assert sorted(subject for split in splits for subject in split.test) == sorted(data.split.train)
    for split in splits:
        assert split.validation == data.split.validation
        assert not {*split.train, *split.validation, *split.test} & {*data.split.test}
        assert {*split.train, *split.test} == {*data.split.train}


def test_the_record_says_how_the_threshold_was_found_and_labels_follow_it(tuned, data, tmp_path):
    found = tuned.record.threshold
    assert (found.metric, found.inner_folds, found.subjects) == ("balanced_accuracy", 3, len(data.split.train))
    assert found.clips == sum(data.train_counts().values()) and not found.replaces_votes
    assert found.score >= found.score_at_half and 0 < found.value < 1
    loaded = load(tmp_path / "run" / "best.ckpt")
    assert loaded.record == tuned.record
    assert replace(loaded.record, calibration=None) == load(tmp_path / "run" / "last.ckpt").record
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["threshold"] == found.to_dict()
    for value in (0.0, found.value, 1.0):
        loaded.threshold = value
        predictions = predict_part(loaded, data, "test")
        assert (predictions.label == (predictions.probabilities[:, 1] >= value)).all()
        assert (predictions.threshold == value).all()


def test_tuning_changes_no_weight(tuned, data, tmp_path):
    fit(PainClassifier(head=LSTM), data, tmp_path / "plain", replace(OPTIONS, tune_threshold=None))
    plain, own = (read_checkpoint(tmp_path / run / "best.ckpt").head for run in ("plain", "run"))
    assert all(torch.equal(plain[name], own[name]) for name in plain)


def test_no_clip_of_a_test_subject_is_read(tuned, electrical, store, tmp_path, monkeypatch):
    unreadable = binary(electrical, store)
    held_out, read = {clip.clip_id for clip in unreadable.clips("test")}, set()
    frames = FeatureStore.frames

    def refuse(self, clip_id, *span):
        assert clip_id not in held_out
        read.add(clip_id)
        return frames(self, clip_id, *span)

    monkeypatch.setattr(FeatureStore, "frames", refuse)
    monkeypatch.setattr(FeatureStore, "__getitem__", refuse)
    again = fit(PainClassifier(head=LSTM), unreadable, tmp_path / "again", OPTIONS)
    assert again.record.threshold == tuned.record.threshold
    assert {clip.clip_id for clip in unreadable.clips("train")} <= read
    tested = {f"ai4pain/{subject}" for subject in unreadable.split.test}
    for number in range(3):
        checkpoint = tmp_path / "again" / "threshold" / f"fold-{number}" / "best.ckpt"
        assert not {*read_checkpoint(checkpoint).record.fitted_on} & tested


def test_a_resumed_run_keeps_its_threshold_and_refuses_another(tuned, data, tmp_path):
    run = tmp_path / "run"
    (run / "run.json").unlink()
    with pytest.raises(PainseqError, match="weighted_f1"):
        other = replace(OPTIONS, max_epochs=3, tune_threshold=ThresholdTuning("weighted_f1", 3))
        fit(PainClassifier(head=LSTM), data, run, other, resume=True)
    again = fit(PainClassifier(head=LSTM), data, run, replace(OPTIONS, max_epochs=3), resume=True)
    assert again.record.threshold == tuned.record.threshold


@pytest.mark.parametrize("head", [FrameANN, GradientBoosting])
def test_frame_heads_and_trees_are_tuned_in_folds_of_studies(head, data, tmp_path):
    options = FitOptions(accelerator="cpu", tune_threshold=TUNING, **({"max_epochs": 2} if head is FrameANN else {}))
    model = fit_fold(lambda: PainClassifier(head=head), data, tmp_path / "fold", options)
    assert model.record.threshold.replaces_votes is (model.head.level == "frame")
    assert fit_fold(lambda: PainClassifier(head=head), data, tmp_path / "fold", options).record == model.record
    predictions = predict_part(model, data, "test")
    assert (predictions.label == (predictions.probabilities[:, 1] >= model.threshold)).all()
    with pytest.raises(PainseqError, match="sensitivity"):
        changed = replace(options, tune_threshold=ThresholdTuning("sensitivity=0.9", 3))
        fit_fold(lambda: PainClassifier(head=head), data, tmp_path / "fold", changed)


@pytest.mark.parametrize(
    ("labels", "arguments", "folds", "named"),
    [
        ("three", {}, 2, "3 classes"),
        ("binary", {"loss": "corn"}, 2, "corn"),
        ("binary", {}, 9, "9 folds"),
    ],
)
def test_what_has_no_threshold_is_refused(electrical, store, tmp_path, labels, arguments, folds, named):
    data = binary(electrical, store)
    data.options = replace(data.options, labels=labels)
    options = replace(OPTIONS, tune_threshold=ThresholdTuning("weighted_f1", folds))
    with pytest.raises(PainseqError, match=named):
        fit(PainClassifier(head=LSTM, **arguments), data, tmp_path / "run", options)
    with pytest.raises(PainseqError):
        ThresholdTuning("weighted_f1", 1)


def test_several_processes_are_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "world_size", property(lambda self: 2))
    with pytest.raises(PainseqError, match="devices 1"):
        fit_fold(lambda: PainClassifier(head=LSTM), data, tmp_path / "fold", OPTIONS)


def test_a_stated_mix_changes_probabilities_but_no_label_of_a_threshold(tuned, data):
    batch = next(iter(data.loader("test")))
    plain, mixed = tuned.decide(batch), tuned.with_prior({"no_pain": 0.01, "high_pain": 0.99}).decide(batch)
    assert not torch.allclose(plain.probabilities, mixed.probabilities)
    assert torch.equal(plain.label, mixed.label)
    both = AveragedModel([tuned, tuned])
    assert torch.equal(both.decide(batch).label, plain.label)
    assert torch.equal(both.with_prior({"no_pain": 0.01, "high_pain": 0.99}).decide(batch).label, plain.label)


def test_models_of_different_thresholds_are_not_averaged(tuned, data):
    plain = tuned.without_threshold()
    assert plain.threshold is None and plain.record.threshold is None and tuned.threshold is not None
    with pytest.raises(PainseqError, match="without_threshold"):
        AveragedModel([tuned, plain])
    batch: Batch = next(iter(data.loader("test")))
    decision = AveragedModel([plain, plain]).decide(batch)
    assert torch.equal(decision.label, decision.probabilities.argmax(dim=1))


def test_folds_that_an_interrupted_run_finished_are_not_fitted_again(tuned, data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("painseq.training.tuning.choose_threshold", interrupted)
        fit(PainClassifier(head=LSTM), data, tmp_path / "again", OPTIONS)
    finished = tmp_path / "again" / "threshold" / "fold-0" / "best.ckpt"
    before = finished.stat().st_mtime_ns
    again = fit(PainClassifier(head=LSTM), data, tmp_path / "again", OPTIONS)
    assert finished.stat().st_mtime_ns == before and again.record == tuned.record


def test_each_fold_trains_an_extractor_of_its_own(heat, heat_crops, tmp_path):
    data = BioVid(heat, DataOptions(labels="binary", view="pixels", store=heat_crops, batch_size=4))
    options = FitOptions(max_epochs=1, accelerator="cpu")
    states = {}
    for name, tuning in (("plain", None), ("tuned", ThresholdTuning("weighted_f1", 2))):
        extractor = TimmBackbone("test_resnet", input_size_px=32, trainable=["layer4"])
        model = PainClassifier(head=LSTM, extractor=extractor)
        fit(model, data, tmp_path / name, replace(options, tune_threshold=tuning))
        states[name] = read_checkpoint(tmp_path / name / "best.ckpt").extractor
    assert all(torch.equal(value, states["tuned"][name]) for name, value in states["plain"].items())
    inner = read_checkpoint(tmp_path / "tuned" / "threshold" / "fold-0" / "best.ckpt").extractor
    assert any(not torch.equal(value, inner[name]) for name, value in states["plain"].items())
