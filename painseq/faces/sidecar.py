"""Faces that lie stored beside the video."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.locator import Face, Locator
from painseq.spec import Spec

_POINTS = 68
# OpenFace rounds its time stamps to a millisecond.
_ROUNDING_S = 1e-3


class Sidecar(Locator):
    """Faces read from `<stem>.faces.safetensors` or, where there is none, from OpenFace 2's `<stem>.csv`.

    The safetensors file holds `times_s` (N,), `boxes` (N, 4), `scores` (N,) and, if known, `landmarks` (N, 68, 2), a
    row a face, in pixels and in seconds since the video's first frame. A row with a box that is not finite, and an
    OpenFace row with success 0, is no face; OpenFace's box is the bounding box of its landmarks. A frame takes the
    rows nearest in time within half the interval between the sidecar's times.

    Args:
        directory: where the sidecars lie; None is beside each video.
    """

    needs_pixels: ClassVar[bool] = False

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory

    def identity(self) -> Spec:
        """Where the sidecars lie does not count."""
        return {**super().identity(), "init_args": {}}

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """The stored faces.

        Raises:
            PainseqError: no sidecar (it says where it looked), or one that cannot be understood.
        """
        folder = video.parent if self.directory is None else Path(self.directory)
        tensors, table = folder / f"{video.stem}.faces.safetensors", folder / f"{video.stem}.csv"
        if tensors.is_file():
            moments, faces = _from_safetensors(tensors)
        elif table.is_file():
            moments, faces = _from_openface(table)
        else:
            raise PainseqError(f"No sidecar with the faces of {video}: looked for {tensors} and {table}.")
        if not len(moments):
            return [[] for _ in times_s]
        known, row_of = np.unique(moments, return_inverse=True)
        together: list[list[Face]] = [[] for _ in known]
        for row, face in zip(row_of, faces, strict=True):
            if face is not None:
                together[row].append(face)
        interval_s = float(np.median(np.diff(known))) if len(known) > 1 else 0.0
        nearest = _nearest(known, times_s)
        near = np.abs(known[nearest] - times_s) <= interval_s / 2 + _ROUNDING_S
        return [together[row] if ok else [] for row, ok in zip(nearest, near, strict=True)]


def _nearest(known: NDArray[np.float64], times_s: NDArray[np.float64]) -> NDArray[np.intp]:
    after = np.clip(np.searchsorted(known, times_s), 0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(known[before] - times_s) <= np.abs(known[after] - times_s), before, after)


def _from_safetensors(path: Path) -> tuple[NDArray[np.float64], list[Face | None]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise PainseqError(f"{path} cannot be read: {error}.") from error
    count = len(tensors["times_s"]) if "times_s" in tensors else 0
    landmarks = tensors.get("landmarks")
    shapes = {"times_s": (count,), "boxes": (count, 4), "scores": (count,)}
    for name, shape in shapes.items():
        if name not in tensors or tensors[name].shape != shape:
            found = tensors[name].shape if name in tensors else "missing"
            raise PainseqError(f"{path}: tensor {name!r} is {found}, not {shape}.")
    if landmarks is not None and (landmarks.ndim != 3 or len(landmarks) != count or landmarks.shape[2] != 2):
        raise PainseqError(f"{path}: tensor 'landmarks' is {landmarks.shape}, not ({count}, points, 2).")
    boxes = tensors["boxes"].astype(np.float32)
    faces: list[Face | None] = [
        Face(box, float(score), None if landmarks is None else landmarks[row].astype(np.float32))
        if np.isfinite(box).all()
        else None
        for row, (box, score) in enumerate(zip(boxes, tensors["scores"], strict=True))
    ]
    return tensors["times_s"].astype(np.float64), faces


def _from_openface(path: Path) -> tuple[NDArray[np.float64], list[Face | None]]:
    names = ["timestamp", "confidence", "success"]
    names += [f"{axis}_{point}" for axis in "xy" for point in range(_POINTS)]
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        missing = [name for name in names if name not in header]
        if missing:
            raise PainseqError(
                f"{path} is no OpenFace table: it has no column {missing[0]!r} ({len(missing)} missing)."
            )
        columns = [header.index(name) for name in names]
        rows: list[list[float]] = []
        for row in reader:
            try:
                rows.append([float(row[column]) for column in columns])
            except (ValueError, IndexError) as error:
                raise PainseqError(f"{path}, line {reader.line_num}: {error}.") from error
    values = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(names))
    faces: list[Face | None] = []
    for _, confidence, success, *flat in values:
        points = np.asarray(flat, np.float32).reshape(2, _POINTS).T
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        faces.append(Face(box, float(confidence), points) if success else None)
    return values[:, 0], faces
