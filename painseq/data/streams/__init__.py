"""Streams: the inputs of a head for each frame, concatenated in the order of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from painseq.data.streams.action_units import ActionUnits, ActionUnitStream, read_action_units, table_of
from painseq.data.streams.clip_rows import ClipRows
from painseq.data.streams.cnn import CnnStream
from painseq.data.streams.landmarks import LandmarkStream
from painseq.data.streams.movements import MovementStream
from painseq.data.streams.stream import (
    Stream,
    VideoStream,
    arrays_of,
    beside_cnn,
    lone_clip,
    mirrored,
    rows_of,
    rows_of_video,
    stored_frames,
)
from painseq.errors import PainseqError
from painseq.faces import FaceMesh, Locator

if TYPE_CHECKING:
    from painseq.data.streams.store import StoreStream

__all__ = [
    "ActionUnitStream",
    "ActionUnits",
    "ClipRows",
    "CnnStream",
    "LandmarkStream",
    "MovementStream",
    "StoreStream",
    "Stream",
    "VideoStream",
    "arrays_of",
    "as_streams",
    "beside_cnn",
    "check_recorded",
    "mirrored",
    "read_action_units",
    "rows_of",
    "rows_of_video",
    "stored_frames",
    "table_of",
    "video_streams",
]

SHORT_NAMES: dict[str, type[VideoStream]] = {
    stream.name: stream for stream in (CnnStream, LandmarkStream, MovementStream, ActionUnitStream)
}
"""Streams that are listed by name, since they need no arguments; they can also be read from a video."""


def __getattr__(name: str) -> Any:
    """`StoreStream`, imported when it is first asked for: it needs torch."""
    if name == "StoreStream":
        from painseq.data.streams.store import StoreStream

        return StoreStream
    raise AttributeError(f"module 'painseq.data.streams' has no attribute {name!r}")


def as_streams(streams: Sequence[str | Stream], action_units: Path | None = None) -> tuple[Stream, ...]:
    """Convert a list of short names and streams to streams.

    Args:
        streams: short names, or streams.
        action_units: folder of tables for the stream `action_units`.

    Raises:
        PainseqError: an unknown or repeated name, or `cnn` not in the first place.
    """
    names = [stream if isinstance(stream, str) else stream.name for stream in streams]
    unknown = [stream for stream in streams if isinstance(stream, str) and stream not in SHORT_NAMES]
    if unknown or not names or len(set(names)) < len(names):
        raise PainseqError(
            f"streams is {names}; it must list each of {', '.join(SHORT_NAMES)} at most once, and streams of other "
            "classes each under a unique name."
        )
    if "cnn" in names[1:]:
        raise PainseqError(f"streams is {names}; cnn must come first.")
    built = tuple(_built(stream, action_units) if isinstance(stream, str) else stream for stream in streams)
    for stream in built:
        if not isinstance(stream, SHORT_NAMES.get(stream.name, Stream)):
            raise PainseqError(
                f"A {type(stream).__name__} has the name {stream.name!r}, which is reserved for another stream. Give "
                "it another name."
            )
    return built


def check_recorded(identities: Mapping[str, Mapping[str, object]]) -> None:
    """Check that the streams of a model, by name, are defined as when it was fitted.

    Raises:
        PainseqError: a stream is defined differently now.
    """
    for name, identity in identities.items():
        if name == "action_units":
            ActionUnitStream().recorded(identity)
            continue
        if name == "movements":  # Compared with the face mesh that is used; see `video_streams`.
            continue
        current = {"landmarks": LandmarkStream.recorded(identity), "cnn": CnnStream()}.get(name)
        if current is not None and current.identity != identity:
            raise PainseqError(
                f"This model was fitted with another stream {name!r} ({dict(identity)}) than this version of painseq "
                f"gives ({current.identity}). Refit the model."
            )


def video_streams(
    identities: Mapping[str, Mapping[str, object]],
    video: Path,
    table: Path | None = None,
    locator: Locator | None = None,
) -> tuple[VideoStream, ...]:
    """Return the streams of a single video that is not part of a data set.

    Args:
        identities: the model's streams: name -> identity.
        video: the video file.
        table: table of the video's action units; None: the CSV next to the video.
        locator: finds the face; the stream `movements` uses its bundle.

    Raises:
        PainseqError: a stream that cannot be read from a video; a table that is not needed, or a missing one.
    """
    if table is not None and "action_units" not in identities:
        raise PainseqError(
            f"This model was fitted without action units (its streams: {', '.join(identities)}). Leave the table out."
        )
    others = [name for name in identities if name not in SHORT_NAMES]
    if others:
        raise PainseqError(
            f"This model takes the stream {others[0]!r}, which comes from a feature store and not from a video, so it "
            "cannot read videos. Evaluate it on the features of a data set, with that store."
        )
    given: dict[str, VideoStream] = {}
    if "action_units" in identities:
        given["action_units"] = ActionUnitStream(table=table).recorded(identities["action_units"])
    if "landmarks" in identities:
        given["landmarks"] = LandmarkStream.recorded(identities["landmarks"])
    if "movements" in identities:
        mesh = MovementStream(locator.model if isinstance(locator, FaceMesh) else None)
        mesh.check_recorded(identities["movements"])
        given["movements"] = mesh
    streams = tuple(given.get(name) or SHORT_NAMES[name]() for name in identities)
    for stream in streams:
        stream.check((lone_clip(video),), Path(), None)
        if isinstance(stream, ActionUnitStream):
            stream.check_length(video)
    return streams


def _built(name: str, action_units: Path | None) -> Stream:
    return ActionUnitStream(action_units) if name == "action_units" else SHORT_NAMES[name]()
