"""AdaBoost on the penultimate features of a deep head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from painseq.errors import PainseqError
from painseq.heads.head import Head, Rows
from painseq.heads.trees import AdaBoost
from painseq.spec import build


class DeepAdaBoost(Head):
    """AdaBoost (SAMME) over what the last layer of a deep head takes.

    El-Ghaish et al. 2025 name adaptive boosting in their model, but tell neither its algorithm nor its place; this head
    is our reading of it.

    The deep head that predicts is fitted on all training subjects. The features that the trees are fitted on come from
    others: the training subjects are divided into `inner_folds`, and each fold's features are computed by a copy of the
    deep head that was fitted without it, since a deep head separates the clips it was fitted on better than new ones.
    All copies start from the same random weights, so that their features mean nearly the same.

    Args:
        deep: builds the deep head; its level is that of this head.
        trees: largest number of stages; as for `AdaBoost`, those after the best one on validation subjects are cut off.
        learning_rate: factor of the trees' weights.
        max_depth: largest depth of a tree.
        inner_folds: number of folds of the training subjects.

    Raises:
        PainseqError: the deep head is not fitted by gradients; fewer than 2 folds.
    """

    fitted_by_gradients = False

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        deep: Callable[[tuple[int, ...], int], Head],
        trees: int = 100,
        learning_rate: float = 1.0,
        max_depth: int = 1,
        inner_folds: int = 5,
    ) -> None:
        super().__init__(in_shape, num_classes)
        if inner_folds < 2:
            raise PainseqError(f"inner_folds is {inner_folds}; it must be 2 or more.")
        self.deep = _built(deep, self.in_shape, num_classes)
        self.trees = trees
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.inner_folds = inner_folds
        self.level = self.deep.level
        self.max_frames = self.deep.max_frames
        self.streams = self.deep.streams
        self.boosted = AdaBoost((self.deep.last.in_features,), num_classes, "frame", trees, learning_rate, max_depth)

    def fit_rows(self, train: Rows, validation: Rows | None) -> None:
        """Refuse rows: features that flatter nobody need several fits; see `painseq.training.fit`.

        Raises:
            PainseqError: always.
        """
        raise PainseqError("DeepAdaBoost is fitted on features of inner folds. Fit it by painseq.training.fit.")

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, *F) to logits, (B, T, K) or (B, K) by the level of the deep head."""
        device = x.device.type
        # A feature that is rounded can fall on the other side of a threshold.
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            features = self.deep.penultimate(x.float(), mask)
        logits: Tensor
        if self.level == "frame":
            logits = self.boosted(features, mask)
        else:
            logits = self.boosted(features[:, None], mask.any(dim=1, keepdim=True))[:, 0]
        return logits


def _built(deep: object, in_shape: tuple[int, ...], num_classes: int) -> Head:
    """Build the deep head, which a checkpoint gives as a head or as its specification."""
    if isinstance(deep, Mapping):
        deep = build(deep, Head)  # type: ignore[type-abstract, unused-ignore]
    head = deep if isinstance(deep, Head) else deep(in_shape, num_classes) if callable(deep) else None
    if not isinstance(head, Head) or not head.fitted_by_gradients:
        raise PainseqError(
            f"DeepAdaBoost boosts the features of a head that is fitted by gradients, but deep gives "
            f"{getattr(head, 'name', head)}. Name another head, such as painseq.heads.LSTM."
        )
    return head
