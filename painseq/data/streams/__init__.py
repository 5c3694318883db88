"""Streams: what a head is given of each frame, side by side, in the order in which the configuration lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from painseq.data.streams.action_units import ActionUnits, ActionUnitStream, read_action_units, table_of
from painseq.data.streams.cnn import CnnStream
from painseq.data.streams.landmarks import LandmarkStream
from painseq.data.streams.store import StoreStream
from painseq.data.streams.stream import Stream, beside_cnn, lone_clip, mirrored, rows_of, rows_of_video
from painseq.errors import PainseqError

__all__ = [
    "ActionUnitStream",
    "ActionUnits",
    "CnnStream",
    "LandmarkStream",
    "StoreStream",
    "Stream",
    "as_streams",
    "beside_cnn",
    "check_recorded",
    "mirrored",
    "read_action_units",
    "rows_of",
    "rows_of_video",
    "table_of",
    "video_streams",
]

SHORT_NAMES: dict[str, type[Stream]] = {stream.name: stream for stream in (CnnStream, LandmarkStream, ActionUnitStream)}
"""Streams that are listed by their name alone, as they need no argument; a video gives these too."""


def as_streams(streams: Sequence[str | Stream], action_units: Path | None = None) -> tuple[Stream, ...]:
    """The streams of a list of short names and streams.

    Args:
        action_units: folder of OpenFace's tables, for the stream of that name.

    Raises:
        PainseqError: an unknown name, one that comes twice, the CNN's stream behind another.
    """
    names = [stream if isinstance(stream, str) else stream.name for stream in streams]
    unknown = [stream for stream in streams if isinstance(stream, str) and stream not in SHORT_NAMES]
    if unknown or not names or len(set(names)) < len(names):
        raise PainseqError(
            f"streams is {names}; it lists each of {', '.join(SHORT_NAMES)} once at most, or streams of other classes, "
            "each under a name of its own."
        )
    if "cnn" in names[1:]:
        raise PainseqError(f"streams is {names}: cnn comes first, and the others stand behind its features.")
    built = tuple(_built(stream, action_units) if isinstance(stream, str) else stream for stream in streams)
    for stream in built:
        if not isinstance(stream, SHORT_NAMES.get(stream.name, Stream)):
            raise PainseqError(
                f"A {type(stream).__name__} is called {stream.name!r}, which is another stream's name. Give it another."
            )
    return built


def check_recorded(identities: Mapping[str, Mapping[str, object]]) -> None:
    """Raise a PainseqError unless the streams of a model, by name, mean today what they meant when it was fitted."""
    for name, identity in identities.items():
        now = SHORT_NAMES[name]().identity if name in SHORT_NAMES else identity
        if now != identity:
            raise PainseqError(
                f"This model was fitted with another stream {name!r} ({dict(identity)}) than this painseq gives "
                f"({now}). Fit it anew."
            )


def video_streams(names: Sequence[str], video: Path, table: Path | None = None) -> tuple[Stream, ...]:
    """The streams of a single video that belongs to no data set.

    Args:
        names: the streams of a model.
        table: OpenFace's table of the video; None: it lies beside the video.

    Raises:
        PainseqError: a stream that no video gives; a table that no stream needs, or that is needed and not there.
    """
    if table is not None and "action_units" not in names:
        raise PainseqError(
            f"This model was fitted without action units (its streams: {', '.join(names)}). Leave the OpenFace table "
            "out."
        )
    others = [name for name in names if name not in SHORT_NAMES]
    if others:
        raise PainseqError(
            f"This model takes the stream {others[0]!r}, which comes from a feature store and not from a video, so it "
            "cannot read videos. Score it on the features of a data set, with that store."
        )
    streams = tuple(ActionUnitStream(table=table) if name == "action_units" else SHORT_NAMES[name]() for name in names)
    for stream in streams:
        stream.check((lone_clip(video),), Path(), None)
    return streams


def _built(name: str, action_units: Path | None) -> Stream:
    return ActionUnitStream(action_units) if name == "action_units" else SHORT_NAMES[name]()
