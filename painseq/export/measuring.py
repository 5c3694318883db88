"""What another precision of the extractor changes: a model's answers on validation clips, by both networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from painseq.batch import Sample
from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import target_of
from painseq.data.splits import qualified
from painseq.errors import PainseqError
from painseq.evaluation.intervals import paired_difference
from painseq.evaluation.predictions import Predictions
from painseq.export.int8 import Calibration, Int8, chosen_samples
from painseq.model import PainModel
from painseq.model.prediction import Answer
from painseq.records import Clip
from painseq.runs import OnProgress
from painseq.runtime.folder import ChangeRecord, Int8Record
from painseq.runtime.graphs import Graph

METRIC = "balanced_accuracy"


def measured(
    model: PainModel,
    networks: tuple[Graph, Graph],
    data: PainDataModule,
    int8: Int8,
    calibration: Calibration,
    on_progress: OnProgress,
) -> Int8Record:
    """Predict validation clips with the extractor in fp32 and in int8, and compare the answers.

    Args:
        model: its head answers.
        networks: the extractor in fp32 and in int8.
        data: see `crops_of_model`.
        calibration: what int8 was calibrated on.
        on_progress: called with the number of clips done, and their total.

    Raises:
        PainseqError: no validation clip has a frame with a face, or the agreement is below the floor.
    """
    clips: list[Clip] = []
    frames: list[tuple[int, int]] = []
    answers: tuple[list[Answer], list[Answer]] = ([], [])
    total = min(int8.clips, len(data.dataset("validation")))
    for done, (clip, sample) in enumerate(chosen_samples(data, "validation", int8.clips)):
        on_progress(done, total)
        if bool(sample.present.any()):
            clips.append(clip)
            frames.append((len(sample.present), int((~sample.present).sum())))
            for network, found in zip(networks, answers, strict=True):
                found.append(_answer(model, network, sample))
    on_progress(total, total)
    if not clips:
        raise PainseqError(f"No clip of the validation subjects of {data.name} has a frame with a face.")
    agreement, changes = _agreement(model, *answers)
    record = Int8Record(
        calibrated_on=tuple(sorted(qualified(data.name, calibration.people))),
        frames=len(calibration.crops),
        measured_on=tuple(sorted(qualified(data.name, [clip.subject_id for clip in clips]))),
        clips=len(clips),
        floor=int8.floor,
        agreement=agreement,
        mean_change=float(changes.mean()),
        largest_change=float(changes.max()),
        balanced_accuracy=None if model.predicts_values else _change(model, data, clips, frames, answers),
        changed_lead=_changed_lead(model, *answers),
    )
    _check_floor(record, model)
    return record


def concordance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Lin's concordance correlation of two (n,) arrays: 1 if they are equal, less for any offset, factor or noise."""
    apart = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    together = ((first - first.mean()) * (second - second.mean())).mean()
    return 1.0 if apart == 0 else float(2 * together / apart)


def _answer(model: PainModel, network: Graph, sample: Sample) -> Answer:
    assert sample.video is not None
    mask, crops = sample.present.numpy(), sample.video.numpy()
    # One at a time: as fast on a CPU, and memory does not grow with the clip.
    real = np.concatenate([network({"crops": crop[None]})["features"] for crop in crops[mask]])
    rows = np.zeros((len(mask), *real.shape[1:]), np.float32)
    rows[mask] = real
    if sample.extra is not None:
        rows = np.concatenate([rows, sample.extra.numpy().astype(np.float32)], axis=-1)
    return model.answer(rows[None], mask[None])


def _agreement(
    model: PainModel, exact: Sequence[Answer], quantised: Sequence[Answer]
) -> tuple[float, NDArray[np.float64]]:
    """Return the agreement, and the absolute changes of all probabilities or values."""
    if model.predicts_values:
        first, second = (np.concatenate([one.value for one in each]).astype(np.float64) for each in (exact, quantised))
        return concordance(first, second), np.abs(first - second)
    labels = _labels(exact, quantised)
    changes: NDArray[np.float64] = np.abs(_probabilities(exact) - _probabilities(quantised))
    return float((labels[0] == labels[1]).mean()), changes


def _changed_lead(model: PainModel, exact: Sequence[Answer], quantised: Sequence[Answer]) -> float | None:
    """Return the largest lead, in fp32, among the labels that changed; see `Int8Record`."""
    if model.predicts_values or model.threshold is not None:
        return None
    labels, shares = _labels(exact, quantised), _probabilities(exact)
    top = np.sort(shares[labels[0] != labels[1]], axis=1)[:, -2:]
    return float((top[:, 1] - top[:, 0]).max()) if len(top) else None


def _labels(*answers: Sequence[Answer]) -> list[NDArray[np.int64]]:
    return [np.concatenate([one.label for one in each if one.label is not None]) for each in answers]


def _probabilities(answers: Sequence[Answer]) -> NDArray[np.float64]:
    return np.concatenate([one.probabilities for one in answers if one.probabilities is not None]).astype(np.float64)


def _change(
    model: PainModel,
    data: PainDataModule,
    clips: Sequence[Clip],
    frames: Sequence[tuple[int, int]],
    answers: tuple[Sequence[Answer], Sequence[Answer]],
) -> ChangeRecord | None:
    """Return the change of the balanced accuracy; None if no label is known."""
    counts = np.array(frames, np.int64)
    exact, quantised = (
        Predictions(
            class_names=model.class_names,
            clip_ids=tuple(clip.clip_id for clip in clips),
            subject_ids=tuple(clip.subject_id for clip in clips),
            truth=np.array([target_of(clip, data.scheme) for clip in clips], np.int64),
            label=np.concatenate([answer.label for answer in each]),
            probabilities=np.concatenate([answer.probabilities for answer in each]).astype(np.float64),
            frames=counts[:, 0],
            faceless=counts[:, 1],
        )
        for each in answers
    )
    if not exact.scored.any():
        return None
    found = paired_difference(quantised, exact, (METRIC,))[METRIC]
    interval = found.interval
    return ChangeRecord(
        found.second,
        found.first,
        found.value,
        interval.low,
        interval.high,
        interval.subjects,
        interval.method,
        interval.note,
    )


def _check_floor(record: Int8Record, model: PainModel) -> None:
    if record.agreement >= record.floor:
        return
    changed = round(record.clips * (1 - record.agreement))
    lead = (
        "" if record.changed_lead is None else f", whose lead over the next class was at most {record.changed_lead:.3f}"
    )
    what = (
        f"the concordance correlation of its values with those of fp32 is {record.agreement:.3f}"
        if model.predicts_values
        else f"{record.agreement:.3f} of its labels are those of fp32 (not those of {changed} clips{lead})"
    )
    raise PainseqError(
        f"Int8 changes the answers too much: for {record.clips} clips of {len(record.measured_on)} validation subjects "
        f"{what}, and the floor is {record.floor} (mean change {record.mean_change:.3f}, largest "
        f"{record.largest_change:.3f}). Calibrate on more people and frames (command line: --int8-people, "
        "--int8-frames), lower the floor (--int8-floor), or export without int8."
    )
