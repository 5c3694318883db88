"""Fit `DeepAdaBoost`: trees on features of deep heads that were fitted without the people in question."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from painseq.data.datamodule import PainDataModule
from painseq.data.out_of_fold import out_of_fold
from painseq.errors import PainseqError
from painseq.files import write_json
from painseq.heads import DeepAdaBoost, Head
from painseq.heads.head import Rows
from painseq.heads.standardised import Standardised
from painseq.model.pain_model import PainModel
from painseq.training.classifier import PainClassifier
from painseq.training.rows import rows_of

log = logging.getLogger("painseq")

FOLDS_FILE = "folds.json"
"""Which subjects were held out in which fold, and how far the features agree with those of the head that predicts."""
DOUBTFUL_AGREEMENT = 0.5
FitDeep = Callable[[Callable[[], PainClassifier], PainDataModule, Path], PainModel]


def boosted_of(head: Head | None) -> DeepAdaBoost | None:
    """Return the `DeepAdaBoost` that a head is, or that a standardised head holds; None if it is another head."""
    inner = head.head if isinstance(head, Standardised) else head
    return inner if isinstance(inner, DeepAdaBoost) else None


def fit_boosted(
    model: PainClassifier,
    make_model: Callable[[], PainClassifier],
    data: PainDataModule,
    out: Path,
    fit_deep: FitDeep,
) -> None:
    """Fit the deep heads of a bound classifier's `DeepAdaBoost`, and its trees.

    No feature that the trees are fitted on is of a person whom its deep head was fitted on. Validation subjects stop
    all deep heads, and choose the number of trees; no weight is fitted on them.

    Args:
        model: the bound classifier, on the device of the fit.
        make_model: makes a new, unbound classifier with the same arguments.
        data: data of the fit.
        out: folder for a folder of each fold, for `all`, the fit of the deep head that predicts, and `folds.json`.
        fit_deep: fits the classifier that a function makes, on data, into a folder.

    Raises:
        PainseqError: fewer training subjects than folds; see also `fit_deep`.
    """
    head = boosted_of(model.head)
    assert head is not None and model.head is not None
    untrained = copy.deepcopy(head.deep)

    def make_deep() -> PainClassifier:
        return make_model().renewed(lambda in_shape, outputs: copy.deepcopy(untrained))

    whole = fit_deep(make_deep, data, out / "all").head
    parts, same, notes = [], [], []
    for number, fold in enumerate(out_of_fold(data, head.inner_folds)):
        log.info("Penultimate features: fold %d of %d", number + 1, head.inner_folds)
        deep = fit_deep(make_deep, fold.fit, out / f"fold-{number}").head
        rows = rows_of(model, fold.held_out, "validation", partial(penultimate_rows, deep))
        of_whole = rows_of(model, fold.held_out, "validation", partial(penultimate_rows, whole))
        if rows is not None and of_whole is not None:
            parts.append(rows)
            same.append(of_whole.x)
            subjects = sorted({clip.subject_id for clip in fold.held_out.clips("validation")})
            notes.append({"held_out": subjects, "rows": len(rows.x)})
    if not parts:
        raise PainseqError(f"No training clip of {data.name} has both a label and a frame with a face.")
    train = _joined(parts)
    agreed = agreement(train.x, torch.cat(same))
    write_json(out / FOLDS_FILE, {"agreement": agreed, "folds": notes})
    _tell(agreed)
    validation = None
    if data.split.validation:
        validation = rows_of(model, data, "validation", partial(penultimate_rows, whole))
    head.boosted.fit_rows(train, validation)
    _take_over(model.head, head, whole)


@torch.no_grad()
def penultimate_rows(head: Head, rows: Rows) -> Rows:
    """Replace rows by the penultimate features of a fitted head, (N, P)."""
    device = next(head.parameters()).device
    by_frame = head.level == "frame"
    x, mask = (tensor[:, None] if by_frame else tensor for tensor in (rows.x, rows.mask))
    features = head.eval().penultimate(x.to(device).float(), mask.to(device)).cpu()
    features = features[:, 0] if by_frame else features
    return Rows(features, torch.ones(len(features), dtype=torch.bool), rows.target, rows.weights)


def agreement(features: Tensor, others: Tensor) -> float | None:
    """Return the median, over units, of the correlation of two heads' features of the same rows, both (N, P).

    None if no unit varies in both.
    """
    a, b = (tensor.double() - tensor.double().mean(dim=0) for tensor in (features, others))
    spread = a.norm(dim=0) * b.norm(dim=0)
    varies = spread > 1e-12
    if not bool(varies.any()):
        return None
    return float(((a * b).sum(dim=0)[varies] / spread[varies]).median())


def _tell(agreed: float | None) -> None:
    found = agreed or 0.0
    log.info("Features of the folds' heads correlate with those of the head that predicts: median %.2f.", found)
    if found < DOUBTFUL_AGREEMENT:
        log.warning(
            "The features that the trees were fitted on correlate by only %.2f with those that they will be given: the "
            "folds' deep heads have learned other features than the one that predicts. Train for fewer epochs or with "
            "a lower learning rate, or use the deep head alone.",
            found,
        )


def _joined(parts: list[Rows]) -> Rows:
    return Rows(*(torch.cat([getattr(rows, name) for rows in parts]) for name in ("x", "mask", "target", "weights")))


def _take_over(outer: Head, head: DeepAdaBoost, fitted: Head) -> None:
    """Give the head that predicts the weights of a fitted deep head, and what its input is standardised by."""
    if isinstance(outer, Standardised) and isinstance(fitted, Standardised):
        for name in ("mean", "sd", "frames"):
            getattr(outer, name).copy_(getattr(fitted, name))
    deep = fitted.head if isinstance(fitted, Standardised) else fitted
    head.deep.load_state_dict(deep.state_dict())
