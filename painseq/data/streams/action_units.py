"""Action units as OpenFace 2 estimates them: read, aligned with a clip's frames, and summed up as PSPI."""

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
"""Action units of which OpenFace estimates the intensity, 0 to 5."""
PRESENCES = (*INTENSITIES[:-1], 28, 45)
"""Action units of which it says whether they are there."""
FULL_INTENSITY = 5.0
COLUMNS = (
    *(f"AU{unit:02d}_r / {FULL_INTENSITY:g}" for unit in INTENSITIES),
    *(f"AU{unit:02d}_c" for unit in PRESENCES),
    "seen",
)
"""What the stream holds, in order. `seen` is 1 where OpenFace found the face."""
# Tables are found whose clock runs at a millisecond a frame, which no video of a face does.
_SHORTEST_INTERVAL_S = 1 / 500


@dataclass(frozen=True)
class ActionUnits:
    """The action units of one video, a row a frame, NaN where OpenFace found no face.

    Args:
        table: the file.
        times_s: (N,) seconds since the video's first frame, increasing.
        intensity: (N, len(INTENSITIES)), 0 to 5.
        presence: (N, len(PRESENCES)), 0 or 1.
        interval_s: from frame to frame.
    """

    table: Path
    times_s: NDArray[np.float64]
    intensity: NDArray[np.float64]
    presence: NDArray[np.float64]
    interval_s: float

    def at(self, times_s: NDArray[np.float64]) -> ActionUnits:
        """The rows nearest to these moments, which do not decrease; NaN for one without a row within half a frame.

        Raises:
            PainseqError: all of the moments lie before or behind the table's.
        """
        if not len(self.times_s):
            raise PainseqError(f"{self.table} has no rows.")
        first, last = self.times_s[[0, -1]]
        if len(times_s) and (times_s[0] > last + self.interval_s or times_s[-1] < first - self.interval_s):
            raise PainseqError(
                f"{self.table} tells of {first:.3f} s to {last:.3f} s, and the clip's frames lie at {times_s[0]:.3f} s "
                f"to {times_s[-1]:.3f} s. It is not the table of this video."
            )
        rows, near = nearest_rows(self.times_s, times_s, self.interval_s)
        intensity = np.where(near[:, None], self.intensity[rows], np.nan)
        presence = np.where(near[:, None], self.presence[rows], np.nan)
        return replace(self, times_s=times_s, intensity=intensity, presence=presence)

    def stream(self) -> Tensor:
        """What a head is given of each frame, (N, len(COLUMNS)) float32; all zero where no face was found."""
        parts = [self.intensity / FULL_INTENSITY, self.presence, np.ones((len(self.times_s), 1))]
        rows = np.concatenate(parts, axis=1)
        seen = np.isfinite(rows).all(axis=1, keepdims=True)
        return torch.from_numpy(np.where(seen, rows, 0.0).astype(np.float32))

    def pspi(self) -> NDArray[np.float64]:
        """(N,) pain intensity by `pspi`, NaN where no face was found.

        OpenFace has no AU43. AU45 takes its place, as present or not, so a blink counts 1 while it lasts.
        """
        units = {unit: self.intensity[:, column] for column, unit in enumerate(INTENSITIES)}
        return pspi({**units, 43: self.presence[:, PRESENCES.index(45)]})


def read_action_units(path: Path, fps: float | None = None) -> ActionUnits:
    """Read OpenFace 2's table of one video with one face.

    Args:
        fps: frame rate of a folder of images, which OpenFace does not know: row n then stands at (n - 1) / fps. None:
            the table's time stamps count.

    Raises:
        PainseqError: no such file, no OpenFace table with action units, several faces in a frame, time stamps that are
            no video's, values outside of OpenFace's range.
    """
    if not path.is_file():
        raise PainseqError(f"No OpenFace table at {path}.")
    names = ["frame", "timestamp", "success"]
    names += [f"AU{unit:02d}_r" for unit in INTENSITIES] + [f"AU{unit:02d}_c" for unit in PRESENCES]
    values = read_openface(path, names)
    frame, stamp, success = values[:, 0], values[:, 1], values[:, 2]
    if not (np.diff(frame) > 0).all():
        raise PainseqError(
            f"{path}: its frame numbers do not increase ({_first_fall(frame)}). A table of several faces a frame does "
            "not tell whose action units these are; run OpenFace's FeatureExtraction, which follows one face."
        )
    times_s = stamp if fps is None else (frame - 1) / fps
    interval_s = 0.0 if fps is None else 1 / fps
    if fps is None and len(times_s) > 1:
        interval_s = float(np.median(np.diff(times_s) / np.diff(frame)))
        if interval_s < _SHORTEST_INTERVAL_S or not (np.diff(times_s) > 0).all():
            raise PainseqError(
                f"{path}: its time stamps are no video's: frames {frame[0]:g} to {frame[-1]:g} stand at "
                f"{times_s[0]:g} s to {times_s[-1]:g} s. OpenFace probably did not understand the video's rate. Give "
                "the video a constant one (ffmpeg -r) and run OpenFace again; a folder of images needs its fps in the "
                "manifest."
            )
    units = values[:, 3:]
    units = np.where((success > 0)[:, None] & np.isfinite(units).all(axis=1, keepdims=True), units, np.nan)
    intensity, presence = units[:, : len(INTENSITIES)], units[:, len(INTENSITIES) :]
    for what, part, most in (("AU*_r", intensity, FULL_INTENSITY), ("AU*_c", presence, 1.0)):
        if ((part < 0) | (part > most)).any():
            raise PainseqError(
                f"{path}: a value of {what} lies outside 0 to {most:g}: {np.nanmin(part):g} to {np.nanmax(part):g}."
            )
    return ActionUnits(path, times_s, intensity, presence, interval_s)


def _first_fall(frame: NDArray[np.float64]) -> str:
    row = int(np.argmin(np.diff(frame) > 0))
    return f"{frame[row]:g}, then {frame[row + 1]:g}"


def table_of(video: Path) -> Path:
    """Where a video's table lies if it lies beside it: under the video's name, as OpenFace calls it."""
    return video.with_name(f"{bare_name(video)}.csv")


class ActionUnitStream(Stream):
    """Action units of OpenFace's tables; each table is read once, when it is first asked for.

    Args:
        folder: holds `<video's path without suffix>.csv`; None: each table lies beside its video.
        table: the one table, for a single video.
    """

    name = "action_units"

    def __init__(self, folder: Path | None = None, table: Path | None = None) -> None:
        self.folder = folder
        self.table = table
        self._read: dict[Path, ActionUnits] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """`COLUMNS`."""
        return COLUMNS

    @property
    def identity(self) -> Spec:
        """The columns, by name."""
        return {"columns": list(COLUMNS)}

    def path(self, clip: Clip, root: Path) -> Path:
        """Where the table of a clip's video should lie."""
        if self.table is not None:
            return self.table
        return table_of((root if self.folder is None else self.folder) / PurePosixPath(clip.video))

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:
        """Raise a PainseqError unless each of these clips has a table."""
        places = {clip.video: self.path(clip, root) for clip in clips}
        absent = [(video, place) for video, place in places.items() if not place.is_file()]
        if absent:
            video, place = absent[0]
            raise PainseqError(
                f"{len(absent)} of {len(places)} videos have no OpenFace table; that of {video} should be {place}. Run "
                "OpenFace's FeatureExtraction on each video, and put its CSV there or name it (--action-units FILE; of "
                "a data set --data.options.action_units FOLDER, see docs/action_units.md), or leave action_units out "
                "of streams."
            )

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """(T, len(COLUMNS)) float32; see `ActionUnits.stream`.

        Raises:
            PainseqError: no table, one that cannot be read, or one that tells of another time.
        """
        path = self.path(clip, root)
        if path not in self._read:
            images = (root / clip.video).is_dir()
            self._read[path] = read_action_units(path, clip.fps if images else None)
        return self._read[path].at(clip.start_s + stored.times_s.numpy()).stream()

    def mirror(self, rows: Tensor) -> Tensor:
        """The same: OpenFace does not tell left from right."""
        return rows
