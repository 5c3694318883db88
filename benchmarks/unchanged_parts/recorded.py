"""Key figures of a run, rounded, for a check against the committed ones."""

import csv
import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from unchanged_parts.compare import ARRAYS, arrays_of, json_of

DIGITS = 6
TOLERANCE = 1e-4
"""Of figures of another run on the same kind of processor; sums differ a little between kinds."""
SCORES = {"accuracy", "balanced_accuracy", "macro_f1", "mae", "mse", "value", "val_loss"}


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """What figures may depend on."""
    return {"cpu": cpu(), "python": platform.python_version(), "torch": torch.__version__}


def figures_of(folder: Path) -> dict[str, Any]:
    """Fingerprints, main scores, and a size and a mean for the arrays that a step wrote."""
    found: dict[str, Any] = {}
    arrays = [path for path in sorted(folder.rglob("*")) if path.suffix in ARRAYS]
    if arrays:
        values = [array for path in arrays for array in arrays_of(path).values() if array.dtype.kind in "fiub"]
        found["values"] = int(sum(array.size for array in values))
        found["mean_size"] = _rounded(sum(float(np.nansum(np.abs(array.astype(np.float64)))) for array in values)
                                      / max(1, found["values"]))  # fmt: skip
    for path in sorted(folder.rglob("*.json")):
        for place, value in _told(json_of(path)):
            found.setdefault(place, value)
    for path in sorted(folder.rglob("metrics.csv")):
        losses = [float(row["val_loss"]) for row in _rows(path) if row.get("val_loss")]
        if losses:
            found[f"{path.parent.relative_to(folder)}/val_loss"] = _rounded(losses[-1])
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _told(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Fingerprints, and scores that are plain numbers, at the first places where they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            at = f"{place}.{key}".lstrip(".")
            if key == "fingerprint" and isinstance(inner, str):
                yield at, inner
            elif key in SCORES and isinstance(inner, float):
                yield at, _rounded(inner)
            elif key in ("probabilities", "scores", "models", "data", "extractor", "prediction") or place == "models":
                yield from _told(inner, at)
    elif isinstance(value, list) and value and place == "":
        yield from _told(value[0], place)
    elif isinstance(value, float) and place.rpartition(".")[0].endswith("probabilities"):
        yield place, _rounded(value)


def _rounded(value: float) -> float:
    return value if value == 0 or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def write(path: Path, commit: str, figures: dict[str, dict[str, Any]]) -> None:
    """Write the committed file; of the steps that did not run, what was recorded stays."""
    before = json.loads(path.read_text(encoding="utf-8"))["steps"] if path.is_file() else {}
    content = {"machine": machine(), "commit": commit, "steps": {**before, **figures}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def against(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs from the recorded figures of a step, a line each."""
    lines = []
    for place, then in recorded.items():
        value = now.get(place)
        same = value == then
        if isinstance(then, float | int) and isinstance(value, float | int):
            same = math.isclose(then, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if not same:
            lines.append(f"{place} is {value}, recorded is {then}")
    return lines
