"""The stream of action units: tables of OpenFace 2, py-feat or LibreFace, aligned with a clip's frames."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.clip_rows import ClipRows
from painseq.data.streams.stream import VideoStream, lone_clip
from painseq.errors import PainseqError
from painseq.faces.au_tables import TIME_COLUMNS, ActionUnits, Tool, UnitColumn, read_action_units, unit_columns
from painseq.records import Clip
from painseq.spec import Spec
from painseq.tables import read_header, shown
from painseq.video import bare_name, open_video

if TYPE_CHECKING:
    from torch import Tensor

    from painseq.features import FeatureStore, NpzFolder

__all__ = ["COLUMNS", "OPENFACE", "ActionUnitStream", "ActionUnits", "read_action_units", "table_of"]

log = logging.getLogger("painseq")

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
OPENFACE: tuple[UnitColumn, ...] = (
    *(UnitColumn(f"AU{unit:02d}_r", unit, "intensity") for unit in _INTENSITIES),
    *(UnitColumn(f"AU{unit:02d}_c", unit, "presence") for unit in (*_INTENSITIES[:-1], 28, 45)),
)
"""All columns of action units that OpenFace 2 writes."""
SEEN = "seen"
COLUMNS = (*(column.scaled_name for column in OPENFACE), SEEN)
"""Columns of the stream with all of OpenFace's units. `seen` is 1 where the tool found the face."""
_TOOL = "tool"
# A table and its video may end this much apart, in seconds and as a share: frame rates are rounded.
_APART_S, _APART_SHARE = 0.5, 0.05


def table_of(video: Path) -> Path:
    """Return the path of a table next to its video: the video's name with .csv, as OpenFace writes it."""
    return video.with_name(f"{bare_name(video)}.csv")


class ActionUnitStream(VideoStream):
    """Action units of the tables of one tool; each table is read once, on first use.

    The columns are those that all tables of a data set have (`for_tables`), or those of a model (`recorded`).

    Args:
        folder: folder with `<video's path without suffix>.csv`; None: each table is next to its video.
        table: the table of a single video.
        tool: the program that wrote the tables.
        units: columns of the tables that are taken.
    """

    name = "action_units"

    def __init__(
        self,
        folder: Path | None = None,
        table: Path | None = None,
        tool: Tool = "OpenFace",
        units: tuple[UnitColumn, ...] = OPENFACE,
    ) -> None:
        self.folder = folder
        self.table = table
        self.tool = tool
        self.units = units
        self._read: dict[Path, ActionUnits] = {}

    def __getstate__(self) -> dict[str, object]:
        # Other processes read the tables that they need: those of a whole data set take long to send.
        return {**self.__dict__, "_read": {}}

    @property
    def columns(self) -> tuple[str, ...]:
        """The units' columns, each with the value that it is divided by, and `seen`."""
        return (*(column.scaled_name for column in self.units), SEEN)

    @property
    def identity(self) -> Spec:
        """The tool and the columns, by name. OpenFace is not named: earlier models know no other tool."""
        tool: Spec = {} if self.tool == "OpenFace" else {_TOOL: self.tool}
        return {"columns": list(self.columns), **tool}

    def recorded(self, identity: Mapping[str, object]) -> ActionUnitStream:
        """Return this stream with the tool and the columns that a model was fitted with.

        Raises:
            PainseqError: the record was changed, or a later version wrote it.
        """
        names = identity.get("columns")
        bare = [str(name).partition(" / ")[0] for name in names] if isinstance(names, list) else []
        stream = copy.copy(self)
        # A model does not take a table's columns of time.
        stream.tool, stream.units = unit_columns(Path("The model"), [*bare, *TIME_COLUMNS])
        stream._read = {}
        if stream.identity != identity:
            raise PainseqError(
                f"This model was fitted with another stream {self.name!r} ({dict(identity)}) than this version of "
                f"painseq gives ({stream.identity}). Refit the model."
            )
        return stream

    def taken_as(self, identity: Mapping[str, object]) -> ActionUnitStream:
        """Return this stream, of tables that were looked at, with the columns that a model was fitted with.

        Raises:
            PainseqError: the tables are of another tool, or not all of them have these columns.
        """
        wanted = self.recorded(identity)
        if wanted.tool != self.tool:
            raise PainseqError(
                f"The tables of action units are of {self.tool}, but the model takes those of {wanted.tool}. Their "
                f"values differ: run {wanted.tool} on the videos."
            )
        missing = [column.name for column in wanted.units if column not in self.units]
        if missing:
            raise PainseqError(
                f"The model takes action units that not all tables have: {shown(missing)}. Run {self.tool} again, for "
                "them too."
            )
        return wanted

    def for_tables(self, clips: Iterable[Clip], root: Path) -> ActionUnitStream:
        """Return this stream with the columns that the tables of all these clips have; clips without one do not count.

        Raises:
            PainseqError: tables of several tools, or without a common column.
        """
        tables = sorted(path for path in {self.path(clip, root) for clip in clips} if path.is_file())
        if not tables:
            return self
        of_table = {path: unit_columns(path, read_header(path)) for path in tables}
        tools = {tool: path for path, (tool, _) in of_table.items()}
        if len(tools) > 1:
            named = " and ".join(f"{path} ({tool})" for tool, path in tools.items())
            raise PainseqError(
                f"The tables of action units are of several tools, such as {named}. Their values differ: use one tool."
            )
        stream = copy.copy(self)
        stream.tool, first = of_table[tables[0]]
        stream.units = tuple(column for column in first if all(column in units for _, units in of_table.values()))
        stream._read = {}
        if not stream.units:
            raise PainseqError(f"The {len(tables)} tables of action units have no column in common.")
        log.info("Action units of %s: %d columns, in all of %d tables.", stream.tool, len(stream.units), len(tables))
        return stream

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
                f"{len(missing)} of {len(tables)} videos have no table of action units; that of {video} should be "
                f"{table}. Run {self.tool} on each video (OpenFace: FeatureExtraction), and put its CSV there or give "
                "its path (--action-units FILE; for a data set --data.options.action_units FOLDER, see "
                "docs/action_units.md), or leave action_units out of streams."
            )

    def rows(self, frames: ClipRows, clip: Clip, root: Path) -> NDArray[np.float32]:
        """Return (T, width) float32; see `ActionUnits.rows`.

        Raises:
            PainseqError: the table is missing, cannot be read, is of another tool, lacks columns, has several faces
                and the store no landmarks, or covers another time.
        """
        whole = self._whole(clip, root)
        times_s = clip.start_s + frames.times_s
        units = whole.of_face(times_s, _centres(frames)) if whole.several_faces else whole
        rows = units.at(times_s).rows()
        # LibreFace leaves out frames without a face.
        if len(times_s) and self.tool != "LibreFace" and _is_shorter(whole.times_s[-1], times_s[-1]):
            raise PainseqError(
                f"{whole.table} ends at {whole.times_s[-1]:.2f} s, but the clip goes on to {times_s[-1]:.2f} s. Give "
                f"the table of this video, or run {self.tool} on it again."
            )
        return rows

    def check_length(self, video: Path) -> None:
        """Check that the table of a single video does not go on after its end.

        Raises:
            PainseqError: it does, or one of them cannot be read.
        """
        if not video.is_file():
            return
        with open_video(video) as opened:
            end_s = opened.duration_s
        whole = self._whole(lone_clip(video), Path())
        if len(whole.times_s) and _is_shorter(end_s, whole.times_s[-1]):
            raise PainseqError(
                f"{whole.table} goes on to {whole.times_s[-1]:.2f} s, but {video} ends at {end_s:.2f} s. Give the "
                "table of this video."
            )

    def _whole(self, clip: Clip, root: Path) -> ActionUnits:
        path = self.path(clip, root)
        if path not in self._read:
            self._read[path] = self._read_table(path, clip, root / clip.video)
        return self._read[path]

    def _read_table(self, path: Path, clip: Clip, video: Path) -> ActionUnits:
        tool, _ = unit_columns(path, read_header(path)) if path.is_file() else (self.tool, ())
        if tool != self.tool:
            raise PainseqError(
                f"{path} is a table of {tool}, but the model takes action units of {self.tool}. Their values differ: "
                f"run {self.tool} on the video."
            )
        return units_of_video(path, video, clip.fps).only(self.units)

    def mirror(self, rows: Tensor) -> Tensor:
        """Return the rows unchanged: the tools' action units do not distinguish left from right."""
        return rows


def units_of_video(path: Path, video: Path, fps: float | None) -> ActionUnits:
    """Read the table of a video's action units, with the video's frame times if the table only counts frames.

    Args:
        path: the table.
        video: the file, which need not be there, or a folder of images.
        fps: images per second of a folder; or frame rate of a video that is not there, if it is known.

    Raises:
        PainseqError: see `read_action_units`.
    """
    counts_frames = path.is_file() and unit_columns(path, read_header(path))[0] == "py-feat"
    if counts_frames and video.is_file():
        with open_video(video) as opened:
            return read_action_units(path, frame_times_s=opened.times_s)
    return read_action_units(path, fps if counts_frames or video.is_dir() else None)


def _is_shorter(end_s: float, last_s: float) -> bool:
    return bool(end_s < last_s - max(_APART_S, _APART_SHARE * last_s))


def _centres(frames: ClipRows) -> NDArray[np.float64] | None:
    """Return (T, 2) centres of the followed face, NaN without a face; None if there are no landmarks."""
    if frames.landmarks is None:
        return None
    points = frames.landmarks.astype(np.float64)
    centres: NDArray[np.float64] = (points.min(axis=1) + points.max(axis=1)) / 2
    return centres
