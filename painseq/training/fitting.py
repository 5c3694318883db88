"""Fit a model (`fit`, as the command does), or one fold of a study (`fit_fold`).

Both bind the model to its data, check the settings, fit, and write a folder. `fit` and the command write a run folder,
which can be resumed; `fit_fold` writes only what a fold needs.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities.seed import isolate_rng
from timm.layers.norm_act import BatchNormAct2d

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError, UntrustedClass
from painseq.faces import FaceCrops
from painseq.files import remove_partials, write_json
from painseq.model.checkpoint import Checkpoint, read_checkpoint, rewrite_record, write_checkpoint
from painseq.model.pain_model import PainModel
from painseq.model.record import ThresholdRecord
from painseq.runs import check_same_run, is_first_process, read_json
from painseq.training.boosting import boosted_of, fit_boosted
from painseq.training.calibration import measure_calibration
from painseq.training.callbacks import BestWeights, EpochLines, RunCheckpoint
from painseq.training.classifier import PainClassifier
from painseq.training.rows import rows_of
from painseq.training.run_folder import (
    BEST,
    INNER,
    LAST,
    PENULTIMATE,
    best_epoch,
    checkpoint_to_resume,
    chosen_checkpoint,
    config_of,
    keep_log,
    open_run,
    run_record,
    write_config,
    write_extractor,
    write_learning_curves,
)
from painseq.training.saving import AtomicCheckpointIO, RunLog
from painseq.training.tuning import ThresholdTuning, check_tunable, tune

__all__ = [
    "BEST", "LAST", "FitOptions", "RunPlan", "best_epoch", "fit", "fit_fold", "fit_model", "quiet_lightning",
    "run_callbacks", "run_fit", "settings_refused", "train",
]  # fmt: skip

log = logging.getLogger("painseq")

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class FitOptions:
    """Settings of a fit.

    Args:
        max_epochs: maximum number of epochs.
        patience: epochs without a better validation loss after which training stops.
        seed: seed of the head's initial weights, dropout and other random numbers, reset for each fold; the order of
            the training items depends on the data options' seed instead.
        precision: floating-point precision in training.
        accelerator: "auto", "cpu", "gpu", ...
        gradient_clip_val: norm to which gradients are clipped; None does not clip.
        tune_threshold: tune the decision threshold of two classes on folds of the training subjects; None: the most
            probable class, or the frames' votes, decide.
    """

    max_epochs: int = 100
    patience: int = 5
    seed: int = 0
    precision: Precision = "32-true"
    accelerator: str = "auto"
    gradient_clip_val: float | None = None
    tune_threshold: ThresholdTuning | None = None

    def gradient_settings(self) -> list[str]:
        """Return the names of changed settings that apply only to a head fitted by gradients."""
        default = FitOptions(seed=self.seed, accelerator=self.accelerator, tune_threshold=self.tune_threshold)
        given = {field.name: getattr(self, field.name) != getattr(default, field.name) for field in fields(self)}
        given["max_epochs"] &= self.max_epochs != LIGHTNING_MAX_EPOCHS
        return [name for name, is_given in given.items() if is_given]


LIGHTNING_MAX_EPOCHS = 1000
"""Lightning's default of max_epochs, which applies if a command line does not set it."""


@dataclass(frozen=True)
class RunPlan:
    """Settings of a run besides its trainer, model and data.

    Args:
        seed: recorded in run.json.
        write_config: writes config.yaml, the first file of a run; called after all checks, so that a refused run leaves
            no folder.
        gradient_settings: names of given settings that apply only to a head fitted by gradients; other heads refuse
            them.
        resume: resume from last.ckpt.
        refit_epochs: train on training and validation subjects together for this number of epochs, without early
            stopping; None stops early on the validation subjects.
        sync_batchnorm: whether the trainer synchronises batch norm over processes.
        inner: options of the inner fits, of a tuned threshold and of a `DeepAdaBoost`; None if there are none.

    Raises:
        PainseqError: refit_epochs is not positive.
    """

    seed: int | None
    write_config: Callable[[], None]
    gradient_settings: Sequence[str] = ()
    resume: bool = False
    refit_epochs: int | None = None
    sync_batchnorm: bool = False
    inner: FitOptions | None = None

    def __post_init__(self) -> None:
        if self.refit_epochs is not None and self.refit_epochs < 1:
            raise PainseqError(
                f"refit_epochs (--refit) is {self.refit_epochs}; it must be a number of epochs, 1 or more."
            )


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
    """Fit a model and write the run folder, as the command `painseq fit` does.

    The folder holds `best.ckpt` (not with `refit_epochs`) and `last.ckpt`, `config.yaml`, `run.json`, `metrics.csv`
    (two rows per epoch; those from before a resumed run are in `metrics_before_1.csv`, ...), learning curves as SVG, in
    `threshold` the inner fits of a tuned threshold, and a trained extractor with its card. `best.ckpt` and `run.json`
    tell how well probabilities agree with the labels of validation clips. A head not fitted by gradients writes only
    `best.ckpt`, `config.yaml` and `run.json`, and cannot be resumed.

    Args:
        model: a new classifier, not fitted yet.
        data: data module with its split; call `data.shuffle_labels(seed)` first for a shuffled-label control.
        out: a new folder, or with `resume` the folder of an interrupted run of the same model and data.
        options: epochs, early stopping, seed, precision, accelerator.
        resume: resume from `last.ckpt`; the final weights are those of an uninterrupted run. A run that was interrupted
            before its first checkpoint starts anew.
        refit_epochs: train on training and validation subjects together for this number of epochs, without early
            stopping.
        config: content of config.yaml, such as an experiment's configuration; None describes model and data.

    Returns:
        The model of `best.ckpt` (with `refit_epochs`: of `last.ckpt`), as from `painseq.load`, on the training device.

    Raises:
        LeakError: the extractor, or a model that the head starts from, was fitted on a test subject.
        PainseqError: the folder holds another run, or another process works in it, there is nothing to resume, the
            resumed run has other settings, the model was fitted before, there are no validation subjects, or the head
            or Lightning cannot use a setting; see also `PainDataModule.setup` and `PainClassifier.bind`.

    Example:
        >>> data = AI4Pain("data/AI4Pain", DataOptions(store=Path("stores/ai4pain")))
        >>> model = fit(PainClassifier(head=LSTM), data, "runs/lstm", FitOptions(max_epochs=50))
        >>> model.predict("subject.mp4").label
    """
    if model.head is not None:
        raise PainseqError("This model was already bound to data or fitted. Make a new PainClassifier for each fit.")
    out = Path(out)

    def write() -> None:
        write_config(out, config or config_of(model, data, options))

    plan = RunPlan(options.seed, write, options.gradient_settings(), resume, refit_epochs, inner=options)
    quiet_lightning()
    with isolate_rng(), settings_refused():
        torch.manual_seed(options.seed)
        model.seed = options.seed
        callbacks = [*run_callbacks(out, refit_epochs), EpochLines(), _early_stopping(options)]
        trainer = _trainer(out, options, refit_epochs, callbacks)
        content = run_fit(trainer, model, data, out, plan)
        assert content is not None
        return _model(model, content, data).to(trainer.strategy.root_device)


def run_fit(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, plan: RunPlan
) -> Checkpoint | None:
    """Fit with a trainer that has `run_callbacks`, into a new run folder or that of an interrupted run.

    Returns:
        The checkpoint used for prediction; None in processes other than the first, whose disk may not have it.

    Raises:
        PainseqError, LeakError: see `fit`.
    """
    _check_trainer(trainer)
    with open_run(out, plan.resume) as last:
        return _run_fit(trainer, model, data, out, plan, last)


def _run_fit(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, plan: RunPlan, last: Path | None
) -> Checkpoint | None:
    """Fit into an open run folder, from the checkpoint `last` if there is one."""
    if plan.refit_epochs is not None:
        data = copy.copy(data)
        data.train_on_validation_too()
        for callback in trainer.early_stopping_callbacks:
            trainer.callbacks.remove(callback)  # type: ignore[attr-defined]
    if data.shuffled_labels is not None:
        log.warning("SHUFFLED LABELS: a control. This model does not learn pain.")
    unbound = model.renewed()
    data.setup("fit")
    model.bind(data)
    _check_fit(trainer, model, data, plan.gradient_settings, plan.refit_epochs)
    tuning = None if plan.inner is None else plan.inner.tune_threshold
    if tuning is not None:
        _check_tuning(trainer, model)
    if plan.sync_batchnorm and any(isinstance(module, BatchNormAct2d) for module in model.modules()):
        raise PainseqError(
            "sync_batchnorm would replace this extractor's batch norm layers of timm by PyTorch's, and drop the "
            "activations that they include. Leave it out; each process then normalises its own frames."
        )
    if last is not None:
        resumed = checkpoint_to_resume(last).record
        _check_same_tuning(tuning, resumed.threshold)
        model.check_resumes(resumed)
    if is_first_process():
        plan.write_config()
        _announce(trainer, data)
        if last is not None:
            keep_log(out)
    if tuning is not None and plan.inner is not None:
        known = None if last is None else resumed.threshold
        model.record = replace(
            model.record,
            threshold=known or _tuned(unbound.renewed, data, out, plan.inner, plan.refit_epochs),
        )
    if boosted_of(model.head) is None:
        fit_model(trainer, model, data, out, last)
    else:
        assert plan.inner is not None
        _fit_boosted(unbound.renewed, plan.inner, trainer, model, data, out)
    if not trainer.is_global_zero:
        return None
    chosen = chosen_checkpoint(out, plan.refit_epochs is not None)
    content = read_checkpoint(chosen)
    if plan.refit_epochs is None:
        found = measure_calibration(_model(model, content, data).to(trainer.strategy.root_device), data)
        if found is not None:
            content = replace(content, record=replace(content.record, calibration=found))
            rewrite_record(chosen, content.record)
            log.info("Calibration: %s", found)
    _finish_run(trainer, model, data, out, plan, content)
    return content


def _check_tuning(trainer: Trainer, model: PainClassifier) -> None:
    check_tunable(model.objective)
    if trainer.world_size > 1:
        raise PainseqError(
            f"A threshold is tuned in one process, not in {trainer.world_size}. Set --trainer.devices 1, or leave the "
            "tuned threshold out (command line: --tune-threshold)."
        )


def _check_same_tuning(requested: ThresholdTuning | None, recorded: ThresholdRecord | None) -> None:
    before = None if recorded is None else ThresholdTuning(recorded.metric, recorded.inner_folds)
    if requested != before:
        shown = ["none" if each is None else f"{each.metric}, {each.inner_folds} folds" for each in (before, requested)]
        raise PainseqError(
            f"The run to be resumed has another tuned threshold ({shown[0]}) than is requested now ({shown[1]}). "
            "Resume it with its original configuration, or start a new run."
        )


def _tuned(
    make_model: Callable[[], PainClassifier], data: PainDataModule, out: Path, options: FitOptions, epochs: int | None
) -> ThresholdRecord:
    """Tune the threshold of a fit with these options on inner folds, which are kept in its folder."""
    assert options.tune_threshold is not None
    inner = replace(options, tune_threshold=None)
    return tune(
        data,
        options.tune_threshold,
        lambda fold, number: fit_fold(make_model, fold, out / INNER / f"fold-{number}", inner, epochs),
    )


def fit_fold(
    make_model: Callable[[], PainClassifier],
    data: PainDataModule,
    out: Path,
    options: FitOptions,
    epochs: int | None = None,
) -> PainModel:
    """Fit on the training subjects of `data`, and keep the weights of the epoch with the best validation loss.

    A finished fold is not fitted again: its checkpoint is read. An interrupted fold is fitted from the start. The
    random numbers are reset for each fold, so its result does not depend on other folds or on the process. On a CPU
    the same number of threads gives the same weights, bit for bit; on a GPU this depends on its kernels.

    Args:
        make_model: makes a new classifier with each call.
        data: data module with the fold's split; see `PainDataModule.with_split`.
        out: the fold's folder: `best.ckpt` (with `epochs`: `last.ckpt`) and `metrics.csv`; `run.json` once finished.
        options: settings of the fit.
        epochs: train for this number of epochs instead of stopping early; validation is logged but not used.

    Returns:
        The model of the checkpoint, as from `painseq.load`, on the training device.

    Raises:
        PainseqError: there are no validation subjects, or the fold in `out` was fitted with other settings; see
            `PainDataModule.setup` and `PainClassifier.bind`.
        LeakError: the extractor was fitted on a test subject.
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
            return _model(model, content, data).to(trainer.strategy.root_device)
        data.setup("fit")
        model.bind(data)
        _check_fit(trainer, model, data, options.gradient_settings(), epochs)
        if options.tune_threshold is not None:
            _check_tuning(trainer, model)
            model.record = replace(model.record, threshold=_tuned(make_model, data, out, options, epochs))
        out.mkdir(parents=True, exist_ok=True)
        remove_partials(out)
        fit_one = fit_model if boosted_of(model.head) is None else partial(_fit_boosted, make_model, options)
        fit_one(trainer, model, data, out)
        if fixed or best.weights:
            model.load_state_dict(best.weights, strict=False)
            trainer.save_checkpoint(out / (LAST if fixed else BEST), weights_only=True)
        content = read_checkpoint(chosen_checkpoint(out, fixed))
        chosen = best_epoch(out) if best.weights else epochs
        # Written last: it marks the fold as finished.
        write_json(finished, {**run_record(model, data, trainer, content), "settings": settings, "best_epoch": chosen})
        return _model(model, content, data).to(trainer.strategy.root_device)


def fit_model(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, out: Path, resume: Path | None = None
) -> None:
    """Fit a bound model as its head requires: by gradients, or at once on all rows, which writes `best.ckpt`.

    Args:
        resume: checkpoint to resume from.
    """
    assert model.head is not None
    if model.head.fitted_by_gradients:
        train(trainer, model, data, resume)
        return
    model.to(trainer.strategy.root_device).eval()
    model.measure(data)
    training = rows_of(model, data, "train")
    if training is None:
        raise PainseqError(f"No training clip of {data.name} has both a label and a frame with a face.")
    model.head.fit_rows(training, rows_of(model, data, "validation") if data.split.validation else None)
    write_checkpoint(out / BEST, model.record, model.head, model.extractor)


def _fit_boosted(
    make_model: Callable[[], PainClassifier],
    options: FitOptions,
    trainer: Trainer,
    model: PainClassifier,
    data: PainDataModule,
    out: Path,
) -> None:
    """Fit a bound `DeepAdaBoost`, and write `best.ckpt`; the fits of its deep heads are kept in the folder."""
    inner = replace(options, tune_threshold=None)
    model.to(trainer.strategy.root_device).eval()
    fit_boosted(
        model,
        make_model,
        data,
        out / PENULTIMATE,
        lambda make_deep, fold, folder: fit_fold(make_deep, fold, folder, inner),
    )
    assert model.head is not None
    write_checkpoint(out / BEST, model.record, model.head, model.extractor)


def train(trainer: Trainer, model: PainClassifier, data: PainDataModule, resume: Path | None = None) -> None:
    """Run `Trainer.fit`, and raise errors where Lightning would end the program.

    Args:
        resume: checkpoint to resume from.

    Raises:
        KeyboardInterrupt: the fit was interrupted.
        PainseqError: early stopping on a metric that is not logged.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    try:
        trainer.fit(model, datamodule=data, ckpt_path=None if resume is None else str(resume), weights_only=True)
    except SystemExit:
        # Lightning exits the program when it is interrupted.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if "Early stopping conditioned on" in str(error):
            raise PainseqError(f"{error} The first line of metrics.csv lists the metrics.") from error
        raise


@contextmanager
def settings_refused() -> Iterator[None]:
    """Turn Lightning's errors about settings into a PainseqError."""
    try:
        yield
    except MisconfigurationException as error:
        raise PainseqError(f"Lightning refuses these settings of the trainer: {error}") from error


def run_callbacks(out: Path, refit_epochs: int | None) -> list[Callback]:
    """Return the callbacks that write the last checkpoint and, unless the number of epochs is fixed, the best one."""
    best = RunCheckpoint(out, BEST.removesuffix(".ckpt"), monitor="val_loss", enable_version_counter=False)
    last = RunCheckpoint(out, LAST.removesuffix(".ckpt"), enable_version_counter=False)
    # The last checkpoint is saved after the best one, so that it records it for resuming.
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
        logger=RunLog(out),
        enable_checkpointing=any(isinstance(callback, RunCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
    )


def _check_trainer(trainer: Trainer) -> None:
    """Check settings of a trainer that painseq cannot use."""
    if str(trainer.precision) not in PRECISIONS:
        raise PainseqError(f"precision is {trainer.precision}; it must be one of {', '.join(PRECISIONS)}.")
    if trainer.val_check_interval != 1.0:
        raise PainseqError(
            f"val_check_interval is {trainer.val_check_interval}; it must be 1.0, since a run can be resumed only at "
            "the end of an epoch."
        )


def _check_fit(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, given: Sequence[str], epochs: int | None
) -> None:
    """Check that a bound model can be fitted with these settings.

    Args:
        given: names of given settings that apply only to a head fitted by gradients.
        epochs: number of epochs, if it is fixed.
    """
    assert model.head is not None
    if not model.head.fitted_by_gradients:
        _check_fit_at_once(trainer, model, data, given, epochs)
        return
    if epochs is None and not data.split.validation:
        raise PainseqError(
            "There are no validation subjects for early stopping and for choosing the best epoch. Set "
            "--data.options.split.validation_share above 0, or fit for a fixed number of epochs: refit_epochs, or "
            "epochs of a fold (command line: --refit EPOCHS)."
        )
    if data.split.validation and len(data.dataset("validation")) < trainer.world_size:
        raise PainseqError(
            f"{len(data.dataset('validation'))} validation clips for {trainer.world_size} processes; each process "
            "needs one. Train on fewer processes."
        )


def _check_fit_at_once(
    trainer: Trainer, model: PainClassifier, data: PainDataModule, given: Sequence[str], epochs: int | None
) -> None:
    assert model.head is not None
    unusable, of_data = [*model.gradient_settings(), *given], ["balance", "augment"]
    if boosted_of(model.head) is not None:
        # Its deep heads are trained in epochs, but all from the same random weights, and on fixed features.
        unusable = [name for name in unusable if name in ("start_from", "extractor_lr", "extractor.trainable")]
        unusable += [] if model.loss_name == "cross_entropy" else [f"the loss {model.loss_name}"]
        of_data = ["balance"]
    unusable += [] if epochs is None else ["a fixed number of epochs"]
    unusable += [name for name in of_data if getattr(data.options, name)]
    if unusable:
        raise PainseqError(
            f"{model.head.name} is fitted at once, not by gradients in epochs alone, so it cannot use "
            f"{', '.join(unusable)}. Leave these settings out."
        )
    if trainer.world_size > 1:
        raise PainseqError(
            f"{model.head.name} is fitted in one process, not in {trainer.world_size}. Set --trainer.devices 1."
        )


def _announce(trainer: Trainer, data: PainDataModule) -> None:
    log.info(
        "%s: %s training clips of %d subjects, %d validation subjects; device %s, precision %s, processes %d",
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
    best = [call for call in trainer.checkpoint_callbacks if isinstance(call, RunCheckpoint) and call.monitor]
    score = best[0].best_model_score if best and model.head.fitted_by_gradients else None
    run = {
        **run_record(model, data, trainer, content),
        "seed": plan.seed,
        "refit": plan.refit_epochs,
        "best_val_loss": None if score is None else float(score),
    }
    write_learning_curves(out, model)
    write_extractor(out, model, data, content, run)
    # Written last: it marks the run as finished.
    write_json(out / "run.json", run)
    if not model.head.fitted_by_gradients:
        log.info("Fitted at once; checkpoint %s", out / BEST)
    elif plan.refit_epochs is not None:
        log.info("%d epochs on training and validation subjects; checkpoint %s", trainer.current_epoch, out / LAST)
    else:
        log.info("%d epochs; best validation loss %.4f; checkpoint %s", trainer.current_epoch, score or 0.0, out / BEST)


def _model(fitted: PainClassifier, content: Checkpoint, data: PainDataModule) -> PainModel:
    """Make the model of a checkpoint, like `painseq.load`, but with the extractor that is already built."""
    assert fitted.head is not None
    fitted.head.load_state_dict(content.head, strict=True)
    if fitted.extractor is not None and content.extractor is not None:
        fitted.extractor.network.load_state_dict(content.extractor)
    # A locator that the caller gave is the caller's own code.
    given = data.options.face
    trust = () if given is None else (type(given.locator).__module__.partition(".")[0],)
    try:
        face = None if content.record.face is None else FaceCrops.from_spec(content.record.face, trust)
    except UntrustedClass as error:
        # Features need no locator, so their store may name one of another package.
        log.info("The fitted model is returned without its face crop, so it cannot read videos. %s", error)
        face = None
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
"""Lightning's warnings about intended behaviour: a frozen extractor, one loader process, an existing run folder."""


def quiet_lightning() -> None:
    """Suppress Lightning's tips and the warnings in `NOISE`; keep its other warnings."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
