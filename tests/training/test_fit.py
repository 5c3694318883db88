"""Fitting from Python: the run folder of the command, and heads that are not fitted by gradients."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import painseq
from painseq.cli.fit import fit as fit_command
from painseq.data.datamodule import PainDataModule
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import every_fold
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone
from painseq.faces import FaceCrops, Sidecar
from painseq.heads import LSTM, Head
from painseq.heads.head import Rows
from painseq.model.checkpoint import load, read_checkpoint
from painseq.records import Seen
from painseq.runs import read_history
from painseq.studies.predict_part import predict_part
from painseq.training import FitOptions, PainClassifier, fit, fit_fold
from painseq.training.rows import rows_of

INNER = SplitOptions(protocol="official_inner")
OPTIONS = FitOptions(max_epochs=3, accelerator="cpu")
SHARES = '''
import torch
from painseq.heads import Head


class {name}(Head):
    """The shares of the classes among the training rows, whatever the clip."""

    level = "{level}"
    fitted_by_gradients = False

    def __init__(self, in_shape, num_classes):
        super().__init__(in_shape, num_classes)
        self.register_buffer("shares", torch.full((num_classes,), 1 / num_classes))

    def fit_rows(self, train, validation):
        assert validation is None or len(validation.target)
        self.shares = torch.stack([train.weights[train.target == k].sum() for k in range(self.num_classes)])
        self.shares /= train.weights.sum()

    def forward(self, x, mask):
        shape = mask.shape if self.level == "frame" else mask.shape[:1]
        return self.shares.log().expand(*shape, self.num_classes)
'''


@pytest.fixture
def data(electrical: Path, store: Path) -> PainDataModule:
    return AI4Pain(electrical, DataOptions(split=INNER, store=store, batch_size=5))


@pytest.fixture
def shares(tmp_path, monkeypatch) -> type[Head]:
    """A trivial head of another package, that is not fitted by gradients."""
    (tmp_path / "own_heads.py").write_text(SHARES.format(name="Shares", level="video"))
    monkeypatch.syspath_prepend(tmp_path)
    import own_heads

    yield own_heads.Shares
    sys.modules.pop("own_heads")


def lstm(**arguments: object) -> PainClassifier:
    return PainClassifier(head=LSTM, **arguments)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint).head


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def files(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def test_a_fit_from_python_leaves_what_the_command_leaves(data, on_electrical, store, tmp_path):
    adamw = partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.3)
    make = partial(lstm, optimizer=adamw, class_weights="inverse_frequency", normalise="train")
    torch.manual_seed(99)
    model = fit(make(), data, tmp_path / "python", OPTIONS)
    args = [*on_electrical, "--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "3"]
    args += ["--data.options.store", str(store), "--data.options.batch_size", "5"]
    command = fit_command([*args, "--out", str(tmp_path / "command")])
    assert files(tmp_path / "python") == files(command)
    for name in ("best.ckpt", "last.ckpt"):
        assert same(weights(tmp_path / "python" / name), weights(command / name))
    assert read_history(tmp_path / "python") == read_history(command)
    here, there = (json.loads((out / "run.json").read_text()) for out in (tmp_path / "python", command))
    assert here == there
    loaded = load(tmp_path / "python" / "best.ckpt")
    assert loaded.record == model.record == load(command / "best.ckpt").record
    batch = next(iter(data.loader("test")))
    assert torch.equal(model.decide(batch).probabilities, loaded.decide(batch).probabilities)
    config = yaml.safe_load((tmp_path / "python" / "config.yaml").read_text())
    assert config["model"]["head"]["class_path"] == "painseq.heads.LSTM" and config["options"]["max_epochs"] == 3
    assert config["model"]["optimizer"]["init_args"] == {"lr": 2e-3, "weight_decay": 0.3}
    assert config["data"]["options"]["store"] == str(store)


def test_random_numbers_of_the_program_neither_matter_nor_change(data, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fit(lstm(), data, tmp_path / "a", OPTIONS)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    fit(lstm(), data, tmp_path / "b", OPTIONS)
    fit(lstm(), data, tmp_path / "c", replace(OPTIONS, seed=1))
    first, second, other = (weights(tmp_path / name / "best.ckpt") for name in "abc")
    assert same(first, second) and not same(first, other)


def test_a_used_folder_or_model_is_refused_and_an_interrupted_run_is_resumed_exactly(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(PainseqError, match=r"last\.ckpt"):
        fit(lstm(), data, out, OPTIONS, resume=True)
    whole = lstm()
    fit(whole, data, tmp_path / "whole", OPTIONS)
    with pytest.raises(PainseqError, match="PainClassifier"):
        fit(whole, data, out, OPTIONS)

    def interrupted(model: PainClassifier) -> None:
        if model.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PainClassifier, "on_train_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(lstm(), data, out, OPTIONS)
    with pytest.raises(PainseqError, match="resume"):
        fit(lstm(), data, out, OPTIONS)
    with pytest.raises(PainseqError, match="data"):
        other = AI4Pain(data.root, replace(data.options, split=replace(INNER, seed=5)))
        fit(lstm(), other, out, OPTIONS, resume=True)
    fit(lstm(), data, out, OPTIONS, resume=True)
    assert same(weights(out / "last.ckpt"), weights(tmp_path / "whole" / "last.ckpt"))
    assert read_history(out) == read_history(tmp_path / "whole")
    with pytest.raises(PainseqError, match=str(out)):
        fit(lstm(), data, out, OPTIONS)


def test_refitting_takes_the_validation_part_in_and_leaves_the_callers_data_as_they_are(data, tmp_path):
    model = fit(lstm(), data, tmp_path / "run", OPTIONS, refit_epochs=2)
    assert model.record.data.split.validation == () and data.split.validation
    assert {*model.record.data.split.train} == {*data.split.train, *data.split.validation}
    assert not (tmp_path / "run" / "best.ckpt").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == 2
    with pytest.raises(PainseqError, match="0"):
        fit(lstm(), data, tmp_path / "none", OPTIONS, refit_epochs=0)
    assert not (tmp_path / "none").exists()


def test_a_control_is_recorded(data, tmp_path):
    data.shuffle_labels(3)
    assert fit(lstm(), data, tmp_path / "run", OPTIONS).record.data.shuffled_labels == 3


def test_a_trained_extractor_has_its_card(heat, heat_crops, tmp_path):
    from painseq.data_modules import BioVid

    data = BioVid(heat, DataOptions(labels="binary", view="pixels", store=heat_crops, batch_size=4))
    make = partial(PainClassifier, head=LSTM, extractor_lr=1e-4)
    extractor = TimmBackbone("test_resnet", input_size_px=32, trainable=["layer4"])
    fit(make(extractor=extractor), data, tmp_path / "run", replace(OPTIONS, max_epochs=1))
    card = TimmBackbone("test_resnet", str(tmp_path / "run" / "extractor.safetensors"), input_size_px=32).card
    assert card["extractor_lr"] == 1e-4 and card["optimizer"]["class_path"].endswith("Adam")
    assert "layer4" in (tmp_path / "run" / "extractor_card.md").read_text()


# Heads that are not fitted by gradients.


class OwnLocator(Sidecar):
    """A locator of no package that a file may name."""


def test_a_model_fitted_with_a_locator_of_ones_own_is_given_back(electrical, tmp_path):
    face = FaceCrops(OwnLocator(), size_px=32)
    options = DataOptions(split=INNER, view="pixels", face=face, fps=1.0)
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    made = fit(
        lstm(extractor=extractor), AI4Pain(electrical, options), tmp_path / "run", replace(OPTIONS, max_epochs=1)
    )
    assert type(made.face.locator) is OwnLocator
    with pytest.raises(PainseqError, match="trust"):
        load(tmp_path / "run" / "best.ckpt")


def test_shares_of_the_classes_are_fitted_loaded_and_scored(data, shares, tmp_path):
    out = tmp_path / "run"
    model = fit(PainClassifier(head=shares), data, out, FitOptions(accelerator="cpu"))
    assert files(out) == {"best.ckpt", "config.yaml", "run.json"}
    counts = torch.tensor(list(data.train_counts().values()), dtype=torch.float32)
    torch.testing.assert_close(model.head.shares, counts / counts.sum())
    loaded = load(out / "best.ckpt", trust=["own_heads"])
    assert loaded.record == model.record and torch.equal(loaded.head.shares, model.head.shares)
    predictions = predict_part(loaded, data, "test")
    torch.testing.assert_close(torch.tensor(predictions.probabilities[0]).float(), counts / counts.sum())
    run = json.loads((out / "run.json").read_text())
    assert run["epochs"] is None and run["best_val_loss"] is None and run["extractor"]["fingerprint"]
    with pytest.raises(PainseqError, match=str(out)):
        fit(PainClassifier(head=shares), data, out, FitOptions(accelerator="cpu"))
    with pytest.raises(PainseqError, match=r"last\.ckpt"):
        fit(PainClassifier(head=shares), data, out, FitOptions(accelerator="cpu"), resume=True)


def test_class_weights_are_those_of_the_rows_and_validation_may_be_absent(data, shares, tmp_path):
    data.options = replace(data.options, split=replace(INNER, validation_share=0.0))
    even = PainClassifier(head=shares, class_weights="inverse_frequency")
    model = fit(even, data, tmp_path / "run", FitOptions(accelerator="cpu"))
    assert not data.split.validation
    torch.testing.assert_close(model.head.shares, torch.full((3,), 1 / 3))
    assert model.record.train_prior == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize(
    ("arguments", "options", "more", "named"),
    [
        ({"optimizer": torch.optim.SGD}, {}, {}, ["optimizer"]),
        ({"optimizer": partial(torch.optim.Adam, lr=0.1)}, {}, {}, ["optimizer"]),
        ({"label_smoothing": 0.1, "start_from": "x.ckpt"}, {}, {}, ["label_smoothing", "start_from"]),
        ({}, {"max_epochs": 7, "patience": 2}, {}, ["max_epochs", "patience"]),
        ({}, {"precision": "bf16-mixed", "gradient_clip_val": 1.0}, {}, ["precision", "gradient_clip_val"]),
        ({}, {}, {"refit_epochs": 3}, ["epochs"]),
    ],
)
def test_settings_that_only_gradients_use_are_refused_by_name(
    data, shares, tmp_path, monkeypatch, arguments, options, more, named
):
    monkeypatch.setattr("painseq.training.binding.start_head", lambda *_: Seen())
    with pytest.raises(PainseqError, match="Shares") as caught:
        made = PainClassifier(head=shares, **arguments)
        fit(made, data, tmp_path / "run", FitOptions(accelerator="cpu", **options), **more)
    assert all(name in str(caught.value) for name in named)
    assert not (tmp_path / "run").exists()


def test_balanced_drawing_is_refused_by_name(data, shares, tmp_path):
    data.options = replace(data.options, balance=True)
    with pytest.raises(PainseqError, match="balance"):
        fit(PainClassifier(head=shares), data, tmp_path / "run", FitOptions(accelerator="cpu"))


def test_a_fold_is_fitted_once_and_read_again(electrical, store, shares, tmp_path):
    folds = SplitOptions(protocol="loso", validation_share=0.0)
    data = AI4Pain(electrical, DataOptions(split=folds, store=store))
    fold = data.with_split(every_fold(data.manifest, folds, data.scheme)[0])
    make, options = partial(PainClassifier, head=shares), FitOptions(max_epochs=1000, accelerator="cpu")
    model = fit_fold(make, fold, tmp_path / "fold", options)
    assert files(tmp_path / "fold") == {"best.ckpt", "run.json"}
    assert json.loads((tmp_path / "fold" / "run.json").read_text())["best_epoch"] is None
    (tmp_path / "fold" / "best.ckpt").touch()
    before = (tmp_path / "fold" / "run.json").stat().st_mtime_ns
    again = fit_fold(make, fold, tmp_path / "fold", options)
    assert (tmp_path / "fold" / "run.json").stat().st_mtime_ns == before
    assert torch.equal(model.head.shares, again.head.shares) and len(predict_part(again, fold, "test")) > 0
    with pytest.raises(PainseqError, match="epochs"):
        fit_fold(make, fold, tmp_path / "other", options, epochs=2)


def test_the_commands_fit_evaluate_and_crossval_take_such_a_head(
    painseq_command, on_electrical, store, shares, tmp_path
):
    plain = tmp_path / "plain.yaml"
    plain.write_text("trainer: {max_epochs: null}\n")
    args = [*on_electrical, "--config", str(plain), "--model.head=own_heads.Shares"]
    args += ["--data.options.store", str(store)]
    out = fit_command([*args, "--out", str(tmp_path / "run")])
    assert files(out) == {"best.ckpt", "config.yaml", "run.json"}
    again = fit_command(["--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")])
    assert same(weights(again / "best.ckpt"), weights(out / "best.ckpt"))
    scored = painseq_command(
        "evaluate", *args, "--checkpoint", out / "best.ckpt", "--trust", "own_heads", "--out", tmp_path / "scores"
    )
    assert scored == 0 and (tmp_path / "scores" / "metrics.json").is_file()
    with pytest.raises(PainseqError, match=r"trainer\.max_epochs"):
        fit_command([*args, "--trainer.max_epochs", "5", "--out", str(tmp_path / "five")])
    with pytest.raises(PainseqError, match="optimizer"):
        fit_command([*args, "--model.optimizer=torch.optim.SGD", "--out", str(tmp_path / "sgd")])
    folds = ["--data.options.split.protocol=subject_kfold", "--data.options.split.folds=2", "--jobs=1"]
    assert painseq_command("crossval", *args, *folds, "--out", tmp_path / "folds") == 0
    assert (tmp_path / "folds" / "metrics.json").is_file()


@pytest.fixture
def painseq_command() -> Callable[..., int]:
    from painseq.cli import main

    return lambda *args: main([str(arg) for arg in args])


class Watched(LSTM):
    fitted_by_gradients = False


@pytest.mark.parametrize("level", ["frame", "video"])
def test_rows_are_what_counts_in_the_loss_of_other_heads(data, level, monkeypatch):
    monkeypatch.setattr(Watched, "level", level)
    model = PainClassifier(head=Watched, class_weights="inverse_frequency")
    model.bind(data)
    rows = rows_of(model, data, "train")
    assert isinstance(rows, Rows)
    batches = [batch for batch in data.loader("train")]
    if level == "frame":
        assert rows.x.shape == (sum(int(batch.mask.sum()) for batch in batches), 96) and rows.mask.all()
        assert rows.mask.shape == rows.target.shape
    else:
        assert len(rows.x) == len(data.dataset("train")) and rows.x.shape[:2] == rows.mask.shape
        longest = max(batch.mask.shape[1] for batch in batches)
        assert rows.mask.shape[1] == longest and not rows.x[~rows.mask].any()
    assert torch.equal(rows.weights, model.loss_weights[rows.target])
    assert rows_of(model, data, "validation") is not None


def test_version_is_that_of_the_package(data, tmp_path):
    assert fit(lstm(), data, tmp_path / "run", replace(OPTIONS, max_epochs=1)).record.painseq == painseq.__version__


FOREIGN_LOCATOR = """
from painseq.faces import Sidecar


class Theirs(Sidecar):
    pass
"""


def test_features_whose_store_names_a_locator_of_another_package(electrical, store, tmp_path, monkeypatch, caplog):
    """Fitting needs no locator; the model that it returns reads no videos, and the checkpoint does if it is trusted."""
    (tmp_path / "their_locator.py").write_text(FOREIGN_LOCATOR)
    monkeypatch.syspath_prepend(tmp_path)
    theirs = shutil.copytree(store, tmp_path / "store")
    header = json.loads((theirs / "store.json").read_text())
    header["spec"]["face"]["init_args"]["locator"]["class_path"] = "their_locator.Theirs"
    (theirs / "store.json").write_text(json.dumps(header))
    data = AI4Pain(electrical, DataOptions(split=SplitOptions(protocol="official_inner"), store=theirs))
    with caplog.at_level("INFO", "painseq"):
        model = fit(lstm(), data, tmp_path / "run", replace(OPTIONS, max_epochs=1))
    assert model.face is None and "their_locator.Theirs" in caplog.text and "their_locator" not in sys.modules
    assert len(predict_part(model, data, "test")) == 6
    with pytest.raises(PainseqError, match=r"their_locator.*--trust"):
        load(tmp_path / "run" / "best.ckpt")
    assert load(tmp_path / "run" / "best.ckpt", trust=["their_locator"]).face is not None
    sys.modules.pop("their_locator")


def test_a_refit_of_given_items_is_refused(data, tmp_path):
    items = data.everything()
    divided = data.with_items(items, {"train": range(4, len(items)), "validation": range(4)}, "clips")
    with pytest.raises(PainseqError, match=r"refit_epochs.*items"):
        fit(lstm(), divided, tmp_path / "run", OPTIONS, refit_epochs=1)
