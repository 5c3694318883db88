"""Truth from a file, in class names or native labels, for predictions of classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from painseq.data.labels import LabelScheme
from painseq.errors import PainseqError
from painseq.evaluation.predictions import Predictions

log = logging.getLogger("painseq")


def in_classes(
    predictions: Predictions, truth: Mapping[str, str], scheme: LabelScheme
) -> tuple[Predictions, dict[str, str]]:
    """Truth in native labels or in class names, as class names; clips whose label the scheme leaves out leave both.

    Args:
        truth: clip id -> label.

    Raises:
        PainseqError: a label that is neither.
    """
    named: dict[str, str] = {}
    for clip_id, label in truth.items():
        if label in scheme.classes:
            named[clip_id] = label
            continue
        if not scheme.knows(label):
            raise PainseqError(
                f"The truth of {clip_id} is {label!r}, which is neither a class ({', '.join(scheme.class_names)}) nor "
                f"a label of {scheme.dataset} ({', '.join(scheme.known)})."
            )
        group = scheme.group(label)
        if group is not None:
            named[clip_id] = group
    kept = [row for row, clip in enumerate(predictions.clip_ids) if clip in named or clip not in truth]
    if len(kept) < len(predictions):
        log.info("%d clips left out: the scheme %r has no class for them.", len(predictions) - len(kept), scheme.name)
    return predictions.only(kept), named
