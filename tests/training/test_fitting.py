"""Fitting a fold: the training of `painseq fit`, quiet, done once, the same wherever it runs."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import painseq
from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import FrameWindow
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import Split, every_fold
from painseq.data_modules import AI4Pain
from painseq.errors import LeakError, PainseqError
from painseq.heads import LSTM, FrameANN
from painseq.runs import read_history
from painseq.studies.predict_part import predict_part
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions, fit_fold

FOLDS = SplitOptions(protocol="loso", validation_share=0.25)
OPTIONS = FitOptions(max_epochs=3, accelerator="cpu")


def make() -> PainClassifier:
    return PainClassifier(head=lambda in_shape, outputs: LSTM(in_shape, outputs))


@pytest.fixture
def data(electrical: Path, store: Path) -> PainDataModule:
    return AI4Pain(electrical, DataOptions(split=FOLDS, store=store, batch_size=5))


@pytest.fixture
def folds(data: PainDataModule) -> list[Split]:
    return every_fold(data.manifest, FOLDS, data.scheme)


def weights(model: painseq.PainModel) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in model.head.state_dict().values()])


def test_a_fold_gives_the_model_that_load_gives(data, folds, tmp_path):
    fold = data.with_split(folds[0])
    model = fit_fold(make, fold, tmp_path / "fold", OPTIONS)
    loaded = painseq.load(tmp_path / "fold" / "best.ckpt")
    assert model.record == loaded.record and model.fitted_on == loaded.fitted_on
    assert torch.equal(weights(model), weights(loaded))
    batch = next(iter(fold.loader("test")))
    assert torch.equal(model.decide(batch).probabilities, loaded.decide(batch).probabilities)
    assert not model.training and model.extractor is not None
    assert {path.name for path in (tmp_path / "fold").iterdir()} == {"best.ckpt", "metrics.csv", "run.json"}


def test_a_class_that_validation_lacks_is_told_once(data, folds, tmp_path, caplog):
    validation, lacking = folds[0].validation, data.scheme.class_names[-1]
    labels = data.scheme.classes[lacking]
    kept = [clip for clip in data.manifest if clip.subject_id not in validation or clip.label not in labels]
    data._manifest = data.manifest.only(kept)
    fit_fold(make, data.with_split(folds[0]), tmp_path / "fold", OPTIONS)
    (told,) = (message for message in caplog.messages if "validation" in message)
    assert lacking in told


def test_a_fold_is_what_fit_makes_of_the_same_split(data, folds, on_electrical, store, tmp_path):
    from painseq.cli.fit import fit

    (tmp_path / "split.yaml").write_text("model: {head: {class_path: painseq.heads.LSTM}}")
    options = [
        "--config",
        str(tmp_path / "split.yaml"),
        "--data.options.store",
        str(store),
        "--trainer.max_epochs",
        "3",
    ]
    options += ["--data.options.split.protocol", "loso", "--data.options.split.validation_share", "0.25"]
    options += ["--data.options.batch_size", "5"]
    run = fit([*on_electrical, *options, "--out", str(tmp_path / "run")])
    model = fit_fold(make, data.with_split(folds[0]), tmp_path / "fold", OPTIONS)
    assert torch.equal(weights(model), weights(painseq.load(run / "best.ckpt")))


def test_neither_the_order_of_folds_nor_other_random_numbers_matter(data, folds, tmp_path):
    shared = data.with_split(folds[0])
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    forward = [weights(fit_fold(make, shared.with_split(folds[n]), tmp_path / f"a{n}", OPTIONS)) for n in (0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    backward = [weights(fit_fold(make, data.with_split(folds[n]), tmp_path / f"b{n}", OPTIONS)) for n in (1, 0)]
    assert torch.equal(forward[0], backward[1]) and torch.equal(forward[1], backward[0])
    other = fit_fold(make, data.with_split(folds[0]), tmp_path / "c", replace(OPTIONS, seed=1))
    assert not torch.equal(forward[0], weights(other))


def test_the_kept_weights_are_those_of_the_epoch_with_the_smallest_validation_loss(data, folds, tmp_path):
    fold = data.with_split(folds[0])
    fit_fold(make, fold, tmp_path / "best", replace(OPTIONS, max_epochs=6, patience=2))
    rows = read_history(tmp_path / "best")
    losses = [row["val_loss"] for row in rows]
    recorded = json.loads((tmp_path / "best" / "run.json").read_text())
    assert recorded["best_epoch"] == losses.index(min(losses)) + 1 and recorded["epochs"] == len(losses)
    fixed = fit_fold(make, fold, tmp_path / "fixed", OPTIONS, epochs=recorded["best_epoch"])
    assert torch.equal(weights(fixed), weights(painseq.load(tmp_path / "best" / "best.ckpt")))


def test_a_fold_that_is_there_is_read_and_not_fitted_again(data, folds, tmp_path, monkeypatch):
    fold = data.with_split(folds[0])
    first = fit_fold(make, fold, tmp_path, OPTIONS)
    monkeypatch.setattr("painseq.training.fitting.train", lambda *_: pytest.fail("fitted again"))
    again = fit_fold(make, fold, tmp_path, OPTIONS)
    assert torch.equal(weights(first), weights(again)) and first.record == again.record
    with pytest.raises(PainseqError, match="seed: 0, not 7"):
        fit_fold(make, fold, tmp_path, replace(OPTIONS, seed=7))
    with pytest.raises(PainseqError, match=r"\bdata\b.*\bfitted_on\b"):
        fit_fold(make, data.with_split(folds[1]), tmp_path, OPTIONS)
    ann = partial(PainClassifier, head=lambda in_shape, outputs: FrameANN(in_shape, outputs))
    with pytest.raises(PainseqError, match=r"\bhead\b"):
        fit_fold(ann, fold, tmp_path, OPTIONS)


def test_an_interrupted_fold_starts_anew(data, folds, tmp_path, monkeypatch):
    fold = data.with_split(folds[0])
    whole = fit_fold(make, fold, tmp_path / "whole", OPTIONS)

    def interrupted(model: PainClassifier) -> None:
        if model.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PainClassifier, "on_train_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_fold(make, fold, tmp_path / "cut", OPTIONS)
    assert not (tmp_path / "cut" / "run.json").exists()
    assert torch.equal(weights(fit_fold(make, fold, tmp_path / "cut", OPTIONS)), weights(whole))
    assert read_history(tmp_path / "cut") == read_history(tmp_path / "whole")


def test_a_fixed_number_of_epochs_needs_no_validation(data, folds, tmp_path):
    everybody = Split("loso", (*folds[0].train, *folds[0].validation), (), folds[0].test)
    model = fit_fold(make, data.with_split(everybody), tmp_path / "fixed", OPTIONS, epochs=2)
    assert {path.name for path in (tmp_path / "fixed").iterdir()} == {"last.ckpt", "metrics.csv", "run.json"}
    run = json.loads((tmp_path / "fixed" / "run.json").read_text())
    assert (run["best_epoch"], run["epochs"], run["settings"]["epochs"]) == (2, 2, 2)
    assert model.fitted_on == {f"ai4pain/{subject}" for subject in everybody.train}
    assert torch.equal(weights(model), weights(painseq.load(tmp_path / "fixed" / "last.ckpt")))
    with pytest.raises(PainseqError, match="validation"):
        fit_fold(make, data.with_split(everybody), tmp_path / "early", OPTIONS)


def test_a_fold_says_nothing_on_the_console(data, folds, tmp_path, capfd, caplog, recwarn):
    fold = data.with_split(folds[0])
    capfd.readouterr(), caplog.clear(), recwarn.clear()
    fit_fold(make, fold, tmp_path, OPTIONS)
    result = capfd.readouterr()
    assert (result.out, result.err) == ("", "") and not caplog.messages
    assert [str(warning.message) for warning in recwarn if "pytorch_lightning" in warning.filename] == []


def test_an_extractor_that_saw_the_test_subject_is_refused(data, folds, tmp_path):
    fold = data.with_split(folds[0])
    seen = f"ai4pain/{folds[0].test[0]}"
    fold.store.trained_on = (seen,)
    with pytest.raises(LeakError, match=rf"extractor.*\b1\b.*\({seen}\)"):
        fit_fold(make, fold, tmp_path, OPTIONS)


def test_a_model_of_leaky_parts_is_known_by_its_record_and_never_scored_as_if_it_were_not(data, tmp_path):
    clips = data.everything()
    numbers = list(range(len(clips)))
    parts = {"train": numbers[::3], "validation": numbers[1::3], "test": numbers[2::3]}
    leaky = data.with_items(clips, parts, "clips")
    model = fit_fold(make, leaky, tmp_path, OPTIONS)
    everybody = {f"ai4pain/{clip.subject_id}" for clip in clips.clips}
    assert model.fitted_on == everybody
    assert model.record.data.split.protocol == "clips_LEAKY"
    assert "clips_LEAKY" in (tmp_path / "run.json").read_text()
    for scored in (leaky, data):
        with pytest.raises(LeakError):
            predict_part(model, scored, "test")


def test_single_frames_are_fitted_on_from_the_shared_features(data, folds, tmp_path):
    from painseq.heads import LinearFrames

    data.options = replace(data.options, frames=FrameWindow(0, 3))
    frames = partial(PainClassifier, head=lambda in_shape, outputs: LinearFrames(in_shape, outputs))
    model = fit_fold(frames, data.with_split(folds[0]), tmp_path, OPTIONS)
    predictions = predict_part(model, data.with_split(folds[0]), "test")
    assert set(predictions.frames.tolist()) == {1} and all("@" in clip_id for clip_id in predictions.clip_ids)
