"""Predictions of a model for one part of a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from painseq.checkpoint import PainModel
from painseq.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.evaluation.predictions import Predictions
from painseq.features import FeatureStore
from painseq.features.store import identity
from painseq.heads.decision import NO_PREDICTION
from painseq.labels import check_same_classes
from painseq.records import Part
from painseq.spec import difference
from painseq.splits import check_no_leak, qualified


def check_can_score(model: PainModel, data: PainDataModule, part: Part) -> None:
    """Refuse to score people the model has seen, other classes, or features of another kind.

    Raises:
        LeakError: a subject of `part` is among those that head or extractor were fitted on.
        PainseqError: other class names; features made by another extractor, crop or sampling.
    """
    check_same_classes(model.class_names, data.scheme.class_names)
    scored = qualified(data.name, data.split.subjects(part))
    # The extractor first: that a head has seen somebody is the plainer case, and its message would hide this one.
    check_no_leak(model.extractor_trained_on, scored, "The model's extractor")
    check_no_leak(data.extractor_trained_on, scored, "The store's extractor")
    check_no_leak(model.fitted_on, scored)
    if data.options.view == "pixels" and model.extractor is None:
        raise PainseqError(
            "This model was fitted on features whose extractor is not recorded, so it cannot read pixels. Score it on "
            "such features: --data.options.view features."
        )
    made = {key: model.record[key] for key in ("face", "sampling")}
    if isinstance(data.store, FeatureStore):
        if data.options.view == "features":
            made["extractor"] = model.record["extractor"]
        data.store.check_same({**data.store.spec, **made})
    elif data.store is None and made["face"] is not None and data.options.face is not None:
        lines = difference(identity(made), identity(data.pipeline))
        if lines:
            raise PainseqError(
                "The model was fitted with\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is that of the data to be scored. Give --data.options the model's."
            )
    for name, here in (("streams", list(data.options.streams)), ("baseline_clips", data.options.baseline_clips)):
        if model.record[name] != here:
            raise PainseqError(
                f"The model was fitted with {name} {model.record[name]}, the data to be scored have {here}. Give "
                f"--data.options.{name} the model's."
            )
    in_shape = model.record["in_shape"]
    if data.options.view == "features" and list(data.in_shape) != in_shape:
        raise PainseqError(f"The model takes frames of shape {in_shape}; these features have {list(data.in_shape)}.")


def predict_part(
    model: PainModel, data: PainDataModule, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Predictions:
    """One row for every clip of a part; clips without a face, or that the store counts as failed, have no prediction.

    Args:
        on_progress: called with (clips done, clips in all).

    Raises:
        LeakError, PainseqError: see `check_can_score`; no clip in this part.
    """
    check_can_score(model, data, part)
    dataset = data.dataset(part)
    if not len(dataset):
        raise PainseqError(f"{data.name} has no readable clip in its {part} part under split {data.split.protocol!r}.")
    k = len(model.class_names)
    ids: list[str] = []
    subjects: list[str] = []
    names = ("truth", "label", "probabilities", "votes", "frames", "faceless")
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in data.loader(part):
        decision = model.decide(batch)
        ids += batch.clip_ids
        subjects += batch.subject_ids
        rows["truth"].append(batch.target.numpy())
        rows["label"].append(_numpy(decision.label))
        rows["probabilities"].append(_numpy(decision.probabilities.double()))
        rows["votes"].append(_numpy((decision.probabilities if decision.votes is None else decision.votes).double()))
        rows["frames"].append(_numpy(batch.lengths))
        rows["faceless"].append(_numpy(batch.lengths - batch.mask.sum(dim=1)))
        if on_progress is not None:
            on_progress(len(ids), len(dataset))
    table = {name: np.concatenate(parts) for name, parts in rows.items()}
    unread = [clip for clip in data.clips(part) if clip.clip_id in set(dataset.left_out)]
    nothing = np.full((len(unread), k), np.nan)
    return Predictions(
        class_names=model.class_names,
        clip_ids=(*ids, *(clip.clip_id for clip in unread)),
        subject_ids=(*subjects, *(clip.subject_id for clip in unread)),
        truth=np.concatenate([table["truth"], [data.scheme.target(clip.label) for clip in unread]]).astype(np.int64),
        label=np.concatenate([table["label"], np.full(len(unread), NO_PREDICTION)]).astype(np.int64),
        probabilities=np.concatenate([table["probabilities"], nothing]),
        votes=np.concatenate([table["votes"], nothing]) if model.head.level == "frame" else None,
        frames=np.concatenate([table["frames"], np.zeros(len(unread))]).astype(np.int64),
        faceless=np.concatenate([table["faceless"], np.zeros(len(unread))]).astype(np.int64),
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy()
    return array
