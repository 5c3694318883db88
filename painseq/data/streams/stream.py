"""What a stream is, and rows of several streams side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from painseq.features import ClipFeatures, FeatureStore, NpzFolder
from painseq.records import Clip
from painseq.spec import Spec


class Stream(ABC):
    """Numbers of each frame of a clip: a part of what a head is given.

    To add one, write a class with `name`, `columns`, `identity`, `of` and `mirror`, export it in
    `painseq.data.streams`, and add it to the contract test. In YAML a stream is listed by its class path.
    """

    name: str
    """In configurations, records and messages; unique in a list of streams."""
    can_mirror: ClassVar[bool] = True
    """Whether `mirror` knows what mirrored crops would give."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of a frame, in order.

        Raises:
            PainseqError: they are not known before data are seen; see `seen`.
        """

    @property
    def width(self) -> int:
        """Numbers of a frame.

        Raises:
            PainseqError: see `columns`.
        """
        return len(self.columns)

    @property
    @abstractmethod
    def identity(self) -> Spec:
        """Plain data that decide, beside the name, what the rows mean; a model that was fitted on others is refused."""

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Whom the source of the rows was fitted on, beside the extractor of the data's own store.

        As "data set/subject".
        """
        return ()

    def seen(self, store: FeatureStore | NpzFolder | None) -> Stream:
        """This stream of data whose frames lie in `store` (None: in videos), so that its width is known.

        Raises:
            PainseqError: the store has nothing for this stream.
        """
        return self

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:  # noqa: B027
        """Raise a PainseqError, one for all, unless the stream has the rows of each of these clips.

        Args:
            clips: readable ones.
            root: folder that the clips' videos lie in.
            store: where their frames lie; None: in the videos.
        """

    @abstractmethod
    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """The rows of a clip, or of some of its frames.

        Args:
            stored: the frames of the data's own store, or of the video; T of them.
            clip: which clip this is.
            root: folder that the clip's video lies in.

        Returns:
            (T, width) float; what stands in frames without a face does not count.

        Raises:
            PainseqError: there are no rows of this clip; names the clip, or its file.
        """

    @abstractmethod
    def mirror(self, rows: Tensor) -> Tensor:
        """What `of` would have given for mirrored crops, (T, width).

        Raises:
            PainseqError: it is not known.
        """


def rows_of(streams: Sequence[Stream], stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
    """The rows of a clip, stream behind stream.

    Returns:
        (T, *F): the rows of a single stream as they are; else float32 (T, sum of the widths).

    Raises:
        PainseqError: see `Stream.of`.
    """
    parts = [stream.of(stored, clip, root) for stream in streams]
    return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=-1)


def rows_of_video(
    streams: Sequence[Stream], stored: ClipFeatures, video: Path, start_s: float = 0.0, image_fps: float | None = None
) -> Tensor:
    """`rows_of` a span of a single video that belongs to no data set.

    Args:
        start_s: where the span starts, in seconds.
        image_fps: images a second, where the video is a folder of them.
    """
    return rows_of(streams, stored, lone_clip(video, start_s, image_fps), Path())


def lone_clip(video: Path, start_s: float = 0.0, image_fps: float | None = None) -> Clip:
    """A span of a single video as a clip, whose path is relative to the working folder."""
    return Clip(video.as_posix(), "unknown", video.as_posix(), start_s=start_s, fps=image_fps)


def beside_cnn(streams: Sequence[Stream]) -> tuple[Stream, ...]:
    """The streams whose rows are there before an extractor runs."""
    return tuple(stream for stream in streams if stream.name != "cnn")


def mirrored(streams: Sequence[Stream], rows: Tensor) -> Tensor:
    """`rows_of` mirrored crops, (T, sum of the widths), from those of the crops as they were.

    Raises:
        PainseqError: see `Stream.mirror`.
    """
    parts = torch.split_with_sizes(rows, [stream.width for stream in streams], dim=-1)
    return torch.cat([stream.mirror(part) for stream, part in zip(streams, parts, strict=True)], dim=-1)
