"""Fitting on one fold: the same training as `painseq fit`, quiet, from Python, and done once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.faces import FaceCrops
from painseq.files import write_json
from painseq.model.checkpoint import Checkpoint, read_checkpoint
from painseq.model.pain_model import PainModel
from painseq.runs import check_same_run, read_history, read_json, versions
from painseq.training.classifier import PainClassifier

BEST, LAST = "best.ckpt", "last.ckpt"
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class FitOptions:
    """How a fold is fitted.

    Args:
        max_epochs: epochs at most.
        patience: epochs without a better validation loss after which training ends.
        seed: of the head's first weights, of dropout and of whatever else is drawn, for each fold anew; the order of
            the training items is drawn from the data module's own.
        precision: of the network's arithmetic in training.
        accelerator: "auto", "cpu", "gpu", ...
        gradient_clip_val: the norm above which gradients are cut; None cuts none.
    """

    max_epochs: int = 100
    patience: int = 5
    seed: int = 0
    precision: Precision = "32-true"
    accelerator: str = "auto"
    gradient_clip_val: float | None = None


def fit_fold(
    make_model: Callable[[], PainClassifier],
    data: PainDataModule,
    out: Path,
    options: FitOptions,
    epochs: int | None = None,
) -> PainModel:
    """Fit on the training part of `data`, and keep the weights of the epoch with the best validation loss.

    A fold that was fitted before is not fitted again: its checkpoint is read. One that was interrupted starts anew.
    Random numbers are the fold's own, so that it does not matter which folds come before it or in which process it
    runs. On a CPU the same number of threads gives the same weights, bit for bit; on a GPU, as far as its kernels do.

    Args:
        make_model: makes a new classifier with each call.
        data: with the fold's split; see `PainDataModule.with_split`.
        out: the fold's folder: `best.ckpt` (with `epochs`: `last.ckpt`), `metrics.csv`; `run.json` when it is whole.
        epochs: train for so many instead of stopping early; a validation part is then looked at, but decides nothing.

    Returns:
        What `painseq.load` makes of the checkpoint, on the device of the training.

    Raises:
        PainseqError: nobody to stop early on; the fold in `out` was fitted otherwise; see `PainDataModule.setup` and
            `PainClassifier.bind`.
        LeakError: the extractor was fitted on a subject of the test part.
    """
    if epochs is None and not data.split.validation:
        raise PainseqError("No validation subjects to stop early on. Give the split some, or a number of epochs.")
    quiet_lightning()
    fixed, finished = epochs is not None, out / "run.json"
    settings = {**asdict(options), "epochs": epochs}
    with isolate_rng():
        torch.manual_seed(options.seed)
        model = make_model()
        best = BestWeights()
        trainer = _trainer(out, options, epochs, best)
        if finished.is_file():
            check_same_run(out, (read_json(finished) or {}).get("settings", {}), settings)
            content = read_checkpoint(chosen_checkpoint(out, fixed))
            model.bind(data)
            model.check_resumes(content.record)
        else:
            out.mkdir(parents=True, exist_ok=True)
            train(trainer, model, data)
            if fixed or best.weights:
                model.load_state_dict(best.weights if epochs is None else {}, strict=False)
                trainer.save_checkpoint(out / (LAST if fixed else BEST), weights_only=True)
            content = read_checkpoint(chosen_checkpoint(out, fixed))
            chosen = {"best_epoch": best_epoch(out) if epochs is None else epochs}
            # The last file: where it lies, the fold is whole.
            write_json(finished, {**run_record(model, data, trainer, content), "settings": settings, **chosen})
        return _model(model, content).to(trainer.strategy.root_device)


def _trainer(out: Path, options: FitOptions, epochs: int | None, best: BestWeights) -> Trainer:
    return Trainer(
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        max_epochs=options.max_epochs if epochs is None else epochs,
        gradient_clip_val=options.gradient_clip_val,
        callbacks=[EarlyStopping("val_loss", patience=options.patience), best] if epochs is None else [],
        logger=CSVLogger(out, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
    )


def _model(fitted: PainClassifier, content: Checkpoint) -> PainModel:
    """What `painseq.load` makes of the checkpoint, without building the extractor once more."""
    assert fitted.head is not None
    fitted.head.load_state_dict(content.head, strict=True)
    if fitted.extractor is not None and content.extractor is not None:
        fitted.extractor.network.load_state_dict(content.extractor)
    face = None if content.record.face is None else FaceCrops.from_spec(content.record.face)
    return PainModel(content.record, fitted.head, fitted.extractor, face)


class BestWeights(Callback):
    """Keeps the weights of the epoch with the smallest validation loss, in memory.

    A checkpoint holds the extractor too, and takes longer to write than a short epoch.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights that are trained, and the statistics beside them, if they are the best so far."""
        loss = float(trainer.callback_metrics.get("val_loss", float("inf")))
        if loss < self.loss:
            self.loss = loss
            self.weights = {
                key: value.clone() for key, value in pl_module.state_dict().items() if self._moves(pl_module, key)
            }

    @staticmethod
    def _moves(module: LightningModule, key: str) -> bool:
        extractor = module.extractor
        return not key.startswith("extractor.") or (isinstance(extractor, Extractor) and bool(extractor.trainable))


def train(trainer: Trainer, model: PainClassifier, data: PainDataModule, resume: Path | None = None) -> None:
    """`Trainer.fit`, whose way of ending is ours.

    Args:
        resume: checkpoint to go on from.

    Raises:
        KeyboardInterrupt: it was interrupted.
        PainseqError: early stopping on a figure that nobody logs.
    """
    try:
        trainer.fit(model, datamodule=data, ckpt_path=None if resume is None else str(resume), weights_only=True)
    except SystemExit:
        # Lightning ends the program by itself when it is interrupted.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if "Early stopping conditioned on" in str(error):
            raise PainseqError(f"{error} The names are in the first line of metrics.csv.") from error
        raise


def chosen_checkpoint(out: Path, fixed: bool) -> Path:
    """The checkpoint of a run that predicts.

    Args:
        fixed: whether the number of epochs was fixed, so that none is better than another.

    Raises:
        PainseqError: there is none.
    """
    chosen = out / (LAST if fixed else BEST)
    if not chosen.is_file():
        raise PainseqError(
            "No epoch had a validation loss, so there is no best checkpoint: no epoch ran, or no validation clip has "
            "both a label and a frame with a face."
        )
    return chosen


def best_epoch(out: Path) -> int:
    """After how many epochs the validation loss of a run was smallest, the first of them if several."""
    losses = {int(row["epoch"]): row["val_loss"] for row in read_history(out) if "val_loss" in row}
    return min(losses, key=lambda epoch: (losses[epoch], epoch)) + 1


def run_record(model: PainClassifier, data: PainDataModule, trainer: Trainer, content: Checkpoint) -> dict[str, object]:
    """What run.json tells of every fit."""
    return {
        "versions": versions(),
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "data": model.record.data.to_dict(),
        "pipeline": data.pipeline,
        "extractor": content.record.extractor,
        "epochs": trainer.current_epoch,
    }


NOISE = (
    r".*number of training batches .* is smaller than the logging interval",
    r".*Found \d+ module\(s\) in eval mode at the start of training",
    r".*does not have many workers",
    r".*Checkpoint directory .* exists and is not empty",
    r".*Experiment logs directory .* exists and is not empty",
    r"Total length of `list` across ranks is zero",
    r".*isinstance\(treespec, LeafSpec\)",
)
"""Lightning's warnings of what is as it should be here: a frozen extractor, one loader process, our own run folder."""


def quiet_lightning() -> None:
    """Leave out Lightning's advice and `NOISE`; its other warnings stay."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
