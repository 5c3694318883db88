from collections.abc import Callable

import numpy as np
import pytest

from painseq.evaluation import Predictions

NAMES = ("No Pain", "Low Pain", "High Pain")


@pytest.fixture
def predictions() -> Callable[..., Predictions]:
    def make(
        truth: list[int],
        label: list[int],
        subjects: list[str] | None = None,
        class_names: tuple[str, ...] = NAMES,
        order_known: bool = True,
    ) -> Predictions:
        """Certain predictions: probability 1 for the label; each clip of a subject of its own if none are given."""
        n, k = len(truth), len(class_names)
        probabilities = np.full((n, k), np.nan)
        for row, index in enumerate(label):
            if index >= 0:
                probabilities[row] = np.eye(k)[index]
        return Predictions(
            class_names=class_names,
            clip_ids=tuple(f"clip{i}" for i in range(n)),
            subject_ids=tuple(subjects or [f"s{i}" for i in range(n)]),
            truth=np.array(truth, np.int64),
            label=np.array(label, np.int64),
            probabilities=probabilities,
            frames=np.full(n, 10, np.int64),
            faceless=np.where(np.array(label) < 0, 10, 0).astype(np.int64),
            order_known=order_known,
        )

    return make
