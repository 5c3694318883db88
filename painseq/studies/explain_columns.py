"""Which columns of a model's input its score needs, over the clips of a data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.explain.columns import ColumnPermutation, named_columns, permute_columns
from painseq.explain.drawing import column_bars
from painseq.extractors.frames import batch_features
from painseq.files import write_atomically, write_csv, write_json
from painseq.model.pain_model import PainModel
from painseq.model.record import NORMALISED
from painseq.records import Part
from painseq.runs import OnProgress, new_run_folder, no_progress, versions
from painseq.studies.experiment import Experiment
from painseq.studies.explained_clips import run_config, seen_in_training, write_config
from painseq.studies.predict_part import check_fits

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class ColumnOptions:
    """Options of an explanation by columns.

    Args:
        part: part of the split.
        repeats: number of random permutations.
        seed: seed of the permutations.
        checkpoints: files that the model was loaded from, named in the results.
    """

    part: Part = "test"
    repeats: int = 5
    seed: int = 0
    checkpoints: tuple[Path, ...] = ()


DEFAULT_OPTIONS = ColumnOptions()


@dataclass(frozen=True)
class ColumnsExplanation:
    """The explanation of a part.

    Args:
        permutation: the columns, most important first.
        details: content of columns.json besides them.
    """

    permutation: ColumnPermutation
    details: Mapping[str, Any]


def explain_columns(
    model: PainModel,
    data: PainDataModule,
    out: str | Path,
    options: ColumnOptions = DEFAULT_OPTIONS,
    experiment: Experiment | None = None,
    on_progress: OnProgress = no_progress,
) -> ColumnsExplanation:
    """Measure how much balanced accuracy falls when a column is exchanged between the clips of a part.

    Args:
        out: new folder for config.yaml, columns.csv (one row per column), columns.json, column_bars.svg and .png.
        experiment: experiment that `data` was built from, written to config.yaml with the options.

    Raises:
        PainseqError: model and data do not fit together, the model takes no vectors or predicts values, fewer than two
            clips with a known label and a face, or the folder is not empty.

    Example:
        >>> from painseq.studies.explain_columns import ColumnOptions, explain_columns
        >>> found = explain_columns(model, data, Path("columns"), ColumnOptions(repeats=10))
        >>> {row.name: row.drop for row in found.permutation.drops[:3]}
    """
    out = Path(out)
    check_fits(model, data)
    if model.record.normalise:
        log.info("Features are normalised %s.", ", then ".join(NORMALISED[step] for step in model.record.normalise))
    columns = named_columns(model, data.streams)

    def progress(share: float) -> None:
        on_progress(round(share * options.repeats), options.repeats, f"{len(columns)} columns")

    with new_run_folder(out):
        progress(0.0)
        batches = [_features(model, batch) for batch in data.loader(options.part)]
        permutation = permute_columns(model, batches, columns, options.repeats, options.seed, progress)
        details = {
            "part": options.part,
            "data": {"name": data.name, "labels": data.options.labels, "fingerprint": data.manifest.fingerprint()},
            "checkpoints": [str(path) for path in options.checkpoints],
            "normalise": list(model.record.normalise),
            "balanced_accuracy": permutation.balanced_accuracy,
            "clips": permutation.clips,
            "subjects": permutation.subjects,
            "repeats": options.repeats,
            "seed": options.seed,
            "seen_in_training": seen_in_training(model, data, data.clips(options.part)),
            "device": str(model.device),
            "versions": versions(),
        }
        explanation = ColumnsExplanation(permutation, details)
        _write(explanation, out)
        write_config(out, run_config(experiment, "explain_columns", options, model))
    return explanation


@torch.inference_mode()
def _features(model: PainModel, batch: Batch) -> Batch:
    """Return a batch as the head takes it, on the CPU."""
    moved = batch.to(model.device)
    features = batch_features(model.extractor, moved).cpu()
    return replace(batch, features=features, video=None, extra=None)


def _write(explanation: ColumnsExplanation, out: Path) -> None:
    drops = explanation.permutation.drops
    rows: list[list[object]] = [["column", "drop", "low", "high"]]
    for row in drops:
        ends = ["" if end is None else f"{end:.6f}" for end in (row.interval.low, row.interval.high)]
        rows.append([row.name, f"{row.drop:.6f}", *ends])
    write_csv(out / "columns.csv", rows, line_end="\n")
    write_json(out / "columns.json", {**explanation.details, "columns": [row.to_dict() for row in drops]})
    title = (
        f"Balanced accuracy {explanation.permutation.balanced_accuracy:.2f}: fall when a column is exchanged between "
        f"{explanation.permutation.clips} clips"
    )
    bars = [(row.name, row.drop, (row.interval.low, row.interval.high)) for row in drops]
    write_atomically(out / "column_bars.svg", column_bars(bars, title, "svg"))
    write_atomically(out / "column_bars.png", column_bars(bars, title, "png"))
