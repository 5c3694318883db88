"""Tables of action units by OpenFace 2, py-feat and LibreFace: read, aligned with frames, summed up as PSPI."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces.openface import nearest_rows
from painseq.faces.pspi import pspi
from painseq.tables import number, read_table, shown

Tool = Literal["OpenFace", "py-feat", "LibreFace"]
Kind = Literal["intensity", "presence", "probability"]
HIGHEST_INTENSITY = 5.0
_KINDS: tuple[Kind, ...] = ("intensity", "presence", "probability")
_UNIT_NAMES: dict[Tool, str] = {
    "OpenFace": r"AU(?P<unit>\d\d)_(?P<kind>[rc])",
    "py-feat": r"AU(?P<unit>\d\d)",
    "LibreFace": r"au_(?P<unit>\d+)(?P<kind>_intensity)?",
}
_KIND_NAMES: dict[Tool, dict[str | None, Kind]] = {
    "OpenFace": {"r": "intensity", "c": "presence"},
    "py-feat": {None: "probability"},
    "LibreFace": {"_intensity": "intensity", None: "presence"},
}
_NEEDED: dict[Tool, tuple[str, ...]] = {
    "OpenFace": ("frame", "timestamp", "success"),
    "py-feat": ("frame",),
    "LibreFace": ("frame_time_in_ms",),
}
TIME_COLUMNS = ("frame", "timestamp", "success", "frame_time_in_ms")
"""Columns of frames and times in the tables of all tools."""
# Columns of the face's box, as far as a tool writes it.
_PLACES: dict[Tool, tuple[str, ...]] = {
    "OpenFace": tuple(f"{axis}_{point}" for axis in "xy" for point in range(68)),
    "py-feat": ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"),
    "LibreFace": (),
}
# Some tables have time stamps one millisecond apart, since OpenFace misread the frame rate.
_SHORTEST_INTERVAL_S = 1 / 500
# LibreFace's seconds are in a column of milliseconds; should that change, frames would be more than a second apart.
_LONGEST_INTERVAL_S = 1.0


@dataclass(frozen=True)
class UnitColumn:
    """A column of a table.

    Args:
        name: as in the table.
        unit: number of the action unit.
        kind: "intensity" 0 to 5, "presence" 0 or 1, or "probability" 0 to 1.
    """

    name: str
    unit: int
    kind: Kind

    @property
    def highest(self) -> float:
        """The highest value."""
        return HIGHEST_INTENSITY if self.kind == "intensity" else 1.0

    @property
    def scaled_name(self) -> str:
        """Name of the column divided by its highest value, such as "AU01_r / 5"."""
        return self.name if self.highest == 1 else f"{self.name} / {self.highest:g}"


@dataclass(frozen=True)
class ActionUnits:
    """The action units of one video, one row per frame and face; NaN where no face was found.

    Args:
        table: the CSV file.
        tool: the program that wrote it.
        columns: C columns: intensities first, then by unit.
        times_s: (N,) seconds since the video's first frame; increasing, but for several faces in a frame.
        values: (N, C).
        interval_s: time between rows.
        centres: (N, 2) centre of each face, in pixels; None if the table has none.
    """

    table: Path
    tool: Tool
    columns: tuple[UnitColumn, ...]
    times_s: NDArray[np.float64]
    values: NDArray[np.float64]
    interval_s: float
    centres: NDArray[np.float64] | None = None

    @property
    def several_faces(self) -> bool:
        """Whether a frame has more than one row."""
        return bool((np.diff(self.times_s) <= 0).any())

    def only(self, columns: Sequence[UnitColumn]) -> ActionUnits:
        """Return some of the columns.

        Raises:
            PainseqError: the table has not all of them; names them.
        """
        missing = [column.name for column in columns if column not in self.columns]
        if missing:
            raise PainseqError(f"{self.table} lacks {shown(missing)}, which the model takes. Run {self.tool} for them.")
        chosen = [self.columns.index(column) for column in columns]
        return replace(self, columns=tuple(columns), values=self.values[:, chosen])

    def of_face(self, times_s: NDArray[np.float64], centres: NDArray[np.float64] | None) -> ActionUnits:
        """Return one row per frame: that of the face nearest to a followed one.

        Args:
            times_s: (T,) times at which the followed face is known.
            centres: (T, 2) its centre, in pixels; NaN where there is no face. None if it is not known.

        Raises:
            PainseqError: there are several faces, and the table or the track does not say where they are.
        """
        if not self.several_faces:
            return self
        if self.centres is None or centres is None:
            whose = "the table does not say where they are" if self.centres is None else "the face track is not known"
            raise PainseqError(
                f"{self.table} has several faces in a frame (at {self._first_shared():.3f} s), and {whose}. Keep the "
                "rows of one face; or extract with a locator that gives landmarks (FaceAlignment, Sidecar), so that "
                "the face that is followed can be chosen."
            )
        known_s, group_of = np.unique(self.times_s, return_inverse=True)
        rows, near = nearest_rows(times_s, known_s, 2 * self.interval_s)
        followed = np.where(near[:, None], centres[rows], np.nan)[group_of]
        apart = np.nan_to_num(np.linalg.norm(self.centres - followed, axis=1), nan=np.inf)
        order = np.lexsort((apart, group_of))
        first = order[np.unique(group_of[order], return_index=True)[1]]
        # Where nobody is followed, no face is the right one.
        values = np.where(np.isfinite(apart[first])[:, None], self.values[first], np.nan)
        return replace(self, times_s=known_s, values=values, centres=self.centres[first])

    def _first_shared(self) -> float:
        return float(self.times_s[1:][np.diff(self.times_s) <= 0][0])

    def at(self, times_s: NDArray[np.float64]) -> ActionUnits:
        """Return the rows nearest to these times, which must not decrease; NaN where no row is within half a frame.

        Raises:
            PainseqError: the table is empty, has several faces in a frame, or another time; see `of_face`.
        """
        if self.several_faces:
            return self.of_face(times_s, None).at(times_s)
        if not len(self.times_s):
            raise PainseqError(f"{self.table} has no rows. Run {self.tool} on the video again.")
        first, last = self.times_s[[0, -1]]
        if len(times_s) and (times_s[0] > last + self.interval_s or times_s[-1] < first - self.interval_s):
            raise PainseqError(
                f"{self.table} covers {first:.3f} s to {last:.3f} s, but the clip's frames lie at {times_s[0]:.3f} s "
                f"to {times_s[-1]:.3f} s. Give the table of this video."
            )
        rows, near = nearest_rows(self.times_s, times_s, self.interval_s)
        return replace(self, times_s=times_s, values=np.where(near[:, None], self.values[rows], np.nan), centres=None)

    def rows(self) -> NDArray[np.float32]:
        """Return (N, C + 1) float32: the columns divided by their highest values, and 1; all zero without a face."""
        scaled = self.values / [column.highest for column in self.columns]
        rows = np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)
        return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0).astype(np.float32)

    def of(self, unit: int, kind: Kind) -> NDArray[np.float64] | None:
        """Return the values of a unit, (N,); None if the table has none of this kind."""
        of_kind = [place for place, column in enumerate(self.columns) if (column.unit, column.kind) == (unit, kind)]
        return self.values[:, of_kind[0]] if of_kind else None

    def pspi(self) -> NDArray[np.float64]:
        """Return (N,) pain intensity, see `painseq.faces.pspi`; NaN where no face was found.

        OpenFace has no AU43. The presence of AU45 replaces it, so each frame of a blink adds 1.

        Raises:
            PainseqError: a unit is missing, or of another kind; names them.
        """
        units = {unit: self.of(unit, "intensity") for unit in (4, 6, 7, 9, 10)}
        eyes = self.of(45 if self.tool == "OpenFace" else 43, "presence")
        problems = [self._other_kind(unit) for unit, values in units.items() if values is None]
        problems += [self._other_kind(45 if self.tool == "OpenFace" else 43)] if eyes is None else []
        if problems or eyes is None:
            raise PainseqError(
                f"{self.table}: PSPI needs AU4, AU6, AU7, AU9 and AU10 as intensities from 0 to 5, and AU43 as 0 or 1 "
                f"(of OpenFace: AU45_c). This table of {self.tool} has {', '.join(problems)}."
            )
        return pspi({43: eyes, **{unit: values for unit, values in units.items() if values is not None}})

    def _other_kind(self, unit: int) -> str:
        kinds = [column.kind for column in self.columns if column.unit == unit]
        return f"AU{unit} as {' and '.join(kinds)} only" if kinds else f"no AU{unit}"


def unit_columns(path: Path, header: Sequence[str]) -> tuple[Tool, tuple[UnitColumn, ...]]:
    """Recognise the tool and its columns of action units: intensities first, then by unit.

    Raises:
        PainseqError: not a table of a known tool; columns of the tool are missing.
    """
    for tool, pattern in _UNIT_NAMES.items():
        matches = [match for match in (re.fullmatch(pattern, name) for name in header) if match]
        found = [
            UnitColumn(match[0], int(match["unit"]), _KIND_NAMES[tool][match.groupdict().get("kind")])
            for match in matches
        ]
        if not found:
            continue
        missing = [name for name in _NEEDED[tool] if name not in header]
        if missing:
            raise PainseqError(
                f"{path} has action units as {tool} writes them ({found[0].name}), but no column {missing[0]!r}."
            )
        return tool, tuple(sorted(found, key=lambda column: (_KINDS.index(column.kind), column.unit)))
    raise PainseqError(
        f"{path} is not a table of action units by {', '.join(_UNIT_NAMES)}: it has no column of theirs. Columns "
        f"found: {shown(header)}."
    )


def read_action_units(
    path: Path, fps: float | None = None, frame_times_s: NDArray[np.float64] | None = None
) -> ActionUnits:
    """Read the table of one video by OpenFace 2, py-feat or LibreFace; which, its columns tell.

    Args:
        path: the CSV file.
        fps: frame rate of a folder of images, which no tool knows: times are then counted in frames. None: use the
            table's times.
        frame_times_s: (F,) time of each frame of the video, in seconds, which py-feat's tables lack: they count frames.

    Raises:
        PainseqError: the file is missing or not a table with action units; several faces in a frame of a table that
            cannot say which; impossible times; values out of range.

    Example:
        >>> read_action_units(Path("clip.csv")).pspi()
    """
    if not path.is_file():
        raise PainseqError(f"No table of action units at {path}.")
    header, lines = read_table(path)
    tool, columns = unit_columns(path, header)
    extra = [name for name in (*_NEEDED[tool], "frame_idx") if name in header]
    places = [name for name in _PLACES[tool] if name in header]
    places = places if len(places) == len(_PLACES[tool]) else []
    cells = _numbers(path, header, lines, [*extra, *places, *(column.name for column in columns)])
    known = {name: cells[:, place] for place, name in enumerate(extra)}
    values = cells[:, len(extra) + len(places) :]
    found = np.isfinite(values).all(axis=1) & (known.get("success", np.ones(len(values))) > 0)
    values = np.where(found[:, None], values, np.nan)
    _check_range(path, tool, columns, values)
    times_s, interval_s = _times(path, tool, known, fps, frame_times_s)
    order = np.argsort(times_s, kind="stable") if tool == "py-feat" else np.arange(len(times_s))
    centres = _centres(tool, cells[:, len(extra) : len(extra) + len(places)]) if places else None
    return ActionUnits(
        path, tool, columns, times_s[order], values[order], interval_s, None if centres is None else centres[order]
    )


def _numbers(
    path: Path, header: Sequence[str], lines: Iterable[tuple[int, list[str]]], names: Sequence[str]
) -> NDArray[np.float64]:
    wanted = [header.index(name) for name in names]
    rows: list[list[float]] = []
    for line, cells in lines:
        if len(cells) != len(header):
            raise PainseqError(f"{path}, line {line}: it has {len(cells)} cells, but there are {len(header)} columns.")
        try:
            # An empty cell is a value that the tool could not estimate.
            rows.append([number(cells[place]) if cells[place].strip() else np.nan for place in wanted])
        except ValueError as error:
            raise PainseqError(f"{path}, line {line}: {error}.") from error
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(names))


def _check_range(path: Path, tool: Tool, columns: Sequence[UnitColumn], values: NDArray[np.float64]) -> None:
    for place, column in enumerate(columns):
        lowest, highest = np.nanmin(values[:, place], initial=0.0), np.nanmax(values[:, place], initial=0.0)
        if lowest < 0 or highest > column.highest:
            raise PainseqError(
                f"{path}: {column.name} is from {lowest:g} to {highest:g}, but {column.kind} by {tool} is from 0 to "
                f"{column.highest:g}. Run {tool} on the video again."
            )


def _times(
    path: Path,
    tool: Tool,
    known: dict[str, NDArray[np.float64]],
    fps: float | None,
    frame_times_s: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], float]:
    """Return the time of each row, and the time between frames."""
    if tool == "py-feat":
        return _times_of_frames(path, known["frame"], fps, frame_times_s)
    times_s = known["timestamp" if tool == "OpenFace" else "frame_time_in_ms"]
    counts = known.get("frame", known.get("frame_idx", np.arange(len(times_s))))
    if fps is not None:
        return (counts - (1 if tool == "OpenFace" else 0)) / fps, 1 / fps
    # Rows of one frame are several faces.
    is_next = np.diff(counts) != 0
    steps_s, frames = np.diff(times_s)[is_next], np.diff(counts)[is_next]
    interval_s = float(np.median(steps_s / frames)) if len(frames) else 0.0
    if tool == "LibreFace" and interval_s > _LONGEST_INTERVAL_S:
        times_s, steps_s, interval_s = times_s / 1000, steps_s / 1000, interval_s / 1000
    plausible = (steps_s > 0).all() and (frames > 0).all() and np.isfinite(times_s).all()
    if not plausible or (len(frames) and interval_s < _SHORTEST_INTERVAL_S):
        raise PainseqError(
            f"{path}: its time stamps are not plausible: frames {counts[0]:g} to {counts[-1]:g} are at "
            f"{times_s[0]:g} s to {times_s[-1]:g} s. {tool} probably misread the video's frame rate. Re-encode the "
            f"video with a constant frame rate (ffmpeg -r) and run {tool} again; a folder of images needs its fps in "
            "the manifest."
        )
    return times_s, interval_s


def _times_of_frames(
    path: Path, frame: NDArray[np.float64], fps: float | None, frame_times_s: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    if not (np.isfinite(frame) & (frame >= 0) & (frame == np.round(frame))).all():
        raise PainseqError(f"{path}: a row has no number of its frame. Run py-feat on the video again.")
    if fps is None and frame_times_s is None:
        raise PainseqError(
            f"{path}: py-feat's tables count frames and have no times, so the video must be there to read its frame "
            "times; or give fps in the manifest."
        )
    if fps is not None:
        times_s = frame / fps
    else:
        assert frame_times_s is not None
        if len(frame) and frame.max() >= len(frame_times_s):
            raise PainseqError(
                f"{path} has a frame {frame.max():.0f}, but the video has {len(frame_times_s)} frames. Give the table "
                "of this video."
            )
        times_s = frame_times_s[frame.astype(np.int64)]
    steps = np.diff(np.unique(times_s))
    return times_s, float(np.median(steps)) if len(steps) else 0.0


def _centres(tool: Tool, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2) the centres of the faces' boxes."""
    if tool == "py-feat":
        return places[:, :2] + places[:, 2:] / 2
    points = places.reshape(len(places), 2, -1)
    centres: NDArray[np.float64] = (points.min(axis=2) + points.max(axis=2)) / 2
    return centres
