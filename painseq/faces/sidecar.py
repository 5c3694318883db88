"""Faces stored in files next to the videos."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.locator import Face, Locator
from painseq.faces.openface import nearest_rows, read_openface
from painseq.spec import Spec
from painseq.video import bare_name

_POINTS = 68


class Sidecar(Locator):
    """Read faces from `<stem>.faces.safetensors` or, if there is none, from OpenFace 2's `<stem>.csv`.

    The safetensors file holds `times_s` (N,), `boxes` (N, 4), `scores` (N,) and, if known, `landmarks` (N, 68, 2): one
    row per face, in pixels, and in seconds since the video's first frame. A row whose box is not finite, and an
    OpenFace row with success 0, has no face; OpenFace's box is the bounding box of its landmarks. A frame uses the
    rows nearest in time, within half the interval between the sidecar's times.

    Args:
        directory: folder of the sidecars; None is the folder of each video.
    """

    needs_pixels: ClassVar[bool] = False

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory

    def identity(self) -> Spec:
        """Return the settings that decide which faces are found; the folder is not one of them."""
        return {**super().identity(), "init_args": {}}

    def extra_files(self, video: Path) -> tuple[Path, ...]:
        """Return the sidecar, if there is one."""
        return tuple(path for path in self._candidates(video) if path.is_file())[:1]

    def _candidates(self, video: Path) -> tuple[Path, Path]:
        folder = video.parent if self.directory is None else Path(self.directory)
        return folder / f"{bare_name(video)}.faces.safetensors", folder / f"{bare_name(video)}.csv"

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Read the stored faces.

        Raises:
            PainseqError: no sidecar (it names the paths tried), or one that cannot be read.
        """
        tensors, table = self._candidates(video)
        if tensors.is_file():
            row_times_s, faces = _from_safetensors(tensors)
        elif table.is_file():
            row_times_s, faces = _from_openface(table)
        else:
            raise PainseqError(
                f"No sidecar with the faces of {video}: looked for {tensors} and {table}. Add one, or detect faces in "
                "the frames: locator YuNet instead of Sidecar (`--locator yunet` in predict and explain)."
            )
        if not len(row_times_s):
            return [[] for _ in times_s]
        known, row_of = np.unique(row_times_s, return_inverse=True)
        faces_at: list[list[Face]] = [[] for _ in known]
        for row, face in zip(row_of, faces, strict=True):
            if face is not None:
                faces_at[row].append(face)
        nearest, near = nearest_rows(known, times_s)
        return [faces_at[row] if ok else [] for row, ok in zip(nearest, near, strict=True)]


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
    values = read_openface(path, names)
    faces: list[Face | None] = []
    for _, confidence, success, *flat in values:
        points = np.asarray(flat, np.float32).reshape(2, _POINTS).T
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        faces.append(Face(box, float(confidence), points) if success and np.isfinite(box).all() else None)
    return values[:, 0], faces
