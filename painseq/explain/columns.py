"""Importance of the columns of plain vectors: by occlusion in one clip, by permutation between many clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from captum import attr
from numpy.typing import NDArray
from torch import Tensor

from painseq.batch import Batch
from painseq.data.streams import LandmarkStream, Stream
from painseq.errors import PainseqError
from painseq.evaluation.intervals import Interval, bootstrap_interval
from painseq.evaluation.metrics import balanced_accuracy, confusion_by_subject
from painseq.explain.by_input import Progress
from painseq.explain.frames import Frames
from painseq.explain.score import Scorer, heads_of
from painseq.model.pain_model import PainModel

Columns = Mapping[str, tuple[int, ...]]
"""Name -> the columns of a row that count together."""


def named_columns(model: PainModel, streams: Sequence[Stream]) -> Columns:
    """Name the columns of the rows that a model's head takes.

    Features of the extractor have no meaning one by one: beside other streams they count together, as "cnn".

    Args:
        streams: the model's streams, from a data module or for a video.

    Raises:
        PainseqError: the head takes crops or feature maps, not one vector per frame.
    """
    if len(model.head.in_shape) != 1:
        raise PainseqError(
            f"{model.head.name} takes frames of shape {' x '.join(map(str, model.head.in_shape))}, not one "
            "vector per frame, so it has no columns to explain. Explain its maps (`painseq explain VIDEO`)."
        )
    names = [_names(stream) for stream in streams]
    known = sum(len(of_stream) for of_stream in names if of_stream is not None)
    missing = model.head.in_shape[0] - known
    columns: dict[str, tuple[int, ...]] = {}
    first = 0
    for stream, of_stream in zip(streams, names, strict=True):
        if of_stream is None:
            of_stream = _names_by_width(model, stream, names, missing)
        places = range(first, first + len(of_stream))
        first += len(of_stream)
        if stream.name == "cnn" and len(streams) > 1:
            columns["cnn"] = tuple(places)
            continue
        taken = any(name in columns for name in of_stream)
        columns |= {
            f"{stream.name} {name}" if taken else name: (place,) for name, place in zip(of_stream, places, strict=True)
        }
    return columns


def _names(stream: Stream) -> tuple[str, ...] | None:
    """Return the names of a stream's columns; None if their number depends on extractor or locator."""
    if stream.name == "cnn" or (isinstance(stream, LandmarkStream) and stream.points is None):
        return None
    return stream.columns


def _names_by_width(
    model: PainModel, stream: Stream, names: Sequence[tuple[str, ...] | None], missing: int
) -> tuple[str, ...]:
    """Name the columns of a stream whose number is known from the model; `missing` columns have no name yet."""
    if names.count(None) > 1:
        # Both the extractor's features and the landmarks of a video.
        assert model.extractor is not None
        of_cnn = math.prod(model.extractor.out_shape)
        missing = of_cnn if stream.name == "cnn" else missing - of_cnn
    if stream.name == "cnn":
        return tuple(f"cnn {number}" for number in range(missing))
    return LandmarkStream(missing // 2).columns


@dataclass(frozen=True)
class ColumnOcclusion:
    """How much a clip's score falls without each column.

    Args:
        falls: column -> the score minus that without the column; positive columns contribute to the class.
        replaced_by: what hid a column: "training mean", or "clip mean" where the model does not keep the former.
        class_name: name of the explained class, or of the scale.
        score: score of the clip, see `painseq.explain.score.score_of`.
    """

    falls: Mapping[str, float]
    replaced_by: str
    class_name: str
    score: float

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Columns and values, the largest change first."""
        return sorted(self.falls.items(), key=lambda item: -abs(item[1]))

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "class": self.class_name,
            "score": self.score,
            "replaced_by": self.replaced_by,
            "falls": dict(self.ranked),
        }


@torch.no_grad()
def occlude_columns(
    model: PainModel,
    clip: Frames,
    columns: Columns,
    target: int | str | None = None,
    on_progress: Progress | None = None,
) -> ColumnOcclusion:
    """Return how much a clip's score falls when a column is set to its mean over the training data, in all frames.

    A model that does not keep this mean gets the clip's own mean: only the column's course in time is then hidden, not
    its level.

    Args:
        clip: features (`features_of`), not crops.
        columns: see `named_columns`.
        target: class, by number or name; None: the predicted class. A model of a scale has only 0.
        on_progress: called with the finished share.

    Raises:
        PainseqError: see `Scorer`.

    Example:
        >>> columns = named_columns(model, data.streams)
        >>> occlude_columns(model, features_of(model, clip), columns, "high_pain").ranked[:3]
    """
    scorer = Scorer(model, clip, target)
    mean = _training_mean(model)
    baseline = (scorer.x[scorer.real].mean(dim=0) if mean is None else mean).to(scorer.x)
    groups = torch.zeros(scorer.x.shape[1], dtype=torch.int64, device=scorer.x.device)
    for number, places in enumerate(columns.values()):
        groups[list(places)] = number
    done = 0

    def score(x: Tensor) -> Tensor:
        nonlocal done
        done += len(x)
        if on_progress is not None:
            on_progress(min(1.0, done / len(columns)))
        return scorer(x)

    values: Tensor = attr.FeatureAblation(score).attribute(
        scorer.x[None],
        baselines=baseline.expand_as(scorer.x)[None].contiguous(),
        feature_mask=groups[None, None],
        perturbations_per_eval=scorer.copies_at_once(),
    )
    row = values[0, 0].double().cpu()
    falls = {name: float(row[places[0]]) for name, places in columns.items()}
    replaced_by = "clip mean" if mean is None else "training mean"
    return ColumnOcclusion(falls, replaced_by, scorer.class_name, scorer.score)


def _training_mean(model: PainModel) -> Tensor | None:
    """Return the mean of each column over the training data, (D,); for averaged models, over all members."""
    if model.record.by_person == "subject":
        return torch.zeros(model.head.in_shape)  # By the normalisation, for each person.
    means = [mean for head in heads_of(model) if (mean := head.training_mean()) is not None]
    return torch.stack(means).mean(dim=0) if len(means) == len(heads_of(model)) else None


@dataclass(frozen=True)
class ColumnDrop:
    """How much worse a model is without the information of one column.

    Args:
        name: name of the column.
        drop: balanced accuracy minus that with the column permuted; mean over the repeats.
        interval: 95 % interval over subjects.
        repeats: the drop of each repeat.
    """

    name: str
    drop: float
    interval: Interval
    repeats: tuple[float, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "column": self.name,
            "drop": self.drop,
            "interval": self.interval.to_dict(),
            "repeats": list(self.repeats),
        }


@dataclass(frozen=True)
class ColumnPermutation:
    """Importance of columns over many clips.

    Args:
        balanced_accuracy: of the unchanged clips.
        drops: one for each column, the largest first.
        clips: number of clips.
        subjects: number of subjects.
    """

    balanced_accuracy: float
    drops: tuple[ColumnDrop, ...]
    clips: int
    subjects: int


def permute_columns(
    model: PainModel,
    batches: Sequence[Batch],
    columns: Columns,
    repeats: int = 5,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> ColumnPermutation:
    """Return how much balanced accuracy falls when a column is exchanged between clips (Breiman 2001).

    A clip gets the whole course of the column in another clip, real frame by real frame, stretched to its own number of
    them; so every functional of a column in time is exchanged together. Two columns that say the same hide each other.

    Args:
        model: model of classes.
        batches: features, on the CPU, as the head takes them; clips without a known label or without a face are
            ignored.
        columns: see `named_columns`.
        repeats: number of random permutations.
        seed: seed of the permutations.
        on_progress: called with the finished share.

    Raises:
        PainseqError: a model of a scale; fewer than 2 clips; `repeats` below 1.
    """
    if model.predicts_values:
        raise PainseqError(f"Permutation measures balanced accuracy, but this model predicts values ({model.scale}).")
    if repeats < 1:
        raise PainseqError(f"repeats is {repeats}; it must be 1 or more.")
    batches = [kept for batch in batches if len(kept := _scorable(batch))]
    truth = torch.cat([batch.target for batch in batches]).numpy() if batches else np.zeros(0, np.int64)
    if len(truth) < 2:
        raise PainseqError(
            f"Columns are exchanged between clips; {len(truth)} have both a known label and a face. Give 2 or more."
        )
    subject_ids = [subject for batch in batches for subject in batch.subject_ids]

    def confusion(label: NDArray[np.int64]) -> NDArray[np.float64]:
        return confusion_by_subject(truth, label, subject_ids, len(model.class_names))[1]

    before = confusion(np.concatenate([_labels(model, batch, batch.x) for batch in batches]))
    after = np.zeros((len(columns), repeats, *before.shape))
    random = np.random.default_rng(seed)
    for repeat in range(repeats):
        labels = _exchanged(model, batches, columns, random.permutation(len(truth)))
        after[:, repeat] = [confusion(of_column) for of_column in labels]
        if on_progress is not None:
            on_progress((repeat + 1) / repeats)
    drops = [_drop(name, before, permuted) for name, permuted in zip(columns, after, strict=True)]
    drops.sort(key=lambda drop: -drop.drop)
    return ColumnPermutation(float(balanced_accuracy(before.sum(axis=0))), tuple(drops), len(truth), len(before))


def _scorable(batch: Batch) -> Batch:
    """Return the clips with a known label and a face."""
    kept = (batch.mask.any(dim=1) & (batch.target >= 0)).nonzero()[:, 0]
    return replace(
        batch,
        clip_ids=tuple(batch.clip_ids[row] for row in kept),
        subject_ids=tuple(batch.subject_ids[row] for row in kept),
        target=batch.target[kept],
        mask=batch.mask[kept],
        lengths=batch.lengths[kept],
        times_s=batch.times_s[kept],
        features=batch.x[kept],
    )


def _exchanged(
    model: PainModel, batches: Sequence[Batch], columns: Columns, order: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Return the labels, (N,), for each column taken from the clips in this order."""
    courses = [x[mask] for batch in batches for x, mask in zip(batch.x, batch.mask, strict=True)]
    donors = [courses[number] for number in order]
    labels: list[list[NDArray[np.int64]]] = [[] for _ in columns]
    for batch in batches:
        others, donors = _stretched(batch, donors[: len(batch)]), donors[len(batch) :]
        for of_column, places in zip(labels, columns.values(), strict=True):
            x = batch.x.clone()
            x[..., list(places)] = others[..., list(places)]
            of_column.append(_labels(model, batch, x))
    return [np.concatenate(of_column) for of_column in labels]


def _stretched(batch: Batch, donors: Sequence[Tensor]) -> Tensor:
    """Return the frames of other clips in place of those of a batch, (B, T, D)."""
    out = batch.x.clone()
    for row, donor in enumerate(donors):
        count = int(batch.mask[row].sum())
        places = (torch.arange(count) + 0.5) * len(donor) / count
        out[row, batch.mask[row]] = donor[places.long()]
    return out


def _labels(model: PainModel, batch: Batch, x: Tensor) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = model.decide(replace(batch, features=x)).label.cpu().numpy()
    return labels


def _drop(name: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> ColumnDrop:
    """Compare confusion matrices, (S, K, K), with those of the repeats, (R, S, K, K)."""
    repeats = balanced_accuracy(before.sum(axis=0)) - balanced_accuracy(after.sum(axis=1))

    def drop(times: NDArray[np.int64]) -> NDArray[np.float64]:
        permuted = [balanced_accuracy(np.tensordot(times, repeat, axes=1)) for repeat in after]
        difference: NDArray[np.float64] = balanced_accuracy(np.tensordot(times, before, axes=1)) - np.mean(permuted, 0)
        return difference

    return ColumnDrop(name, float(repeats.mean()), bootstrap_interval(drop, len(before)), tuple(repeats.tolist()))
