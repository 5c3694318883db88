"""Truth from a file, as class names or native labels, for predictions of classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from painseq.data.labels import LabelScheme
from painseq.errors import PainseqError, first_few
from painseq.evaluation.predictions import Predictions

log = logging.getLogger("painseq")


def in_classes(
    predictions: Predictions, truth: Mapping[str, str], scheme: LabelScheme
) -> tuple[Predictions, dict[str, str]]:
    """Convert truth to class names; clips without a class in the scheme are removed from predictions and truth.

    Args:
        truth: clip id -> native label or class name.

    Raises:
        PainseqError: a label that is neither a native label nor a class name.
    """
    named: dict[str, str] = {}
    for clip_id, label in truth.items():
        if label in scheme.classes:
            named[clip_id] = label
            continue
        if not scheme.knows(label):
            raise PainseqError(
                f"The truth of {clip_id} is {label!r}, which is neither a class ({first_few(scheme.class_names)}) nor "
                f"a label of {scheme.dataset} ({first_few(scheme.known)})."
            )
        group = scheme.group(label)
        if group is not None:
            named[clip_id] = group
    kept = [row for row, clip in enumerate(predictions.clip_ids) if clip in named or clip not in truth]
    if len(kept) < len(predictions):
        log.info(
            "%d clips are left out: label scheme %r has no class for them.", len(predictions) - len(kept), scheme.name
        )
    return predictions.only(kept), named
