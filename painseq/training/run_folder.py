"""The run folder: how it is created, and the files that a fit adds to Lightning's."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pytorch_lightning import Trainer

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor, save_weights
from painseq.files import read_yaml, write_atomically
from painseq.model.checkpoint import Checkpoint, read_checkpoint
from painseq.report.charts import learning_curves
from painseq.runs import files_of, is_first_process, locked_folder, read_history, versions
from painseq.spec import plain, spec_of
from painseq.training.classifier import PainClassifier
from painseq.training.extractor_card import card_page, extractor_card

if TYPE_CHECKING:
    from painseq.training.fitting import FitOptions

log = logging.getLogger("painseq")

BEST, LAST = "best.ckpt", "last.ckpt"
CONFIG = "config.yaml"


INNER = "threshold"
"""Folder of the inner folds of a tuned threshold; a run that starts anew uses the finished ones."""

PENULTIMATE = "penultimate"
"""Folder of the fits behind a `DeepAdaBoost`; a run that starts anew uses the finished ones."""

FIRST_FILES = (CONFIG, "metrics.csv", "hparams.yaml", BEST, INNER, PENULTIMATE)
"""What a run has written when it is interrupted before its first `last.ckpt`."""


def check_run_folder(out: Path, resume: bool, interrupted: bool) -> None:
    """Check that a run can start in a folder, or be resumed; a run without a checkpoint starts anew either way.

    Args:
        out: the run folder, which need not exist.
        resume: whether to resume.
        interrupted: whether an earlier run in the folder was interrupted; see `locked_folder`.

    Raises:
        PainseqError: nothing to resume; or the folder already holds a run, finished or interrupted.
    """
    if (out / LAST).is_file():
        if not resume and not (out / "run.json").is_file():
            raise PainseqError(
                f"{out} holds an interrupted run. Resume it (resume=True; command line: --resume), or "
                "choose another folder (--out)."
            )
        if resume:
            return
    found = files_of(out) - set(FIRST_FILES if interrupted else ())
    if resume and (found or not interrupted):
        raise PainseqError(f"Nothing to resume: no {LAST} in {out}.")
    if found:
        raise PainseqError(f"{out} already holds a run, which is never overwritten. Choose another folder for --out.")


@contextmanager
def open_run(out: Path, resume: bool) -> Iterator[Path | None]:
    """Create and lock the folder of a new run, or lock that of a run to resume.

    Yields:
        The checkpoint to resume from; None for a run from the start.

    Raises:
        PainseqError: another process works in the folder; see also `check_run_folder`.
    """
    last = out / LAST
    if not is_first_process():
        yield last if resume and last.is_file() else None
        return
    with locked_folder(out) as interrupted:
        check_run_folder(out, resume, interrupted)
        if resume and last.is_file():
            yield last
            return
        left_over = files_of(out)
        if left_over:
            log.warning("%s holds a run that ended before its first checkpoint. It starts anew.", out)
        for name in left_over - {INNER, PENULTIMATE}:
            (out / name).unlink()
        yield None


def checkpoint_to_resume(path: Path) -> Checkpoint:
    """Read the checkpoint of a run to resume.

    Raises:
        PainseqError: it is damaged.
    """
    try:
        return read_checkpoint(path)
    except PainseqError as error:
        raise PainseqError(f"{error} The run cannot be resumed. Choose another folder for a new one.") from error


def config_of(model: PainClassifier, data: PainDataModule, options: FitOptions) -> Mapping[str, Any]:
    """Describe a fit from Python: factories and data, as far as plain values can describe them."""
    return {
        "seed_everything": options.seed,
        "data": {"name": data.name, "root": str(data.root), "options": spec_of(data.options)["init_args"]},
        "model": model.config(),
        "options": asdict(options),
    }


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml of a fit."""
    write_atomically(out / CONFIG, yaml.safe_dump(plain(config), sort_keys=False).encode())


def keep_log(out: Path) -> None:
    """Rename metrics.csv, which the logger would delete otherwise."""
    metrics = out / "metrics.csv"
    if metrics.is_file():
        metrics.rename(out / f"metrics_before_{len(list(out.glob('metrics_before_*.csv'))) + 1}.csv")


def chosen_checkpoint(out: Path, fixed: bool) -> Path:
    """Return the path of the checkpoint of a run that is used for prediction.

    Args:
        out: the run folder.
        fixed: whether the number of epochs was fixed, so that the last checkpoint is used.

    Raises:
        PainseqError: there is no such checkpoint.
    """
    chosen = out / (LAST if fixed else BEST)
    if not chosen.is_file():
        raise PainseqError(
            f"{out} has no {chosen.name}: no epoch had a validation loss, since no epoch ran, or no validation clip "
            "has both a label and a frame with a face."
        )
    return chosen


def best_epoch(out: Path) -> int:
    """Return the number of epochs after which the validation loss of a run was smallest; on ties the first.

    Raises:
        PainseqError: the run has no validation losses, as for a head that is not fitted in epochs.
    """
    losses = {int(row["epoch"]): row["val_loss"] for row in read_history(out) if "val_loss" in row}
    if not losses:
        raise PainseqError(
            f"{out} holds no validation loss of any epoch, so no number of epochs can be chosen. The head must be "
            "fitted by gradients, on a split with validation subjects."
        )
    return min(losses, key=lambda epoch: (losses[epoch], epoch)) + 1


def run_record(model: PainClassifier, data: PainDataModule, trainer: Trainer, content: Checkpoint) -> dict[str, object]:
    """The entries of run.json that all fits have."""
    assert model.head is not None
    return {
        "versions": versions(),
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "data": model.record.data.to_dict(),
        "pipeline": data.pipeline,
        "extractor": content.record.extractor,
        "unknown_people": list(content.record.unknown_people),
        "threshold": None if content.record.threshold is None else content.record.threshold.to_dict(),
        "calibration": None if content.record.calibration is None else content.record.calibration.to_dict(),
        "normalise": list(content.record.normalise),
        "transductive": content.record.transductive,
        "epochs": trainer.current_epoch if model.head.fitted_by_gradients else None,
    }


def write_learning_curves(out: Path, model: PainClassifier) -> None:
    """Plot each metric of metrics.csv over the epochs; do nothing without epochs."""
    for title, picture in learning_curves(read_history(out), model.objective.chance):
        name = f"learning_curve_{title.lower().replace(' ', '_')}.svg"
        write_atomically(out / name, base64.b64decode(picture))


def write_extractor(
    out: Path, model: PainClassifier, data: PainDataModule, content: Checkpoint, run: Mapping[str, object]
) -> None:
    """Write a trained extractor with its card, as in the chosen checkpoint, and the card as a page."""
    extractor = model.extractor
    if not isinstance(extractor, Extractor) or not extractor.trainable:
        return
    extractor.network.load_state_dict(content.extractor or {})
    settings = read_yaml(out / CONFIG)["model"]
    extractor.card = extractor_card(model, data, run, settings, read_history(out))
    seen = {*extractor.trained_on, *model.fitted_on, *model.record.extractor_trained_on}
    extractor.trained_on, extractor.people_known = tuple(sorted(seen)), not model.record.unknown_people
    write_atomically(out / "extractor_card.md", card_page(extractor.card).encode())
    save_weights(extractor, out / "extractor.safetensors")
