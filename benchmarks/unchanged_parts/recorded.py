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
SCORES = {"accuracy", "balanced_accuracy", "macro_f1", "mae", "mse", "value"}
BELOW = {"probabilities", "scores", "models", "data", "extractor", "prediction"}
TABLES = {"predictions.csv", "submission.csv", "frames.csv", "regions.csv", "scores.csv", "comparison.csv", "audit.csv"}


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
    for path in sorted(folder.rglob("*.csv")):
        at, rows = path.relative_to(folder).as_posix(), _rows(path)
        losses = [float(row["val_loss"]) for row in rows if row.get("val_loss")]
        if path.name == "metrics.csv" and losses:
            found[f"{at} val_loss"] = _rounded(losses[-1])
        elif path.name in TABLES and path.parent.name != "figures":
            figures = [abs(figure) for row in rows for figure in map(_figure, row.values()) if math.isfinite(figure)]
            found[f"{at} mean_size"] = _rounded(sum(figures) / max(1, len(figures)))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _figure(cell: str) -> float:
    """A cell's number; NaN where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _told(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Fingerprints, probabilities, and scores that are plain numbers; of a list the first entry's."""
    if isinstance(value, list) and value:
        yield from _told(value[0], place)
    elif isinstance(value, dict):
        for key, inner in value.items():
            at = f"{place}.{key}".lstrip(".")
            if key == "fingerprint" and isinstance(inner, str):
                yield at, inner
            elif isinstance(inner, float) and (key in SCORES or place.endswith("probabilities")):
                yield at, _rounded(inner)
            elif key in BELOW or place == "models":
                yield from _told(inner, at)


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
