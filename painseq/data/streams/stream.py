"""`Stream`, the base class, and functions that concatenate the rows of several streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.clip_rows import ClipRows
from painseq.records import Clip
from painseq.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from painseq.features import ClipFeatures, FeatureStore, NpzFolder


S = TypeVar("S", bound="Stream")


class Stream(ABC):
    """One input of a head: a row of numbers for each frame of a clip.

    To add a stream, write a class with `name`, `columns`, `identity`, `of` and `mirror`, export it in
    `painseq.data.streams`, and add it to the contract test. In YAML a stream is listed by its class path.
    Models read videos without torch too, so torch is imported where it is used.
    """

    name: str
    """Name in configurations, records and messages; unique in a list of streams."""
    can_mirror: ClassVar[bool] = True
    """Whether `mirror` is supported."""
    needs_landmarks: ClassVar[bool] = False
    """Whether `of` reads the landmarks of the main store, which are large for a face mesh."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Column names of a row, in order.

        Raises:
            PainseqError: they are not known before a store is known; see `seen`.
        """

    @property
    def width(self) -> int:
        """Number of columns.

        Raises:
            PainseqError: see `columns`.
        """
        return len(self.columns)

    @property
    @abstractmethod
    def identity(self) -> Spec:
        """Plain data that define the rows, together with the name; a model fitted with another identity is refused."""

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Subjects that the source of the rows was trained on, as "data set/subject".

        The extractor of the data's main store is recorded separately.
        """
        return ()

    @property
    def people_known(self) -> bool:
        """Whether `trained_on` names everybody."""
        return True

    def seen(self, store: FeatureStore | NpzFolder | None) -> Stream:
        """Return this stream for frames of `store` (None: of videos), with its width if the store defines it.

        Raises:
            PainseqError: the store does not have this stream.
        """
        return self

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:  # noqa: B027
        """Check that the stream has the rows of each of these clips; report all problems at once.

        Args:
            clips: readable clips.
            root: folder of the clips' videos.
            store: store of their frames; None if the videos are read.

        Raises:
            PainseqError: rows are missing.
        """

    @abstractmethod
    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """Return the rows of a clip, or of some of its frames.

        Args:
            stored: T frames of the data's main store, or of the video.
            clip: the clip.
            root: folder of the clip's video.

        Returns:
            (T, width) float; rows of frames without a face are ignored.

        Raises:
            PainseqError: the clip has no rows; names the clip, or its file.
        """

    @abstractmethod
    def mirror(self, rows: Tensor) -> Tensor:
        """Return what `of` would give for mirrored crops, (T, width).

        Raises:
            PainseqError: not supported by this stream.
        """


class VideoStream(Stream):
    """A stream that a single video has too: its rows are computed in numpy."""

    @abstractmethod
    def rows(self, frames: ClipRows, clip: Clip, root: Path) -> NDArray[Any]:
        """Return the rows of a clip, or of some of its frames, (T, *F); see `Stream.of`."""

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """See `Stream.of`."""
        import torch

        return torch.from_numpy(self.rows(arrays_of(stored), clip, root))


def arrays_of(stored: ClipFeatures) -> ClipRows:
    """Return the frames of a clip as arrays that share their memory."""
    landmarks = None if stored.landmarks is None else stored.landmarks.numpy()
    features, present, times_s = stored.features.numpy(), stored.present.numpy(), stored.times_s.numpy()
    return ClipRows(features, present, times_s, landmarks, stored.backend, stored.switched_s)


def rows_of(streams: Sequence[Stream], stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
    """Return the rows of a clip, all streams concatenated.

    Returns:
        The rows of a single stream unchanged, (T, *F); of several streams float32 (T, sum of the widths).

    Raises:
        PainseqError: see `Stream.of`.
    """
    import torch

    parts = [stream.of(stored, clip, root) for stream in streams]
    return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=-1)


def stored_frames(
    streams: Sequence[Stream], store: FeatureStore | NpzFolder, clip_id: str, first: int = 0, last: int | None = None
) -> ClipFeatures:
    """Read the frames `first` to `last` (exclusive) of a clip, with landmarks only if a stream needs them."""
    return store.frames(clip_id, first, last, any(stream.needs_landmarks for stream in streams))


def rows_of_video(
    streams: Sequence[VideoStream], frames: ClipRows, video: Path, start_s: float = 0.0, image_fps: float | None = None
) -> NDArray[Any]:
    """Return the rows of a span of a single video that is not part of a data set, as an array; see `rows_of`.

    Args:
        start_s: start of the span, in seconds.
        image_fps: images per second, if the video is a folder of images.
    """
    clip = lone_clip(video, start_s, image_fps)
    parts = [stream.rows(frames, clip, Path()) for stream in streams]
    return parts[0] if len(parts) == 1 else np.concatenate([part.astype(np.float32) for part in parts], axis=-1)


def lone_clip(video: Path, start_s: float = 0.0, image_fps: float | None = None) -> Clip:
    """Make a clip of a span of a single video, with its path relative to the working directory."""
    return Clip(video.as_posix(), "unknown", video.as_posix(), start_s=start_s, fps=image_fps)


def beside_cnn(streams: Sequence[S]) -> tuple[S, ...]:
    """Return the streams other than `cnn`, whose rows do not depend on an extractor."""
    return tuple(stream for stream in streams if stream.name != "cnn")


def mirrored(streams: Sequence[Stream], rows: Tensor) -> Tensor:
    """Convert rows, (T, sum of the widths), to those of mirrored crops.

    Raises:
        PainseqError: see `Stream.mirror`.
    """
    import torch

    parts = torch.split_with_sizes(rows, [stream.width for stream in streams], dim=-1)
    return torch.cat([stream.mirror(part) for stream, part in zip(streams, parts, strict=True)], dim=-1)
