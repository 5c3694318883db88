"""The one way to fit: what the command `fit` does, from Python; and folds, quietly and once.

A fit binds the model to its data, checks what it was asked for, fits, and writes a folder. `fit` and the command write
the folder of a run, which can be resumed; `fit_fold` writes no more than a fold needs.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.seed import isolate_rng
from timm.layers.norm_act import BatchNormAct2d

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.faces import FaceCrops
from painseq.files import write_json
from painseq.model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from painseq.model.pain_model import PainModel
from painseq.runs import check_same_run, read_json
from painseq.training.callbacks import BestWeights, EpochLines, RunCheckpoint
from painseq.training.classifier import PainClassifier
from painseq.training.rows import rows_of
from painseq.training.run_folder import (
    BEST,
    LAST,
    begin_run,
    best_epoch,
    chosen_checkpoint,
    config_of,
    first_process,
    keep_log,
    run_record,
    write_config,
    write_extractor,
    write_learning_curves,
)

__all__ = [
    "BEST", "LAST", "FitOptions", "RunPlan", "best_epoch", "fit", "fit_fold", "fit_model", "quiet_lightning",
    "run_callbacks", "run_fit", "settings_refused", "train",
]  # fmt: skip

log = logging.getLogger("painseq")

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class FitOptions:
    """How a model is fitted.

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

    def gradient_settings(self) -> list[str]:
        """Names of those that were given, and only mean something to a head that is fitted by gradients."""
        usual = FitOptions(seed=self.seed, accelerator=self.accelerator)
        given = {field.name: getattr(self, field.name) != getattr(usual, field.name) for field in fields(self)}
        given["max_epochs"] &= self.max_epochs != LIGHTNINGS_EPOCHS
        return [name for name, is_given in given.items() if is_given]


LIGHTNINGS_EPOCHS = 1000
"""What Lightning fits for where a command line gives no number of epochs."""


@dataclass(frozen=True)
class RunPlan:
    """What a run is asked for beside its trainer, model and data.

    Args:
        seed: recorded in run.json.
        write_config: writes config.yaml, the first file of a run: what is refused before leaves the folder empty.
        gradient_settings: names of the settings that were given, of those that only mean something to a head that is
            fitted by gradients; another head refuses them.
        resume: go on from last.ckpt.
        refit_epochs: train on the training and validation parts together for so many epochs, without early stopping;
            None stops early on the validation part.
        sync_batchnorm: whether the trainer sums batch norm over processes.

    Raises:
        PainseqError: no positive number of epochs.
    """

    seed: int | None
    write_config: Callable[[], None]
    gradient_settings: Sequence[str] = ()
    resume: bool = False
    refit_epochs: int | None = None
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        if self.refit_epochs is not None and self.refit_epochs < 1:
            raise PainseqError(f"refit_epochs (--refit) is {self.refit_epochs}; it is the number of epochs, 1 or more.")


def fit(
    model: PainClassifier,
    data: PainDataModule,
    out: str | Path,
    options: FitOptions = FitOptions(),
    *,
    resume: bool = False,
    refit_epochs: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> PainModel:
    """Fit a model, and write the folder of the run: what the command `painseq fit` does.

    The folder holds `best.ckpt` (not with `refit_epochs`) and `last.ckpt`, `config.yaml`, `run.json`, `metrics.csv`
    (two rows an epoch, training and validation; those from before a run was resumed are in `metrics_before_1.csv`, and
    so on) and learning curves as SVG; where the extractor was trained, `extractor.safetensors`, which holds its card,
    and the card as a page, `extractor_card.md`. A head that is not fitted by gradients leaves `best.ckpt`,
    `config.yaml` and `run.json`, and cannot be resumed.

    Args:
        model: not fitted yet.
        data: with its split; `data.shuffle_labels(seed)` before makes the fit a control.
        out: a new folder, or with `resume` the one of an interrupted run of the same model and data.
        options: epochs, early stopping, seed, precision, accelerator.
        resume: go on from `last.ckpt`; the run ends with the weights that it would have had uninterrupted.
        refit_epochs: train on the training and validation parts together for so many epochs, without early stopping.
        config: what model and data were built from, such as an experiment's, to be kept as config.yaml; None describes
            them.

    Returns:
        What `painseq.load` makes of `best.ckpt` (with `refit_epochs`: of `last.ckpt`), on the device of the training.

    Raises:
        LeakError: the extractor, or a model that the head starts from, was fitted on a subject of the test part.
        PainseqError: a folder that holds another run, nothing to resume, a resumed run that was fitted otherwise, a
            model that was fitted before, nobody to stop early on, settings that the head or Lightning cannot use; see
            also `PainDataModule.setup` and `PainClassifier.bind`.

    Example:
        >>> data = AI4Pain("data/AI4Pain", DataOptions(store=Path("stores/ai4pain")))
        >>> model = fit(PainClassifier(head=LSTM), data, "runs/lstm", FitOptions(max_epochs=50))
        >>> model.predict("somebody.mp4").label
    """
    if model.head is not None:
        raise PainseqError(
            "This classifier was bound to data or fitted before. Make a new PainClassifier for each fit."
        )
    out = Path(out)
    plan = RunPlan(
        options.seed,
        lambda: write_config(out, config or config_of(model, data, options)),
        options.gradient_settings(),
        resume,
        refit_epochs,
    )
    quiet_lightning()
    begin_run(out, resume)
    with isolate_rng(), settings_refused():
        torch.manual_seed(options.seed)
        model.seed = options.seed
        callbacks = [*run_callbacks(out, refit_epochs), EpochLines(), _early_stopping(options)]
        trainer = _trainer(out, options, refit_epochs, callbacks)
        content = run_fit(trainer, model, data, out, plan)
        assert content is not None
        return _model(model, content).to(trainer.strategy.root_device)


def run_fit(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, plan: RunPlan
) -> Checkpoint | None:
    """Fit with a trainer that has `run_callbacks`, into a folder that `begin_run` made.

    Returns:
        The checkpoint that predicts; None in a process that is not the first, on whose disk it need not be.

    Raises:
        PainseqError, LeakError: see `fit`.
    """
    _check_trainer(trainer)
    if plan.refit_epochs is not None:
        data = copy.copy(data)
        data.train_on_validation_too()
        for callback in trainer.early_stopping_callbacks:
            trainer.callbacks.remove(callback)  # type: ignore[attr-defined]
    if data.shuffled_labels is not None:
        log.warning("SHUFFLED LABELS: a control. What this model learns is not pain.")
    data.setup("fit")
    model.bind(data)
    _check_fit(trainer, model, data, plan.gradient_settings, plan.refit_epochs)
    if plan.sync_batchnorm and any(isinstance(part, BatchNormAct2d) for part in model.modules()):
        raise PainseqError(
            "sync_batchnorm puts PyTorch's batch norm in the place of this extractor's, in which timm keeps the "
            "activations too: these would be lost. Leave it out; each process then counts its own frames."
        )
    last = out / LAST if plan.resume else None
    if last is not None:
        model.check_resumes(read_checkpoint(last).record)
    if first_process():
        plan.write_config()
        _announce(trainer, data)
        if last is not None:
            keep_log(out)
    fit_model(trainer, model, data, out, last)
    if not trainer.is_global_zero:
        return None
    content = read_checkpoint(chosen_checkpoint(out, plan.refit_epochs is not None))
    _finish_run(trainer, model, data, out, plan, content)
    return content


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
    quiet_lightning()
    fixed, finished = epochs is not None, out / "run.json"
    settings = {**asdict(options), "epochs": epochs}
    with isolate_rng(), settings_refused():
        torch.manual_seed(options.seed)
        model, best = make_model(), BestWeights()
        trainer = _trainer(out, options, epochs, [] if fixed else [_early_stopping(options), best])
        if finished.is_file():
            check_same_run(out, (read_json(finished) or {}).get("settings", {}), settings)
            content = read_checkpoint(chosen_checkpoint(out, fixed))
            model.bind(data)
            model.check_resumes(content.record)
            return _model(model, content).to(trainer.strategy.root_device)
        data.setup("fit")
        model.bind(data)
        _check_fit(trainer, model, data, options.gradient_settings(), epochs)
        out.mkdir(parents=True, exist_ok=True)
        fit_model(trainer, model, data, out)
        if fixed or best.weights:
            model.load_state_dict(best.weights, strict=False)
            trainer.save_checkpoint(out / (LAST if fixed else BEST), weights_only=True)
        content = read_checkpoint(chosen_checkpoint(out, fixed))
        chosen = best_epoch(out) if best.weights else epochs
        # The last file: where it lies, the fold is whole.
        write_json(finished, {**run_record(model, data, trainer, content), "settings": settings, "best_epoch": chosen})
        return _model(model, content).to(trainer.strategy.root_device)


def fit_model(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, resume: Path | None = None
) -> None:
    """Fit a bound model in the way of its head: by gradients, or at once from all rows, which writes `best.ckpt`.

    Args:
        resume: checkpoint to go on from.
    """
    assert model.head is not None
    if model.head.fitted_by_gradients:
        train(trainer, model, data, resume)
        return
    model.to(trainer.strategy.root_device).eval()
    training = rows_of(model, data, "train")
    if training is None:
        raise PainseqError(f"No training clip of {data.name} has both a label and a frame with a face.")
    model.head.fit_rows(training, rows_of(model, data, "validation") if data.split.validation else None)
    write_checkpoint(out / BEST, model.record, model.head, model.extractor)


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


@contextmanager
def settings_refused() -> Iterator[None]:
    """Turn what Lightning says of settings that it refuses into an error for people."""
    try:
        yield
    except MisconfigurationException as error:
        raise PainseqError(f"Lightning refuses these settings of the trainer: {error}") from error


def run_callbacks(out: Path, refit_epochs: int | None) -> list[Callback]:
    """What writes the checkpoints of a run: the best one, unless the number of epochs is fixed, and the last one."""
    best = RunCheckpoint(out, BEST.removesuffix(".ckpt"), monitor="val_loss", enable_version_counter=False)
    last = RunCheckpoint(out, LAST.removesuffix(".ckpt"), enable_version_counter=False)
    # The last one is saved behind the best one, and so knows of it when it is resumed.
    return [last] if refit_epochs is not None else [best, last]


def _early_stopping(options: FitOptions) -> EarlyStopping:
    return EarlyStopping("val_loss", patience=options.patience)


def _trainer(out: Path, options: FitOptions, epochs: int | None, callbacks: Sequence[Callback]) -> Trainer:
    return Trainer(
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        max_epochs=options.max_epochs if epochs is None else epochs,
        gradient_clip_val=options.gradient_clip_val,
        callbacks=list(callbacks),
        logger=CSVLogger(out, name="", version=""),
        enable_checkpointing=any(isinstance(callback, RunCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
    )


def _check_trainer(trainer: Trainer) -> None:
    """Refuse what a run of painseq cannot be fitted with."""
    if str(trainer.precision) not in PRECISIONS:
        raise PainseqError(f"precision is {trainer.precision}; choose one of {', '.join(PRECISIONS)}.")
    if trainer.val_check_interval != 1.0:
        raise PainseqError("val_check_interval is not 1.0, but a run can be resumed at the end of an epoch only.")


def _check_fit(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, given: Sequence[str], epochs: int | None
) -> None:
    """Refuse a fit of a bound model that cannot be.

    Args:
        given: settings that were given, of those that only mean something to a head that is fitted by gradients.
        epochs: their number, if it is fixed.
    """
    assert model.head is not None
    if not model.head.fitted_by_gradients:
        _check_fit_at_once(trainer, model, data, given, epochs)
        return
    if epochs is None and not data.split.validation:
        raise PainseqError(
            "No validation subjects, so nothing to stop early on or to choose the best epoch by. Set "
            "--data.options.split.validation_share above 0, or fit for a fixed number of epochs: refit_epochs, or "
            "epochs of a fold (command line: --refit EPOCHS)."
        )
    if data.split.validation and len(data.dataset("validation")) < trainer.world_size:
        raise PainseqError(
            f"{len(data.dataset('validation'))} validation clips for {trainer.world_size} processes; each needs one. "
            "Train on fewer processes."
        )


def _check_fit_at_once(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, given: Sequence[str], epochs: int | None
) -> None:
    unusable = [*model.gradient_settings(), *given]
    unusable += [] if epochs is None else ["a fixed number of epochs"]
    unusable += [name for name in ("balance", "augment") if getattr(data.options, name)]
    if unusable:
        raise PainseqError(
            f"{type(model.head).__name__} is fitted at once, not by gradients in epochs, so it cannot use "
            f"{', '.join(unusable)}. Leave them out."
        )
    if trainer.world_size > 1:
        raise PainseqError(f"{type(model.head).__name__} is fitted in one process, not in {trainer.world_size}.")


def _announce(trainer: Trainer, data: PainDataModule) -> None:
    log.info(
        "%s: %s training clips of %d subjects, early stopping on %d; device %s, precision %s, processes %d",
        data.name,
        " / ".join(str(n) for n in data.train_counts().values()),
        len(data.split.train),
        len(data.split.validation),
        trainer.strategy.root_device,
        trainer.precision,
        trainer.world_size,
    )


def _finish_run(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, plan: RunPlan, content: Checkpoint
) -> None:
    assert model.head is not None
    by_loss = [call for call in trainer.checkpoint_callbacks if isinstance(call, RunCheckpoint) and call.monitor]
    score = by_loss[0].best_model_score if by_loss and model.head.fitted_by_gradients else None
    run = {
        **run_record(model, data, trainer, content),
        "seed": plan.seed,
        "refit": plan.refit_epochs,
        "best_val_loss": None if score is None else float(score),
    }
    write_learning_curves(out, model)
    write_extractor(out, model, data, content, run)
    # The last file: where it lies, the run is whole.
    write_json(out / "run.json", run)
    if not model.head.fitted_by_gradients:
        log.info("Fitted at once; checkpoint %s", out / BEST)
    elif plan.refit_epochs is not None:
        log.info("%d epochs on Train and Validation; checkpoint %s", trainer.current_epoch, out / LAST)
    else:
        log.info("%d epochs; best validation loss %.4f; checkpoint %s", trainer.current_epoch, score or 0.0, out / BEST)


def _model(fitted: PainClassifier, content: Checkpoint) -> PainModel:
    """What `painseq.load` makes of the checkpoint, without building the extractor once more."""
    assert fitted.head is not None
    fitted.head.load_state_dict(content.head, strict=True)
    if fitted.extractor is not None and content.extractor is not None:
        fitted.extractor.network.load_state_dict(content.extractor)
    face = None if content.record.face is None else FaceCrops.from_spec(content.record.face)
    return PainModel(content.record, fitted.head, fitted.extractor, face)


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
