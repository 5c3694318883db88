"""Action units of OpenFace 2: read tables, align them with a clip's frames, and compute PSPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.data.streams.stream import Stream
from painseq.errors import PainseqError
from painseq.faces.openface import nearest_rows, read_openface
from painseq.faces.pspi import pspi
from painseq.features import ClipFeatures, FeatureStore, NpzFolder
from painseq.records import Clip
from painseq.spec import Spec
from painseq.video import bare_name

INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
"""Action units whose intensity OpenFace estimates, 0 to 5."""
PRESENCES = (*INTENSITIES[:-1], 28, 45)
"""Action units whose presence OpenFace estimates, 0 or 1."""
FULL_INTENSITY = 5.0
COLUMNS = (
    *(f"AU{unit:02d}_r / {FULL_INTENSITY:g}" for unit in INTENSITIES),
    *(f"AU{unit:02d}_c" for unit in PRESENCES),
    "seen",
)
"""Columns of the stream. `seen` is 1 where OpenFace found the face."""
# Some tables have time stamps one millisecond apart, since OpenFace misread the frame rate.
_SHORTEST_INTERVAL_S = 1 / 500


@dataclass(frozen=True)
class ActionUnits:
    """The action units of one video, one row per frame, NaN where OpenFace found no face.

    Args:
        table: the CSV file.
        times_s: (N,) seconds since the video's first frame, increasing.
        intensity: (N, len(INTENSITIES)), 0 to 5.
        presence: (N, len(PRESENCES)), 0 or 1.
        interval_s: time between frames.
    """

    table: Path
    times_s: NDArray[np.float64]
    intensity: NDArray[np.float64]
    presence: NDArray[np.float64]
    interval_s: float

    def at(self, times_s: NDArray[np.float64]) -> ActionUnits:
        """Return the rows nearest to these times, which must not decrease; NaN where no row is within half a frame.

        Raises:
            PainseqError: the table is empty, or all times lie before or after the table's.
        """
        if not len(self.times_s):
            raise PainseqError(f"{self.table} has no rows. Run OpenFace on the video again.")
        first, last = self.times_s[[0, -1]]
        if len(times_s) and (times_s[0] > last + self.interval_s or times_s[-1] < first - self.interval_s):
            raise PainseqError(
                f"{self.table} covers {first:.3f} s to {last:.3f} s, but the clip's frames lie at {times_s[0]:.3f} s "
                f"to {times_s[-1]:.3f} s. Give the table of this video."
            )
        rows, near = nearest_rows(self.times_s, times_s, self.interval_s)
        intensity = np.where(near[:, None], self.intensity[rows], np.nan)
        presence = np.where(near[:, None], self.presence[rows], np.nan)
        return replace(self, times_s=times_s, intensity=intensity, presence=presence)

    def stream(self) -> Tensor:
        """Return the stream's rows, (N, len(COLUMNS)) float32; all zero where no face was found."""
        parts = [self.intensity / FULL_INTENSITY, self.presence, np.ones((len(self.times_s), 1))]
        rows = np.concatenate(parts, axis=1)
        seen = np.isfinite(rows).all(axis=1, keepdims=True)
        return torch.from_numpy(np.where(seen, rows, 0.0).astype(np.float32))

    def pspi(self) -> NDArray[np.float64]:
        """Return (N,) pain intensity, see `painseq.faces.pspi`; NaN where no face was found.

        OpenFace has no AU43. The presence of AU45 replaces it, so each frame of a blink adds 1.
        """
        units = {unit: self.intensity[:, column] for column, unit in enumerate(INTENSITIES)}
        return pspi({**units, 43: self.presence[:, PRESENCES.index(45)]})


def read_action_units(path: Path, fps: float | None = None) -> ActionUnits:
    """Read OpenFace 2's table of one video with one face.

    Args:
        path: the CSV file.
        fps: frame rate of a folder of images, which OpenFace does not know: row n then has the time (n - 1) / fps.
            None: use the table's time stamps.

    Raises:
        PainseqError: the file is missing or not an OpenFace table with action units, it has several faces in a frame,
            impossible time stamps, or values outside OpenFace's range.
    """
    if not path.is_file():
        raise PainseqError(f"No OpenFace table at {path}.")
    names = ["frame", "timestamp", "success"]
    names += [f"AU{unit:02d}_r" for unit in INTENSITIES] + [f"AU{unit:02d}_c" for unit in PRESENCES]
    table = read_openface(path, names)
    frame, stamp, success = table[:, 0], table[:, 1], table[:, 2]
    if not (np.diff(frame) > 0).all():
        raise PainseqError(
            f"{path}: its frame numbers do not increase ({_first_decrease(frame)}). A table of several faces a frame "
            "does not say whose action units these are; run OpenFace's FeatureExtraction, which tracks one face."
        )
    times_s = stamp if fps is None else (frame - 1) / fps
    interval_s = 0.0 if fps is None else 1 / fps
    if fps is None and len(times_s) > 1:
        interval_s = float(np.median(np.diff(times_s) / np.diff(frame)))
        if interval_s < _SHORTEST_INTERVAL_S or not (np.diff(times_s) > 0).all():
            raise PainseqError(
                f"{path}: its time stamps are not plausible: frames {frame[0]:g} to {frame[-1]:g} are at "
                f"{times_s[0]:g} s to {times_s[-1]:g} s. OpenFace probably misread the video's frame rate. Re-encode "
                "the video with a constant frame rate (ffmpeg -r) and run OpenFace again; a folder of images needs its "
                "fps in the manifest."
            )
    units = table[:, 3:]
    units = np.where((success > 0)[:, None] & np.isfinite(units).all(axis=1, keepdims=True), units, np.nan)
    intensity, presence = units[:, : len(INTENSITIES)], units[:, len(INTENSITIES) :]
    for columns, values, highest in (("AU*_r", intensity, FULL_INTENSITY), ("AU*_c", presence, 1.0)):
        if ((values < 0) | (values > highest)).any():
            raise PainseqError(
                f"{path}: {columns} must lie within 0 to {highest:g}, but lie within {np.nanmin(values):g} to "
                f"{np.nanmax(values):g}. Run OpenFace on the video again."
            )
    return ActionUnits(path, times_s, intensity, presence, interval_s)


def _first_decrease(frame: NDArray[np.float64]) -> str:
    row = int(np.argmin(np.diff(frame) > 0))
    return f"{frame[row]:g}, then {frame[row + 1]:g}"


def table_of(video: Path) -> Path:
    """Return the path of a table next to its video: the video's name with .csv, as OpenFace writes it."""
    return video.with_name(f"{bare_name(video)}.csv")


class ActionUnitStream(Stream):
    """Action units of OpenFace's tables; each table is read once, on first use.

    Args:
        folder: folder with `<video's path without suffix>.csv`; None: each table is next to its video.
        table: the table of a single video.
    """

    name = "action_units"

    def __init__(self, folder: Path | None = None, table: Path | None = None) -> None:
        self.folder = folder
        self.table = table
        self._read: dict[Path, ActionUnits] = {}

    def __getstate__(self) -> dict[str, object]:
        # Other processes read the tables that they need: those of a whole data set take long to send.
        return {**self.__dict__, "_read": {}}

    @property
    def columns(self) -> tuple[str, ...]:
        """`COLUMNS`."""
        return COLUMNS

    @property
    def identity(self) -> Spec:
        """The columns, by name."""
        return {"columns": list(COLUMNS)}

    def path(self, clip: Clip, root: Path) -> Path:
        """Return the expected path of the table of a clip's video."""
        if self.table is not None:
            return self.table
        return table_of((root if self.folder is None else self.folder) / PurePosixPath(clip.video))

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:
        """Check that each of these clips has a table.

        Raises:
            PainseqError: tables are missing; names one.
        """
        tables = {clip.video: self.path(clip, root) for clip in clips}
        missing = [(video, table) for video, table in tables.items() if not table.is_file()]
        if missing:
            video, table = missing[0]
            raise PainseqError(
                f"{len(missing)} of {len(tables)} videos have no OpenFace table; that of {video} should be {table}. "
                "Run OpenFace's FeatureExtraction on each video, and put its CSV there or give its path "
                "(--action-units FILE; for a data set --data.options.action_units FOLDER, see docs/action_units.md), "
                "or leave action_units out of streams."
            )

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """Return (T, len(COLUMNS)) float32; see `ActionUnits.stream`.

        Raises:
            PainseqError: the table is missing, cannot be read, or covers another time.
        """
        path = self.path(clip, root)
        if path not in self._read:
            images = (root / clip.video).is_dir()
            self._read[path] = read_action_units(path, clip.fps if images else None)
        return self._read[path].at(clip.start_s + stored.times_s.numpy()).stream()

    def mirror(self, rows: Tensor) -> Tensor:
        """Return the rows unchanged: OpenFace's action units do not distinguish left from right."""
        return rows
