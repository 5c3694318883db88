"""What two folders hold: tensors, figures and ids, no words, no names that move, no times."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

TOLERANCE = 1e-6

# ---- The table of what may differ. ----
RENAMED: dict[str, str] = {}
"""Key of JSON, column of a CSV, or name of a file, as the old side writes it -> as the new side does."""
IGNORED_KEYS = {
    *("seconds", "stages", "frames_per_s", "date", "argv", "command", "commands"),
    *("versions", "version", "torch", "painseq", "format", "checkpoints", "sha256"),
    *("title", "remark", "remarks", "notes", "text", "verdict", "warning", "warnings"),
}
"""Durations, versions, words; digests of whole files: a checkpoint's record or a YAML's comments may change."""

ARRAYS = {".safetensors", ".npz", ".ckpt"}
FIGURES = {".csv", ".json", ".jsonl"}
PICTURES = {".png", ".jpg", ".jpeg", ".mp4"}


class Reader:
    """Compares what two folders hold.

    Args:
        homes: paths that differ between the sides; they are left out of strings.
        pictures: compare decoded pictures and videos too.
    """

    def __init__(self, homes: tuple[str, ...] = (), pictures: bool = False) -> None:
        self.homes = homes
        self.kinds = ARRAYS | FIGURES | (PICTURES if pictures else set())
        self.arrays = self.figures = 0

    def differences(self, old: Path, new: Path) -> list[str]:
        """What differs, a line each; empty if all that the old side wrote is there and the same."""
        lines: list[str] = []
        for path in sorted(file for file in old.rglob("*") if file.is_file() and file.suffix in self.kinds):
            name = path.relative_to(old)
            other = new.joinpath(*(RENAMED.get(part, part) for part in name.parts))
            found = self._of_file(path, other) if other.is_file() else ["not written by the new side"]
            lines += [f"{name}: {line}" for line in found]
        return lines or ([] if self.arrays + self.figures else ["there is nothing to compare"])

    def _of_file(self, old: Path, new: Path) -> Iterator[str]:
        if old.suffix in ARRAYS:
            yield from self._of_arrays(arrays_of(old), arrays_of(new))
            if old.suffix == ".safetensors":
                yield from self._of_values(seen_of(old), seen_of(new), "metadata")
        elif old.suffix in PICTURES:
            yield from self._of_arrays({"pixels": _pixels(old)}, {"pixels": _pixels(new)})
        elif old.suffix == ".csv":
            yield from self._of_values(_table(old), _table(new), "")
        else:
            yield from self._of_values(json_of(old), json_of(new), "")

    def _of_arrays(self, old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> Iterator[str]:
        yield from (f"{name} is new" for name in sorted(new.keys() - old.keys()))
        for name, then in old.items():
            self.arrays += 1
            now = new.get(name)
            if now is None:
                yield f"{name} is missing"
            elif (then.shape, then.dtype) != (now.shape, now.dtype):
                yield f"{name} is {now.dtype}{list(now.shape)}, was {then.dtype}{list(then.shape)}"
            elif then.dtype.kind not in "fiub":
                if not np.array_equal(then, now):
                    yield f"{name} holds other strings"
            elif not np.array_equal(then, now, equal_nan=then.dtype.kind == "f"):
                off = np.abs(then.astype(np.float64) - now.astype(np.float64))
                count = np.count_nonzero((then != now) & ~((then != then) & (now != now)))
                yield f"{name}: {count} of {off.size} values differ, by up to {np.nanmax(off):.3g}"

    def _of_values(self, old: Any, new: Any, place: str) -> Iterator[str]:
        if isinstance(old, dict) and isinstance(new, dict):
            yield from self._of_tables(old, new, place)
        elif isinstance(old, list) and isinstance(new, list):
            if len(old) != len(new):
                yield f"{place} has {len(new)} entries, had {len(old)}"
                return
            for number, (then, now) in enumerate(zip(old, new, strict=True)):
                yield from self._of_values(then, now, f"{place}[{number}]")
        elif _is_figure(old) and _is_figure(new):
            self.figures += 1
            if not _close(float(old), float(new)):
                yield f"{place} is {new:.9g}, was {old:.9g}"
        elif isinstance(old, str) and isinstance(new, str):
            self.figures += 1
            if not _is_words(old) and self._bare(old) != self._bare(new):
                yield f"{place} is {new!r}, was {old!r}"
        elif old != new:
            yield f"{place} is {new!r}, was {old!r}"

    def _of_tables(self, old: dict[str, Any], new: dict[str, Any], place: str) -> Iterator[str]:
        found = {self._bare(key): value for key, value in new.items()}
        # Words may have changed: a heading that is not there any more is the one at the same place among headings.
        headings = [value for key, value in new.items() if _is_words(key)]
        for key, value in old.items():
            # Options as they were typed are flags; what they change is in the settings.
            if key in IGNORED_KEYS or (key == "options" and isinstance(value, list)):
                continue
            known = self._bare(RENAMED.get(key, key))
            at = f"{place}.{key}".lstrip(".")
            number = [one for one in old if _is_words(one)].index(key) if _is_words(key) else len(headings)
            if known in found:
                other = found[known]
            elif number < len(headings):
                other = headings[number]
            else:
                yield f"{at} is missing"
                continue
            if key == "class_path" and isinstance(value, str) and isinstance(other, str):
                value, other = value.rpartition(".")[2], other.rpartition(".")[2]
            yield from self._of_values(value, other, at)

    def _bare(self, text: str) -> str:
        for home in self.homes:
            text = text.replace(home, "")
        return text


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """Name -> array: of a safetensors file, an npz, or the state dict of a checkpoint."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name: tensor.numpy() for name, tensor in state.items()}


def seen_of(path: Path) -> dict[str, str]:
    """Whom a network has seen, and its fingerprint, as a safetensors file tells them."""
    with safe_open(path, "numpy") as file:
        told = file.metadata() or {}
    return {key: value.replace(" ", "") for key, value in told.items() if key in ("trained_on", "fingerprint")}


def _pixels(path: Path) -> np.ndarray:
    if path.suffix != ".mp4":
        with Image.open(path) as image:
            return np.asarray(image)
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def json_of(path: Path) -> Any:
    """JSON, one or one a line; text that is none is nothing to compare."""
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line]
        return json.loads(text) if text.strip() else None
    except json.JSONDecodeError:
        return None


def _table(path: Path) -> dict[str, list[Any]]:
    """Column -> its cells."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    return {name: [_number(row[column]) for row in rows if column < len(row)] for column, name in enumerate(head)}


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _close(old: float, new: float) -> bool:
    if math.isnan(old) or math.isnan(new):
        return math.isnan(old) and math.isnan(new)
    return math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _is_words(text: str) -> bool:
    """A sentence, heading or command; ids, names of classes and digests have no blanks."""
    return " " in text.strip()
