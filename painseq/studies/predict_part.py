"""Predictions of a model for one part of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import target_of
from painseq.data.labels import check_same_targets
from painseq.data.splits import check_no_leak, qualified
from painseq.errors import LeakError, PainseqError
from painseq.evaluation.predictions import Predictions
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.features import FeatureStore
from painseq.features.store import identity
from painseq.model.averaging import AveragedModel
from painseq.model.decision import NO_PREDICTION
from painseq.model.pain_model import PainModel
from painseq.records import UNKNOWN, Part
from painseq.spec import difference


def check_can_score(model: PainModel, data: PainDataModule, part: Part) -> None:
    """Refuse to score people the model has seen, other classes, or features of another kind.

    Raises:
        LeakError: a subject of `part` is among those that head or extractor were fitted on.
        PainseqError: see `check_fits`.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    scored = qualified(data.name, data.split.subjects(part))
    # The extractor first: that a head has seen somebody is the plainer case, and its message would hide this one.
    check_no_leak(model.extractor_trained_on, scored, "The model's extractor")
    check_no_leak(data.extractor_trained_on, scored, "The extractor of a store")
    check_no_leak(model.fitted_on, scored)
    check_fits(model, data)


def check_fits(model: PainModel, data: PainDataModule) -> None:
    """Refuse data that the model cannot read as those it was fitted on.

    Raises:
        PainseqError: other classes or another scale; features made by another extractor, crop or sampling; other
            streams.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    if data.options.view == "pixels" and model.extractor is None:
        raise PainseqError(
            "This model was fitted on features whose extractor is not recorded, so it cannot read pixels. Score it on "
            "such features: --data.options.view features."
        )
    record = model.record
    made = {"face": record.face, "sampling": record.sampling}
    if isinstance(data.store, FeatureStore):
        if data.options.view == "features":
            made["extractor"] = record.extractor
        data.store.check_same({**data.store.spec, **made})
    elif data.store is None and made["face"] is not None and data.options.face is not None:
        lines = difference(identity(made), identity(data.pipeline))
        if lines:
            raise PainseqError(
                "The model was fitted with\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is that of the data to be scored. Give --data.options the model's."
            )
    for name, fitted, here in (
        ("streams", list(model.streams), [stream.name for stream in data.streams]),
        ("baseline_clips", record.baseline_clips, data.options.baseline_clips),
    ):
        if fitted != here:
            raise PainseqError(
                f"The model was fitted with {name} {fitted}, the data to be scored have {here}. Give "
                f"--data.options.{name} the model's."
            )
    for stream, recorded in zip(data.streams, record.streams, strict=True):
        lines = difference(recorded.identity, stream.identity)
        if lines:
            raise PainseqError(
                f"The stream {stream.name!r} is not the one that the model was fitted with. It was\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is that of the data to be scored. Give them the model's."
            )
    if data.options.view == "features" and data.in_shape != record.in_shape:
        raise PainseqError(
            f"The model takes frames of shape {list(record.in_shape)}; these features have {list(data.in_shape)}."
        )


def predict_part(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """One row for every clip of a part; clips without a face, or that the store counts as failed, have no prediction.

    Args:
        model: of classes; `predict_values` serves one of a scale.
        on_progress: called with (clips done, clips in all).

    Raises:
        LeakError, PainseqError: see `check_can_score`; no clip in this part.
    """
    check_can_score(model, data, part)
    return predict_unchecked(model, data, part, on_progress)


def predict_unchecked(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """As `predict_part`, of people whom the model may have seen. What it gives is not to be scored as if it had not.

    Raises:
        PainseqError: no clip in this part.
    """
    k, votes = len(model.class_names), model.head.level == "frame"

    def decide(batch: Batch) -> np.ndarray:
        said = model.decide(batch)
        columns = [said.label[:, None], said.probabilities, *([] if said.votes is None else [said.votes])]
        return _numpy(torch.cat([column.double() for column in columns], dim=1))

    rows = _rows(data, part, decide, on_progress)
    label = rows.said[:, 0]
    return Predictions(
        class_names=model.class_names,
        clip_ids=rows.clip_ids,
        subject_ids=rows.subject_ids,
        truth=rows.truth.astype(np.int64),
        label=np.where(np.isnan(label), NO_PREDICTION, label).astype(np.int64),
        probabilities=rows.said[:, 1 : 1 + k],
        votes=rows.said[:, 1 + k :] if votes else None,
        frames=rows.frames,
        faceless=rows.faceless,
    )


def predict_validation(
    model: PainModel, data: PainDataModule, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """Predictions for the validation part, to fit a temperature on: early stopping may have looked at these people.

    Raises:
        LeakError: the weights of head or extractor were fitted to one of them.
        PainseqError: see `check_fits`; no validation subject, or no clip of one.
    """
    check_fits(model, data)
    if not data.split.validation:
        raise PainseqError(
            f"The split {data.split.protocol!r} has no validation subjects, so no temperature can be fitted. Choose a "
            "split that has some, or leave calibrate out."
        )
    seen = sorted((_trained_on(model) | set(data.extractor_trained_on)) & qualified(data.name, data.split.validation))
    if seen:
        raise LeakError(
            f"The model was trained on {len(seen)} of the validation subjects, such as {seen[0]}. It is surer of those "
            "it has seen, so a temperature fitted on them is too low. Choose the split that the model was fitted with."
        )
    return predict_unchecked(model, data, "validation", on_progress)


def _trained_on(model: PainModel) -> set[str]:
    """Whom the weights were fitted to, as "data set/subject": those seen, less those of early stopping alone."""
    members = list(model.members) if isinstance(model, AveragedModel) else [model]
    trained: set[str] = set()
    for member in members:
        assert isinstance(member, PainModel)
        fit = member.record.data
        # A model that this one started from may have been fitted to some of them.
        stopped_on = qualified(fit.name, fit.split.validation) - set(member.record.validation_seen_by_start)
        trained |= (member.fitted_on - stopped_on) | member.extractor_trained_on
    return trained


def predict_values(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> ValuePredictions:
    """As `predict_part`, for a model of a scale.

    Raises:
        LeakError, PainseqError: see `check_can_score`; no clip in this part.
    """
    check_can_score(model, data, part)
    rows = _rows(data, part, lambda batch: _numpy(model.estimate(batch).double())[:, None], on_progress)
    return ValuePredictions(
        scale=model.objective.names[0],
        clip_ids=rows.clip_ids,
        subject_ids=rows.subject_ids,
        truth=np.where(rows.truth == UNKNOWN, np.nan, rows.truth),
        value=rows.said[:, 0],
        frames=rows.frames,
        faceless=rows.faceless,
    )


@dataclass(frozen=True)
class _Rows:
    clip_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    truth: np.ndarray
    said: np.ndarray
    frames: np.ndarray
    faceless: np.ndarray


def _rows(
    data: PainDataModule,
    part: Part,
    say: Callable[[Batch], np.ndarray],
    on_progress: Callable[[int, int], None] | None,
) -> _Rows:
    """A row for each clip of a part; NaN is said of those that could not be read."""
    dataset = data.dataset(part)
    if not len(dataset):
        raise PainseqError(f"{data.name} has no readable clip in its {part} part under split {data.split.protocol!r}.")
    ids: list[str] = []
    subjects: list[str] = []
    truth, said, frames, faceless = [], [], [], []
    for batch in data.loader(part):
        ids += batch.clip_ids
        subjects += batch.subject_ids
        said.append(say(batch))
        truth.append(_numpy(batch.target.double()))
        frames.append(_numpy(batch.lengths))
        faceless.append(_numpy(batch.lengths - batch.mask.sum(dim=1)))
        if on_progress is not None:
            on_progress(len(ids), len(dataset))
    unread = [clip for clip in data.clips(part) if clip.clip_id in set(dataset.left_out)]
    nothing = np.zeros(len(unread), np.int64)
    return _Rows(
        clip_ids=(*ids, *(clip.clip_id for clip in unread)),
        subject_ids=(*subjects, *(clip.subject_id for clip in unread)),
        truth=np.concatenate([*truth, [target_of(clip, data.scheme) for clip in unread]]),
        said=np.concatenate([*said, np.full((len(unread), said[0].shape[1]), np.nan)]),
        frames=np.concatenate([*frames, nothing]),
        faceless=np.concatenate([*faceless, nothing]),
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
