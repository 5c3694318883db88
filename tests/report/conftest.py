"""Predictions and reports that the tests of the page share."""

import io

import numpy as np
import pytest
from PIL import Image

from painseq.evaluation import PUBLISHED, Predictions, score
from painseq.report import Figure, Report


@pytest.fixture
def png():
    """Makes the bytes of a PNG file."""
    return make_png


@pytest.fixture
def predicted():
    """Makes predictions of three classes, some wrong, one clip without."""
    return make_predictions


@pytest.fixture
def a_report():
    """Makes a report with something in each of its parts."""
    return make_report


def make_png(width=8, height=8, noise=False) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_predictions(seed=0, names=("No Pain", "Low Pain", "High Pain"), subjects=22) -> Predictions:
    rng = np.random.default_rng(seed)
    n = subjects * 9
    truth = np.arange(n) % 3
    # Rounded, so that ties occur.
    logits = 1.5 * np.eye(3)[truth] + rng.normal(size=(n, 3)).round(1)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = probabilities.argmax(1)
    label[0], probabilities[0] = -1, np.nan
    return Predictions(
        class_names=names,
        clip_ids=tuple(f"c{i}" for i in range(n)),
        subject_ids=tuple(f"{names[0]} s{i // 9}" for i in range(n)),
        truth=truth,
        label=label,
        probabilities=probabilities,
        frames=np.full(n, 80),
        faceless=np.zeros(n, np.int64),
    )


def make_report(name="LSTM", text="a note", made=None, **changes) -> Report:
    made = made or make_predictions()
    history = [
        {"epoch": float(e), "train_loss": 1 / (e + 1), "val_loss": 1.0, "val_balanced_accuracy": 0.5} for e in range(4)
    ]
    values = {
        "title": text,
        "subtitle": text,
        "dataset": "generated faces",
        "notes": [text],
        "evaluations": {name: score(made)},
        "predictions": {name: made},
        "histories": {name: history},
        "figures": [Figure(text, text, make_png())],
        "facts": {text: text},
        "warnings": [text],
        "published": PUBLISHED,
    }
    return Report(**{**values, **changes})
