"""Frames of a video file, through decord or PyAV.

Both give the same frames at the same times: the times come from one pass over the container, whichever library
then decodes. A reader is opened where it is used and closed there, since a decord reader that is carried over
a fork deadlocks.

decord decodes ahead in the background for as long as its caller is busy elsewhere, without limit, so a long video
would end up in memory as a whole. It is therefore the choice for short ones; elsewhere PyAV is, which is as fast.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.video.container import Timeline, opened, read_timeline, unreadable
from painseq.video.sampling import frame_indices

Backend = Literal["decord", "pyav"]
_DECORD_CONTAINERS = ("mov", "matroska")
_THREADS = 2
_BLOCK_BYTES = 64 << 20
_AHEAD_BYTES = 64 << 20


class Video(ABC):
    """An open video; use it as a context manager.

    Attributes:
        path: the file.
        backend: "decord" or "pyav", whichever decodes.
        backend_note: why "auto" did not take decord although it is installed; empty where that is not so.
        times_s: (N,) float64, seconds of each frame shown since the first one shown.
        duration_s: from the first frame's start to the last one's end.
        size: (width, height) in pixels, upright.
    """

    backend: Backend

    def __init__(self, path: Path, timeline: Timeline, backend_note: str = "") -> None:
        self.path = path
        self.backend_note = backend_note
        self.times_s = timeline.times_s
        self.duration_s = timeline.duration_s
        self.size: tuple[int, int] = (0, 0)
        self._timeline = timeline
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first(self, image: NDArray[np.uint8] | None) -> None:
        if image is None:
            raise unreadable(self.path, self.backend, "no frame can be decoded")
        if image.shape[2] != 3:  # decord takes a very narrow turned picture's padding for a fourth channel
            raise unreadable(self.path, self.backend, "its pictures come garbled; backend 'pyav' may read it")
        self.size = (image.shape[1], image.shape[0])
        self._last = (0, image)

    @abstractmethod
    def close(self) -> None:
        """Free the decoder."""

    @abstractmethod
    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Yield the (H, W, 3) upright RGB frames at strictly increasing indices."""

    def frames(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode frames.

        Args:
            indices: (n,) into `times_s`, not decreasing; cheapest when each call goes on where the last one ended.

        Returns:
            (n, H, W, 3) RGB uint8.

        Raises:
            PainseqError: a frame that the file promises cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (np.any(np.diff(wanted) < 0) or wanted[0] < 0 or wanted[-1] >= len(self)):
            raise ValueError(f"Indices must not decrease and lie in 0..{len(self) - 1}.")
        width, height = self.size
        images = np.empty((len(wanted), height, width, 3), np.uint8)
        if not len(wanted):
            return images
        unique, place = np.unique(wanted, return_index=True)
        repeats = np.diff([*place, len(wanted)])
        todo = unique
        if self._last is not None and self._last[0] == unique[0]:
            images[: repeats[0]] = self._last[1]
            todo, place, repeats = unique[1:], place[1:], repeats[1:]
        done = 0
        for image, start, n in zip(self._decode(todo), place, repeats, strict=False):
            if image.shape != images.shape[1:]:
                raise unreadable(self.path, self.backend, f"the picture's size changes to {image.shape[1::-1]}")
            images[start : start + n] = image
            done += 1
        if done < len(todo):
            moment = self.times_s[todo[done]]
            raise unreadable(self.path, self.backend, f"frame {todo[done]} ({moment:.3f} s) is missing")
        self._last = (int(unique[-1]), images[-1].copy())
        return images


class _PyAVVideo(Video):
    backend: Backend = "pyav"

    def __init__(self, path: Path, timeline: Timeline, backend_note: str = "") -> None:
        from av.video.reformatter import VideoReformatter

        super().__init__(path, timeline, backend_note)
        self._converter = VideoReformatter()
        self._files = ExitStack()
        self._restart()
        self._first(next(self._decode(np.zeros(1, np.int64)), None))

    def close(self) -> None:
        self._pictures: Iterator[Any] = iter(())
        self._files.close()

    def _restart(self, index: int = 0) -> None:
        self.close()
        container, stream = self._files.enter_context(opened(self.path))
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _THREADS
        keys, target = self._timeline.key_pts, self._timeline.pts[index]
        key = np.searchsorted(keys, target, side="right") - 1
        if index > 0 and key > 0:
            container.seek(int(keys[key]), stream=stream)
        self._pictures = container.decode(stream)
        self._position = index

    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        import av

        pts, keys = self._timeline.pts, self._timeline.key_pts
        for index in indices:
            here = pts[min(self._position, len(pts) - 1)]
            behind = index < self._position
            key_between = np.searchsorted(keys, pts[index], "right") > np.searchsorted(keys, here, "right")
            if behind or (key_between and index > self._position):
                self._restart(int(index))
            try:
                for picture in self._pictures:
                    if picture.pts is not None and picture.pts >= pts[index]:
                        break
                else:
                    return
            except av.error.FFmpegError as error:
                raise unreadable(self.path, self.backend, error) from error
            if picture.pts != pts[index] or picture.is_corrupt:
                raise unreadable(self.path, self.backend, f"frame {index} ({self.times_s[index]:.3f} s) is damaged")
            self._position = int(index) + 1
            yield self._upright(picture)

    def _upright(self, picture: Any) -> NDArray[np.uint8]:
        # A converter of its own for each frame, as `to_ndarray(format=...)` makes, takes twice as long.
        converted = self._converter.reformat(picture, format="rgb24", threads=1)
        image: NDArray[np.uint8] = np.asarray(converted.to_ndarray(), dtype=np.uint8)
        turns = round(picture.rotation / 90) % 4
        return np.rot90(image, turns) if turns else image


class _DecordVideo(Video):
    backend: Backend = "decord"

    def __init__(self, path: Path, timeline: Timeline) -> None:
        import decord

        super().__init__(path, timeline)
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, RuntimeError, StopIteration)
        self._restart()
        if len(self._reader) != len(timeline.pts) + timeline.hidden:
            raise unreadable(
                path,
                self.backend,
                f"it counts {len(self._reader)} frames where the container holds "
                f"{len(timeline.pts) + timeline.hidden}; backend 'pyav' may read it",
            )
        self._first(self._next())
        self._long = len(timeline.pts) * timeline.picture_bytes > _AHEAD_BYTES

    def close(self) -> None:
        self._reader: Any = None

    def _restart(self) -> None:
        import decord

        try:
            self._reader = decord.VideoReader(str(self.path), num_threads=_THREADS)
        except self._errors as error:
            raise unreadable(self.path, self.backend, error) from error
        self._position = 0

    def _next(self) -> NDArray[np.uint8]:
        try:
            image: NDArray[np.uint8] = self._reader.next().asnumpy()
        except self._errors as error:
            raise unreadable(self.path, self.backend, error) from error
        self._position += 1
        return image

    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        if not self._timeline.hidden:
            for index in indices:
                try:
                    yield self._reader[int(index)].asnumpy()
                except self._errors as error:
                    raise unreadable(self.path, self.backend, error) from error
            if self._long:
                self._reader.seek(0)  # drops what was decoded ahead
            return
        # Frames hidden by an edit list count in decord's indices after it has sought, and do not before. Reading
        # on from the start is right: it gives the shown frames in their order.
        for index in indices:
            if index < self._position:
                self._restart()
            while self._position < index:
                self._next()
            yield self._next()


def open_video(path: Path, backend: str = "auto") -> Video:
    """Open a video file.

    Args:
        path: the file.
        backend: "decord", "pyav", or "auto": decord where it is installed and reads the file rightly within 64 MiB,
            else PyAV. `Video.backend` tells which it is, and `Video.backend_note` why it is not decord. decord's
            frame numbers are wrong in containers other than MP4, MOV, MKV and WebM, and it can read a video whose
            edit list hides frames from the start only.

    Raises:
        PainseqError: missing, empty, truncated or not a video; an unknown backend, or one that is not installed.
    """
    if backend not in ("auto", "decord", "pyav"):
        raise PainseqError(f"Video backend {backend!r} is not known; it is auto, decord or pyav.")
    installed = importlib.util.find_spec("decord") is not None
    if backend == "decord" and not installed:
        raise PainseqError("Video backend decord is not installed here; choose pyav, or auto.")
    timeline = read_timeline(path)
    if backend == "pyav" or not installed:
        return _PyAVVideo(path, timeline)
    why_not = ""
    if not timeline.container.startswith(_DECORD_CONTAINERS):
        why_not = f"decord's frame numbers are wrong in {timeline.container} files"
        if backend == "decord":
            raise PainseqError(f"{path}: {why_not}. Choose pyav, or auto.")
    elif timeline.hidden:
        why_not = f"decord's frame numbers are unsure where an edit list hides frames ({timeline.hidden} here)"
    elif len(timeline.pts) * timeline.picture_bytes > _AHEAD_BYTES:
        why_not = "decord decodes ahead without limit, and this video is large"
    if why_not and backend == "auto":
        return _PyAVVideo(path, timeline, why_not)
    return _DecordVideo(path, timeline)


def read_chunks(
    video: Video, start_s: float = 0.0, end_s: float | None = None, fps: float | None = None, chunk_frames: int = 64
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Frames of [start_s, end_s) a few at a time, so that memory does not grow with the video's length.

    Args:
        video: open; frames are chosen as by `frame_indices`.
        chunk_frames: the most frames in a chunk; large pictures come in fewer, at most 64 MiB.

    Yields:
        (n, H, W, 3) RGB uint8 and the (n,) sample times in seconds since `start_s`.
    """
    indices, times_s = frame_indices(video.times_s, start_s, end_s, fps)
    width, height = video.size
    step = max(1, min(chunk_frames, _BLOCK_BYTES // (width * height * 3)))
    for first in range(0, len(indices), step):
        yield video.frames(indices[first : first + step]), times_s[first : first + step]
