"""Heads of decision trees: fitted by scikit-learn, kept as plain arrays, evaluated in torch.

A fitted head needs neither scikit-learn nor pickle: its trees are buffers, moved to a device and saved like weights.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.errors import PainseqError
from painseq.heads.functionals import functionals
from painseq.heads.head import Head, Rows

log = logging.getLogger("painseq")

Level = Literal["frame", "video"]
_TREES_AT_ONCE = 64
_DEEPEST = 1000
_NEVER = -50.0
"""Logit of a class that no training row has."""
_LEAST_SHARE = 1e-12


@dataclass(frozen=True)
class Trees:
    """Decision trees, one after the other; a leaf is its own child.

    Args:
        feature: (N,) int64, the column that a node compares.
        threshold: (N,) float64; a row with at most this value goes left.
        left: (N,) int64, a node.
        right: (N,) int64, a node.
        value: (N, S) float64, what a leaf adds to the scores.
        root: (M,) int64, the first node of each tree.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]
    root: NDArray[np.int64]

    @classmethod
    def joined(cls, trees: Sequence[Trees]) -> Trees:
        """Put several one after the other."""
        starts = np.cumsum([0, *(len(tree.feature) for tree in trees[:-1])])
        return cls(
            np.concatenate([tree.feature for tree in trees]),
            np.concatenate([tree.threshold for tree in trees]),
            np.concatenate([tree.left + start for tree, start in zip(trees, starts, strict=True)]),
            np.concatenate([tree.right + start for tree, start in zip(trees, starts, strict=True)]),
            np.concatenate([tree.value for tree in trees]),
            np.concatenate([tree.root + start for tree, start in zip(trees, starts, strict=True)]),
        )


@dataclass(frozen=True)
class Labelled:
    """Rows with classes 0 to K' - 1, those that occur in training, for scikit-learn."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    weights: NDArray[np.float64]


_ARRAYS = ("feature", "threshold", "left", "right", "value", "root")


class TreeHead(Head):
    """Base class of the heads of trees.

    With the level "video" the trees compare functionals of each column over a clip's real frames
    (`painseq.heads.functionals`), with "frame" each frame by itself, and the clip's label is the vote of its frames.

    Values are compared as scikit-learn does, rows as float32 with thresholds in float64, so that probabilities are
    those of the fitted estimator. Without a fit all logits are 0.

    Args:
        level: "video" or "frame".
    """

    fitted_by_gradients = False
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    root: Tensor
    start_scores: Tensor
    known: Tensor
    mean: Tensor

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, level: Level = "video") -> None:
        super().__init__(in_shape, num_classes)
        if level not in ("frame", "video"):
            raise PainseqError(f"{type(self).__name__}: level is {level!r}; use frame or video.")
        self.pooled_shape()
        self.level = level
        none = np.zeros(0, np.int64)
        self._keep(Trees(none, np.zeros(0), none, none, np.zeros((0, num_classes)), none), np.zeros(num_classes))
        self.register_buffer("known", torch.ones(num_classes, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(0))

    @abstractmethod
    def _fit(self, train: Labelled, validation: Labelled | None, seed: int) -> tuple[Trees, NDArray[np.float64]]:
        """Fit trees; return them, and the (S,) scores that they are added to."""

    @abstractmethod
    def _logits(self, scores: Tensor) -> Tensor:
        """Convert (N, S) sums over the trees to (N, K') logits of the classes in training."""

    def fit_rows(self, train: Rows, validation: Rows | None) -> None:
        """Fit the trees; see `Head.fit_rows`.

        Raises:
            PainseqError: the targets are no classes, or all of one class.
        """
        name = type(self).__name__
        if train.target.is_floating_point() or int(train.target.max()) >= self.num_classes:
            raise PainseqError(f"{name} predicts classes, so the model's loss must be cross_entropy, its default.")
        classes = np.unique(train.target.numpy())
        if len(classes) < 2:
            raise PainseqError(f"{name} needs training clips of two classes or more; all have class {classes[0]}.")
        seed = int(torch.randint(2**31 - 1, ()))
        checked = None if validation is None else self._labelled(validation, classes)
        trees, start = self._fit(self._labelled(train, classes), checked, seed)
        if len(trees.feature) == len(trees.root):
            log.warning(
                "No tree of %s splits the %d training rows, so it predicts the classes' shares whatever the clip. "
                "Lower its min_rows, or add clips.",
                name,
                len(train.target),
            )
        self.known = torch.from_numpy(np.isin(np.arange(self.num_classes), classes)).to(self.known.device)
        self.mean = train.x[train.mask].double().mean(dim=0).to(self.mean)
        self._keep(trees, start)

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        """Move the trees; see `nn.Module.to`.

        Raises:
            PainseqError: to a device without float64.
        """
        device = fn(torch.zeros(0)).device
        if device.type == "mps":
            raise PainseqError(
                f"{type(self).__name__} compares in float64, which the device {device} does not have: use cpu "
                "(--device cpu; to fit, --trainer.accelerator cpu)."
            )
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def training_mean(self) -> Tensor | None:
        """Return the mean of each column over the real frames of the training data, (D,); None before a fit."""
        return self.mean if len(self.mean) else None

    def _labelled(self, rows: Rows, classes: NDArray[np.int64]) -> Labelled:
        target = rows.target.numpy()
        kept = np.isin(target, classes)
        x = self.rows(rows.x, rows.mask).numpy()[kept]
        return Labelled(x, np.searchsorted(classes, target[kept]), rows.weights.double().numpy()[kept])

    def rows(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what the trees compare: float32 (..., D) frames, or (B, 16 D) functionals of (B, T, D) clips."""
        if x.shape[-1] != self.in_shape[0]:
            raise PainseqError(
                f"{type(self).__name__} was made for {self.in_shape[0]} columns, but the frames have {x.shape[-1]}. "
                "Give it the streams that it was fitted on."
            )
        found = functionals(x, mask) if self.level == "video" else x.masked_fill(~mask[..., None], 0.0)
        return found.float()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to logits, (B, T, K) or (B, K) by the level."""
        rows = self.rows(x, mask)
        logits = self.row_logits(rows.flatten(end_dim=-2)).float()
        return logits.reshape(*rows.shape[:-1], self.num_classes)

    def row_logits(self, rows: Tensor) -> Tensor:
        """Return the (N, K) float64 logits of (N, columns) rows; see `rows`."""
        logits = self._logits(self.start_scores + self._sums(rows.double()))
        # Classes without a training row keep their place.
        place = (self.known.cumsum(0) - 1).clamp(min=0)
        return torch.where(self.known, logits[:, place], _NEVER)

    def _sums(self, rows: Tensor) -> Tensor:
        """Add up the leaves of all trees, (N, S) float64."""
        total = rows.new_zeros((rows.shape[0], self.value.shape[1]))
        for first in range(0, len(self.root), _TREES_AT_ONCE):
            node = self.root[first : first + _TREES_AT_ONCE].expand(rows.shape[0], -1)
            for _ in range(self.depth):
                goes_left = rows.gather(1, self.feature[node]) <= self.threshold[node]
                node = torch.where(goes_left, self.left[node], self.right[node])
            total = total + self.value[node].sum(dim=1)
        return total

    def _keep(self, trees: Trees, start: NDArray[np.float64]) -> None:
        device = self.known.device if "known" in self._buffers else None
        for name in _ARRAYS:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(getattr(trees, name))).to(device))
        self.register_buffer("start_scores", torch.from_numpy(start).to(device))
        self._measure()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over arrays of any length, which is known only after a fit."""
        state_dict.setdefault(f"{prefix}mean", self.mean.new_zeros(0))  # Not in the first files of such heads.
        for name in (*_ARRAYS, "start_scores", "mean"):
            loaded, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(loaded, Tensor) and loaded.ndim == own.ndim:
                self.register_buffer(name, torch.empty_like(loaded, dtype=own.dtype, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._measure()

    def _measure(self) -> None:
        """Set `depth`, the largest number of comparisons from a root to a leaf.

        Raises:
            PainseqError: the arrays are no trees, such as those of a damaged file.
        """
        self.depth = 0
        if self.root.is_meta:
            return
        lengths = {len(array) for array in (self.feature, self.threshold, self.left, self.right, self.value)}
        inside = all(
            bool(((array >= 0) & (array < len(self.left))).all()) for array in (self.left, self.right, self.root)
        )
        node = self.root
        while len(lengths) == 1 and inside and self.depth < _DEEPEST:
            if bool((self.left[node] == node).all()):
                return
            node = torch.unique(torch.cat([self.left[node], self.right[node]]))
            self.depth += 1
        raise PainseqError(f"The trees of this {type(self).__name__} are damaged. Use another copy of its file.")


class _LogLossBoosting(TreeHead):
    """Base class of gradient boosting for the log loss."""

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        level: Level = "video",
        trees: int = 200,
        learning_rate: float = 0.05,
        max_depth: int = 3,
        min_rows: int = 20,
    ) -> None:
        super().__init__(in_shape, num_classes, level)
        self.trees = trees
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.min_rows = min_rows

    def _logits(self, scores: Tensor) -> Tensor:
        """Convert one score, the log odds of the second of two classes, or a score for each class, to logits."""
        return torch.cat([torch.zeros_like(scores), scores], dim=1) if scores.shape[1] == 1 else scores


class HistogramBoosting(_LogLossBoosting):
    """Gradient boosting of trees on binned values, for the log loss (scikit-learn's HistGradientBoostingClassifier).

    Fitting stops where validation subjects have the least loss: trees after that stage are cut off. Without validation
    subjects all are kept.

    Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree".

    Args:
        level: see `TreeHead`.
        trees: number of stages, each with a tree for each class (two classes: one).
        learning_rate: share of each tree that is added.
        depth: largest depth of a tree.
        min_rows: least number of rows in a leaf.
    """

    def _fit(self, train: Labelled, validation: Labelled | None, seed: int) -> tuple[Trees, NDArray[np.float64]]:
        from sklearn.ensemble import HistGradientBoostingClassifier

        fitted = HistGradientBoostingClassifier(
            max_iter=self.trees,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            max_leaf_nodes=None,
            min_samples_leaf=self.min_rows,
            early_stopping=False,
            random_state=seed,
        ).fit(train.x, train.y, train.weights)
        stages = _best_stage(fitted.staged_predict_proba, validation, self.trees)
        scores = len(fitted._predictors[0])
        trees = [
            _histogram_tree(predictor.nodes, column, scores)
            for stage in fitted._predictors[:stages]
            for column, predictor in enumerate(stage)
        ]
        return Trees.joined(trees), fitted._baseline_prediction.reshape(-1).astype(np.float64)


class GradientBoosting(_LogLossBoosting):
    """Classical gradient boosting of trees, for the log loss (scikit-learn's GradientBoostingClassifier).

    Friedman 2001, "Greedy Function Approximation: A Gradient Boosting Machine"; Verma et al. 2026 use it on action
    units. It searches every value of every column, so `HistogramBoosting` is much faster where there are many columns.

    Args: as for `HistogramBoosting`.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        level: Level = "video",
        trees: int = 200,
        learning_rate: float = 0.03,
        max_depth: int = 3,
        min_rows: int = 1,
    ) -> None:
        super().__init__(in_shape, num_classes, level, trees, learning_rate, max_depth, min_rows)

    def _fit(self, train: Labelled, validation: Labelled | None, seed: int) -> tuple[Trees, NDArray[np.float64]]:
        from sklearn.ensemble import GradientBoostingClassifier

        fitted = GradientBoostingClassifier(
            n_estimators=self.trees,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_rows,
            random_state=seed,
        ).fit(train.x, train.y, train.weights)
        stages = _best_stage(fitted.staged_predict_proba, validation, self.trees)
        scores = fitted.estimators_.shape[1]
        rate = np.eye(scores) * self.learning_rate
        trees = [
            _tree(estimator.tree_, estimator.tree_.value[:, 0, :1] * rate[column])
            for stage in fitted.estimators_[:stages]
            for column, estimator in enumerate(stage)
        ]
        return Trees.joined(trees), fitted._raw_predict_init(train.x[:1]).reshape(-1).astype(np.float64)


class RandomForest(TreeHead):
    """A random forest: the mean of the class shares in the leaves (scikit-learn's RandomForestClassifier).

    Breiman 2001, "Random Forests".

    Args:
        level: see `TreeHead`.
        trees: number of trees.
        max_depth: largest depth of a tree; None: until leaves are pure or too small.
        min_rows: least number of rows in a leaf.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        level: Level = "video",
        trees: int = 300,
        max_depth: int | None = None,
        min_rows: int = 1,
    ) -> None:
        super().__init__(in_shape, num_classes, level)
        self.trees = trees
        self.max_depth = max_depth
        self.min_rows = min_rows

    def _fit(self, train: Labelled, validation: Labelled | None, seed: int) -> tuple[Trees, NDArray[np.float64]]:
        from sklearn.ensemble import RandomForestClassifier

        fitted = RandomForestClassifier(
            n_estimators=self.trees, max_depth=self.max_depth, min_samples_leaf=self.min_rows, random_state=seed
        ).fit(train.x, train.y, train.weights)
        trees = [_tree(one.tree_, _shares(one.tree_) / self.trees) for one in fitted.estimators_]
        return Trees.joined(trees), np.zeros(len(fitted.classes_))

    def _logits(self, scores: Tensor) -> Tensor:
        return scores.clamp(min=_LEAST_SHARE).log()


class AdaBoost(TreeHead):
    """AdaBoost with SAMME: trees that vote with weights (scikit-learn's AdaBoostClassifier).

    As for `HistogramBoosting`, stages after the best one on validation subjects are cut off.

    Hastie et al. 2009, "Multi-class AdaBoost".

    Args:
        level: see `TreeHead`.
        trees: largest number of stages.
        learning_rate: factor of the trees' weights.
        max_depth: largest depth of a tree.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        num_classes: int,
        level: Level = "video",
        trees: int = 100,
        learning_rate: float = 1.0,
        max_depth: int = 1,
    ) -> None:
        super().__init__(in_shape, num_classes, level)
        self.trees = trees
        self.learning_rate = learning_rate
        self.max_depth = max_depth

    def _fit(self, train: Labelled, validation: Labelled | None, seed: int) -> tuple[Trees, NDArray[np.float64]]:
        from sklearn.ensemble import AdaBoostClassifier
        from sklearn.tree import DecisionTreeClassifier

        fitted = AdaBoostClassifier(
            DecisionTreeClassifier(max_depth=self.max_depth),
            n_estimators=self.trees,
            learning_rate=self.learning_rate,
            random_state=seed,
        ).fit(train.x, train.y, train.weights)
        stages = _best_stage(fitted.staged_predict_proba, validation, len(fitted.estimators_))
        weights = fitted.estimator_weights_[:stages]
        classes = len(fitted.classes_)
        trees = []
        for one, weight in zip(fitted.estimators_[:stages], weights / weights.sum(), strict=True):
            chosen = np.eye(classes)[_shares(one.tree_).argmax(axis=1)]
            trees.append(_tree(one.tree_, weight * np.where(chosen == 1, 1.0, -1 / (classes - 1))))
        return Trees.joined(trees), np.zeros(classes)

    def _logits(self, scores: Tensor) -> Tensor:
        return scores / (scores.shape[1] - 1)


def _tree(tree: Any, value: NDArray[np.float64]) -> Trees:
    """Convert a tree of scikit-learn whose leaves add `value`, (N, S)."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    return Trees(
        np.where(leaf, 0, tree.feature).astype(np.int64),
        np.asarray(tree.threshold, np.float64),
        np.where(leaf, own, tree.children_left).astype(np.int64),
        np.where(leaf, own, tree.children_right).astype(np.int64),
        np.asarray(value, np.float64),
        np.zeros(1, np.int64),
    )


def _shares(tree: Any) -> NDArray[np.float64]:
    """Return the (N, K') shares of the classes in each node."""
    counts = tree.value[:, 0, :]
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _histogram_tree(nodes: Any, column: int, scores: int) -> Trees:
    own, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
    return Trees(
        np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        np.where(leaf, 0.0, nodes["num_threshold"]).astype(np.float64),
        np.where(leaf, own, nodes["left"]).astype(np.int64),
        np.where(leaf, own, nodes["right"]).astype(np.int64),
        nodes["value"][:, None] * np.eye(scores)[column],
        np.zeros(1, np.int64),
    )


def _best_stage(staged: Any, validation: Labelled | None, stages: int) -> int:
    """Return the number of stages with the least log loss on validation rows; all without such rows."""
    if validation is None or not len(validation.y):
        return stages
    probabilities: Iterable[NDArray[np.float64]] = staged(validation.x)
    rows = np.arange(len(validation.y))
    losses = [
        np.average(-np.log(np.maximum(of_stage[rows, validation.y], _LEAST_SHARE)), weights=validation.weights)
        for of_stage in probabilities
    ]
    return int(np.argmin(losses)) + 1
