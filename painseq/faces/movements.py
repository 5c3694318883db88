"""52 facial-movement coefficients of each frame of a video; not FACS action units, and not PSPI."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.crops import FaceCrops
from painseq.faces.face_mesh import FaceMesh
from painseq.files import write_csv

if TYPE_CHECKING:
    import pandas

NAMES = (
    "_neutral",
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight"),
    *("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight"),
    *("eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight"),
    *("eyeWideLeft", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight"),
    *("mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker"),
    *("mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""The coefficients, in the order of the network's output. Left and right are the person's own."""
DEAD = (
    *("_neutral", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "jawForward", "noseSneerLeft", "noseSneerRight"),
)
"""Coefficients that stay near 0 whatever the face does."""


def _mirrored(name: str) -> str:
    swapped = {"Left": "Right", "Right": "Left"}
    return next((name.removesuffix(side) + other for side, other in swapped.items() if name.endswith(side)), name)


MIRRORED = tuple(NAMES.index(_mirrored(name)) for name in NAMES)
"""For each coefficient the one of the other side of the face."""

_COLUMNS = ("frame", "timestamp_s", "success", "box_left", "box_top", "box_right", "box_bottom", *NAMES)


@dataclass(frozen=True, eq=False)
class Movements:
    """The facial movements of a span of a video, one row a frame.

    Args:
        times_s: (N,) float64, seconds since the start of the span.
        success: (N,) bool, false for a frame without a face.
        boxes: (N, 4) float32, left, top, right, bottom of the face's points in pixels; NaN without a face.
        values: (N, 52) float32, 0 to 1, in the order of `NAMES`; NaN without a face.
        switched_s: times in seconds from which on another person may be followed (`painseq.faces.track.Tracker`).
        most_faces: the most faces found in one frame, of which one is followed; 0 where unknown.
    """

    times_s: NDArray[np.float64]
    success: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    values: NDArray[np.float32]
    switched_s: tuple[float, ...] = ()
    most_faces: int = 0

    def __len__(self) -> int:
        return len(self.times_s)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return one coefficient over time, (N,), by its name, such as "eyeBlinkLeft"."""
        if name not in NAMES:
            raise PainseqError(f"No movement {name!r}; the movements are {', '.join(NAMES)}.")
        return self.values[:, NAMES.index(name)]

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows of a table, header first; cells of a frame without a face are None."""
        yield _COLUMNS
        for frame, found in enumerate(self.success.tolist()):
            head = (frame, round(float(self.times_s[frame]), 6), int(found))
            if found:
                box = (round(value, 2) for value in self.boxes[frame].tolist())
                yield (*head, *box, *(round(value, 6) for value in self.values[frame].tolist()))
            else:
                yield (*head, *[None] * (len(_COLUMNS) - len(head)))

    def write_csv(self, path: Path) -> None:
        """Write the table as CSV, atomically."""
        write_csv(path, self.rows())

    @classmethod
    def read_csv(cls, path: Path) -> Movements:
        """Read a table that `write_csv` wrote; values are rounded to 6 digits, and the last two fields are not in it.

        Raises:
            PainseqError: it is another table.
        """
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != _COLUMNS:
            raise PainseqError(f"{path} is no table of movements: its columns are not frame, timestamp_s, success, ...")
        numbers = np.array([[float(cell or "nan") for cell in row] for row in rows]).reshape(-1, len(_COLUMNS))
        _, times_s, success, *_ = numbers.T
        boxes, values = numbers[:, 3:7].astype(np.float32), numbers[:, 7:].astype(np.float32)
        return cls(times_s, success == 1, boxes, values)

    def to_dict(self) -> dict[str, list[object]]:
        """Return column name -> values of all frames, None without a face; plain values for JSON."""
        header, *rows = self.rows()
        return {str(name): list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}

    def to_pandas(self) -> pandas.DataFrame:
        """Return the table as a pandas data frame; cells of a frame without a face are NaN.

        Raises:
            PainseqError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise PainseqError("to_pandas needs pandas: pip install pandas. Or use write_csv, to_dict.") from error
        header, *rows = self.rows()
        return pandas.DataFrame(rows, columns=list(map(str, header)))


def movements(
    video: str | Path,
    locator: FaceMesh | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    image_fps: float | None = None,
) -> Movements:
    """Compute the facial movements of a video.

    The face found first (the largest, if there are several) is followed. People differ at rest: compare a person's
    values with their own at rest, not with another person's. The values are not action units; no PSPI can be computed
    from them (docs/movements.md).

    Args:
        video: the file, or a folder of images.
        locator: finds the points; None: `FaceMesh()`, which downloads its models once (4 MB).
        start_s: start of the span, in seconds from the first frame.
        end_s: end of the span, exclusive; None: the end of the video.
        image_fps: images per second, if the video is a folder of images.

    Raises:
        PainseqError: the video cannot be read, or the models are not available.

    Example:
        >>> table = painseq.movements("video.mp4")
        >>> table["eyeBlinkLeft"].mean(), table.success.mean()
    """
    mesh = FaceMesh() if locator is None else locator
    return joined([part for _, _, part in movement_parts(Path(video), mesh, start_s, end_s, image_fps)])


def movement_parts(
    video: Path, mesh: FaceMesh, start_s: float = 0.0, end_s: float | None = None, image_fps: float | None = None
) -> Iterator[tuple[list[NDArray[np.uint8]], NDArray[np.float32], Movements]]:
    """Yield a few frames at a time: the pictures, the points (n, 478, 3) and the movements.

    Args and errors: see `movements`. Memory does not grow with the length of the video.
    """
    faces = FaceCrops(mesh, smooth_s=0, max_gap_s=0)
    for images, track in faces.frames(video, start_s, end_s, image_fps):
        points = np.full((len(track), 478, 3), np.nan, np.float32) if track.landmarks is None else track.landmarks
        values = mesh.bundle.movements(points)
        found = Movements(track.times_s, track.present, track.boxes, values, track.switched_s, track.most_faces)
        yield images, points, found


def joined(parts: list[Movements]) -> Movements:
    """Concatenate the movements of consecutive frames, at least one part."""
    return Movements(
        np.concatenate([part.times_s for part in parts]),
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.values for part in parts]),
        tuple(time_s for part in parts for time_s in part.switched_s),
        max(part.most_faces for part in parts),
    )
