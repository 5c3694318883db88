"""The run folder: how it is created, and the files that a fit adds to Lightning's."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pytorch_lightning import Trainer

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor, save_weights
from painseq.files import write_atomically
from painseq.model.checkpoint import Checkpoint
from painseq.report.charts import learning_curves
from painseq.runs import make_run_folder, read_history, versions
from painseq.spec import plain, spec_of
from painseq.training.classifier import PainClassifier
from painseq.training.extractor_card import card_page, extractor_card

if TYPE_CHECKING:
    from painseq.training.fitting import FitOptions

BEST, LAST = "best.ckpt", "last.ckpt"
CONFIG = "config.yaml"


def first_process() -> bool:
    """Return whether this process writes files: the only process of a fit, or rank 0."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def begin_run(out: Path, resume: bool) -> None:
    """Create the folder of a new run, or check that there is a run to resume.

    Raises:
        PainseqError: nothing to resume; or the folder already holds a run, finished or interrupted.
    """
    if resume:
        if not (out / LAST).is_file():
            raise PainseqError(f"Nothing to resume: no {LAST} in {out}.")
    elif first_process():
        if (out / LAST).is_file() and not (out / "run.json").is_file():
            raise PainseqError(
                f"{out} holds an interrupted run. Resume it (resume=True; command line: --resume), or "
                "choose another folder (--out)."
            )
        make_run_folder(out)


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
        "epochs": trainer.current_epoch if model.head.fitted_by_gradients else None,
    }


def write_learning_curves(out: Path, model: PainClassifier) -> None:
    """Plot each metric of metrics.csv over the epochs; do nothing without epochs."""
    for title, picture in learning_curves(read_history(out), model.objective.chance):
        name = f"learning_curve_{title.lower().replace(' ', '_')}.svg"
        (out / name).write_bytes(base64.b64decode(picture))


def write_extractor(
    out: Path, model: PainClassifier, data: PainDataModule, content: Checkpoint, run: Mapping[str, object]
) -> None:
    """Write a trained extractor with its card, as in the chosen checkpoint, and the card as a page."""
    extractor = model.extractor
    if not isinstance(extractor, Extractor) or not extractor.trainable:
        return
    extractor.network.load_state_dict(content.extractor or {})
    settings = yaml.safe_load((out / CONFIG).read_text(encoding="utf-8"))["model"]
    extractor.card = extractor_card(model, data, run, settings, read_history(out))
    seen = {*extractor.trained_on, *model.fitted_on, *model.record.extractor_trained_on}
    extractor.trained_on, extractor.people_known = tuple(sorted(seen)), not model.record.unknown_people
    write_atomically(out / "extractor_card.md", card_page(extractor.card).encode())
    save_weights(extractor, out / "extractor.safetensors")
