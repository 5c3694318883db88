"""Predictions of a model for one part of a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
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
from painseq.model.pain_model import PainModel
from painseq.model.prediction import NO_PREDICTION
from painseq.records import UNKNOWN, Part, Seen, plain_name, shared_people
from painseq.spec import difference

log = logging.getLogger("painseq")


def check_can_score(model: PainModel, data: PainDataModule, part: Part) -> None:
    """Check that a model can score a part: a leak check, and the checks of `check_fits`.

    Raises:
        LeakError: head or extractor were fitted on a subject of `part`.
        PainseqError: see `check_fits`.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    scored = qualified(data.name, data.split.subjects(part))
    # The extractor first: its leak is less obvious, and the message about the head would hide it.
    check_no_leak(model.extractor_trained_on, scored, "The model's extractor")
    check_no_leak(data.extractor_trained_on, scored, "The extractor of a store")
    check_no_leak(model.fitted_on, scored)
    check_fits(model, data)


def same_videos(model: PainModel, data: PainDataModule, part: Part) -> tuple[str, ...]:
    """Return the clips of a part whose video the model was fitted on, under another name of data set or subject.

    Videos are recognised by their content, as far as the model's record and the data know it. A file that also holds
    clips of a subject whom the model is known to have seen can show several people, and does not count.
    """
    fitted = frozenset(model.record.fitted_videos)
    if not fitted:
        return ()
    digests = data.video_digests
    seen = {plain_name(person) for person in model.fitted_on}
    told = {clip.video for clip in data.manifest if plain_name(f"{data.name}/{clip.subject_id}") in seen}
    return tuple(
        clip.clip_id for clip in data.clips(part) if digests.get(clip.clip_id) in fitted and clip.video not in told
    )


def same_videos_warning(clip_ids: Sequence[str]) -> str:
    """Describe scored clips whose video the model was fitted on."""
    return (
        f"LEAK: the model was fitted on the videos of {len(clip_ids)} of the clips to be scored, such as "
        f"{clip_ids[0]!r}, under the name of another data set or subject. Their score says nothing about new people."
    )


def _warn_of_same_videos(model: PainModel, data: PainDataModule, part: Part) -> None:
    same = same_videos(model, data, part)
    if same:
        log.warning("%s", same_videos_warning(same))


def seen_by(model: PainModel, data: PainDataModule) -> Seen:
    """The people whom head, extractor and the extractors of the data's stores have seen."""
    return model.record.seen | Seen(frozenset(data.extractor_trained_on), data.unknown_extractors)


def check_fits(model: PainModel, data: PainDataModule) -> None:
    """Check that the model can read the data as it read those it was fitted on.

    Raises:
        PainseqError: other classes or another scale; features made by another extractor, crop or sampling; other
            streams.
    """
    check_same_targets(model.class_names, model.scale, data.scheme)
    if data.options.view == "pixels" and model.extractor is None:
        raise PainseqError(
            "This model was fitted on features whose extractor is not recorded, so it cannot read pixels. Score it on "
            "such features (--data.options.view features)."
        )
    record = model.record
    expected = {"face": record.face, "sampling": record.sampling}
    if isinstance(data.store, FeatureStore):
        if data.options.view == "features":
            expected["extractor"] = record.extractor
        data.store.check_same({**data.store.spec, **expected})
    elif data.store is None and expected["face"] is not None and data.options.face is not None:
        lines = difference(identity(expected), identity(data.pipeline))
        if lines:
            raise PainseqError(
                "The model was fitted with\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is that of the data to score. Set --data.options to the model's values."
            )
    for name, of_model, of_data in (
        ("streams", list(model.streams), [stream.name for stream in data.streams]),
        ("normalise", record.by_person, data.options.normalise),
        ("baseline_clips", record.baseline_clips, data.options.set_aside),
    ):
        if of_model != of_data:
            raise PainseqError(
                f"The model was fitted with {name} {of_model}, but the data to score have {of_data}. Set "
                f"--data.options.{name} to the model's value."
            )
    if "action_units" in model.stream_identities:
        data.take_action_units(model.stream_identities["action_units"])
    for stream, recorded in zip(data.streams, record.streams, strict=True):
        lines = difference(recorded.identity, stream.identity)
        if lines:
            raise PainseqError(
                f"The stream {stream.name!r} differs from that of the model. It has\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is that of the data to score. Use the stream of the model."
            )
    if data.options.view == "features" and data.in_shape != record.in_shape:
        raise PainseqError(
            f"The model takes frames of shape {list(record.in_shape)}; these features have {list(data.in_shape)}."
        )


def predict_part(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """Predict every clip of a part; clips without a face, or that failed in the store, have no prediction.

    Args:
        model: model of classes; for a model of a scale use `predict_values`.
        on_progress: called with (clips done, total of clips).

    Raises:
        LeakError, PainseqError: see `check_can_score`; no clip in this part.
    """
    check_can_score(model, data, part)
    _warn_of_same_videos(model, data, part)
    return predict_unchecked(model, data, part, on_progress)


def predict_unchecked(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """Predict as `predict_part`, but without a leak check; the scores do not hold for new subjects.

    Raises:
        PainseqError: no clip in this part.
    """
    k, votes = len(model.class_names), model.head.level == "frame"

    def decide(batch: Batch) -> np.ndarray:
        decision = model.decide(batch)
        vote_columns = [] if decision.votes is None else [decision.votes]
        columns = [decision.label[:, None], decision.probabilities, *vote_columns]
        return _numpy(torch.cat([column.double() for column in columns], dim=1))

    rows = _rows(data, part, decide, on_progress)
    label = rows.outputs[:, 0]
    return Predictions(
        class_names=model.class_names,
        clip_ids=rows.clip_ids,
        subject_ids=rows.subject_ids,
        truth=rows.truth.astype(np.int64),
        label=np.where(np.isnan(label), NO_PREDICTION, label).astype(np.int64),
        probabilities=rows.outputs[:, 1 : 1 + k],
        votes=rows.outputs[:, 1 + k :] if votes else None,
        frames=rows.frames,
        faceless=rows.faceless,
        threshold=None if model.threshold is None else np.full(len(rows.clip_ids), model.threshold),
    )


def predict_validation(
    model: PainModel, data: PainDataModule, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """Predict the validation part, to fit a temperature on; it may have been used for early stopping.

    Raises:
        LeakError: the weights of head or extractor were fitted on a validation subject.
        PainseqError: see `check_fits`; no validation subject, or no clip of one.
    """
    check_can_calibrate(model, data)
    return predict_unchecked(model, data, "validation", on_progress)


def check_can_calibrate(model: PainModel, data: PainDataModule) -> None:
    """Check that a temperature can be fitted on the validation part; see `predict_validation`."""
    check_fits(model, data)
    if not data.split.validation:
        raise PainseqError(
            f"The split {data.split.protocol!r} has no validation subjects to fit a temperature on. Choose a split "
            "that "
            "has some, or omit calibrate."
        )
    validation = qualified(data.name, data.split.validation)
    seen = shared_people(validation, _trained_on(model) | set(data.extractor_trained_on))
    if seen:
        raise LeakError(
            f"The model was trained on {len(seen)} of the validation subjects, such as {seen[0]}. It is more "
            "confident for them, so a temperature fitted on them is too low. Choose the split that the model was "
            "fitted "
            "with."
        )


def _trained_on(model: PainModel) -> set[str]:
    """Return the subjects that weights were fitted on, as "data set/subject": without those of early stopping only."""
    members = list(model.members) if isinstance(model, AveragedModel) else [model]
    trained: set[str] = set()
    for member in members:
        assert isinstance(member, PainModel)
        fit = member.record.data
        # A model that this one started from may have been fitted on some of them.
        stopped_on = qualified(fit.name, fit.split.validation) - set(member.record.validation_seen_by_start)
        trained |= (member.fitted_on - stopped_on) | member.extractor_trained_on
    return trained


def predict_values(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> ValuePredictions:
    """Predict as `predict_part`, for a model of a scale.

    Raises:
        LeakError, PainseqError: see `check_can_score`; no clip in this part.
    """
    check_can_score(model, data, part)
    _warn_of_same_videos(model, data, part)
    rows = _rows(data, part, lambda batch: _numpy(model.estimate(batch).double())[:, None], on_progress)
    return ValuePredictions(
        scale=model.objective.names[0],
        clip_ids=rows.clip_ids,
        subject_ids=rows.subject_ids,
        truth=np.where(rows.truth == UNKNOWN, np.nan, rows.truth),
        value=rows.outputs[:, 0],
        frames=rows.frames,
        faceless=rows.faceless,
    )


@dataclass(frozen=True)
class _Rows:
    clip_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    truth: np.ndarray
    outputs: np.ndarray
    frames: np.ndarray
    faceless: np.ndarray


def _rows(
    data: PainDataModule,
    part: Part,
    output: Callable[[Batch], np.ndarray],
    on_progress: Callable[[int, int], None] | None,
) -> _Rows:
    """Return one row for each clip of a part; the outputs of unreadable clips are NaN."""
    dataset = data.dataset(part)
    if not len(dataset):
        raise PainseqError(f"{data.name} has no readable clip in its {part} part under split {data.split.protocol!r}.")
    ids: list[str] = []
    subjects: list[str] = []
    truth, outputs, frames, faceless = [], [], [], []
    for batch in data.loader(part):
        ids += batch.clip_ids
        subjects += batch.subject_ids
        outputs.append(output(batch))
        truth.append(_numpy(batch.target.double()))
        lengths = batch.lengths * ~batch.times_s[:, 0].isnan()  # NaN: the video could not be read.
        frames.append(_numpy(lengths))
        faceless.append(_numpy(lengths - batch.mask.sum(dim=1)))
        if on_progress is not None:
            on_progress(len(ids), len(dataset))
    unread = [clip for clip in data.clips(part) if clip.clip_id in set(dataset.left_out)]
    zeros = np.zeros(len(unread), np.int64)
    return _Rows(
        clip_ids=(*ids, *(clip.clip_id for clip in unread)),
        subject_ids=(*subjects, *(clip.subject_id for clip in unread)),
        truth=np.concatenate([*truth, [target_of(clip, data.scheme) for clip in unread]]),
        outputs=np.concatenate([*outputs, np.full((len(unread), outputs[0].shape[1]), np.nan)]),
        frames=np.concatenate([*frames, zeros]),
        faceless=np.concatenate([*faceless, zeros]),
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
