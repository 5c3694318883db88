"""Open videos: files, through decord or PyAV, or folders of images.

Both decoders give the same frames of whole files at the same times: the times come from one pass over the container,
independent of the library that decodes. Of a damaged picture decord tells nothing, and PyAV that it is damaged. Open
and close a reader in the same process: a decord reader deadlocks after a fork.

decord decodes ahead in the background, without limit, so a long video would end up in memory as a whole. It is
therefore used for short videos, and PyAV, which is as fast, for others.
"""

from __future__ import annotations

import importlib.util
import logging
from abc import ABC
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError, printable
from painseq.video.container import Timeline, decoding, opened, read_timeline, unreadable
from painseq.video.images import ImageSequence
from painseq.video.sampling import frame_indices
from painseq.video.video import Backend, Video

log = logging.getLogger("painseq")

_DECORD_CONTAINERS = ("mov", "matroska")
_THREADS = 2
_BLOCK_BYTES = 64 << 20
_AHEAD_BYTES = 64 << 20


class _CodedVideo(Video, ABC):
    """A video file, with frame times from its container."""

    def __init__(self, path: Path, timeline: Timeline, backend_note: str = "") -> None:
        super().__init__(path, timeline.times_s, timeline.duration_s, backend_note)
        self._timeline = timeline

    def _keep_first(self, image: NDArray[np.uint8] | None) -> None:
        if image is None:
            raise unreadable(self.path, self.backend, "no frame can be decoded")
        self.size = (image.shape[1], image.shape[0])
        self._last = (0, image)


class _PyAVVideo(_CodedVideo):
    backend: Backend = "pyav"

    def __init__(self, path: Path, timeline: Timeline, backend_note: str = "") -> None:
        from av.video.reformatter import VideoReformatter

        super().__init__(path, timeline, backend_note)
        self._converter = VideoReformatter()
        self._files = ExitStack()
        self._pictures: Iterator[Any] = iter(())
        self._position: int | None = None
        self.size = timeline.display.size

    def close(self) -> None:
        self._pictures = iter(())
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
        if self._timeline.reordered:
            self._pictures = _retimed(self._pictures, self._timeline.pts)
        self._position = index

    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        pts = self._timeline.pts
        for index in indices:
            if self._position is None or index < self._position or self._key_between(self._position, int(index)):
                self._restart(int(index))
            with decoding(self.path, self.backend):
                picture = next((one for one in self._pictures if one.pts is not None and one.pts >= pts[index]), None)
            if picture is None:
                return
            if picture.pts != pts[index] or picture.is_corrupt:
                raise unreadable(self.path, self.backend, f"frame {index} ({self.times_s[index]:.3f} s) is damaged")
            self._position = int(index) + 1
            yield self._shown(picture, int(index))

    def _key_between(self, position: int, index: int) -> bool:
        pts, keys = self._timeline.pts, self._timeline.key_pts
        before, there = np.searchsorted(keys, [pts[min(position, len(pts) - 1)], pts[index]], "right")
        return index > position and bool(there > before)

    def _shown(self, picture: Any, index: int) -> NDArray[np.uint8]:
        display = self._timeline.display
        if not display.fits(picture.width, picture.height):
            raise unreadable(
                self.path,
                self.backend,
                f"the picture changes from {display.width} x {display.height} to {picture.width} x {picture.height} "
                f"pixels at {self.times_s[index]:.3f} s, another shape. Cut the video there",
            )
        with decoding(self.path, self.backend):
            # `to_ndarray(format=...)` would create a converter for each frame, which takes twice as long.
            converted = self._converter.reformat(
                picture, width=display.width, height=display.height, format="rgb24", threads=1
            )
            return display.show(np.asarray(converted.to_ndarray(), dtype=np.uint8))


def _retimed(pictures: Iterator[Any], pts: NDArray[np.int64]) -> Iterator[Any]:
    for picture, moment in zip(pictures, pts, strict=False):
        picture.pts = int(moment)
        yield picture


class _DecordVideo(_CodedVideo):
    backend: Backend = "decord"

    def __init__(self, path: Path, timeline: Timeline) -> None:
        import decord

        super().__init__(path, timeline)
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, RuntimeError, StopIteration, UnicodeError)
        self._restart()
        if len(self._reader) != len(timeline.pts) + timeline.hidden:
            raise unreadable(
                path,
                self.backend,
                f"it counts {len(self._reader)} frames, but the container holds "
                f"{len(timeline.pts) + timeline.hidden}; backend 'pyav' may read it",
            )
        self._keep_first(self._shown(self._next()))
        self._long = len(timeline.pts) * timeline.picture_bytes > _AHEAD_BYTES

    def close(self) -> None:
        self._reader: Any = None

    def _restart(self) -> None:
        import decord

        try:
            self._reader = decord.VideoReader(str(self.path.absolute()), num_threads=_THREADS)
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

    def _shown(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if image.shape[2] != 3:  # decord reads the padding of a very narrow rotated picture as a fourth channel
            raise unreadable(self.path, self.backend, "its frames are garbled; backend 'pyav' may read it")
        display = self._timeline.display
        return display.show(display.unturned(image))

    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        if not self._timeline.hidden:
            for index in indices:
                try:
                    image = self._reader[int(index)].asnumpy()
                except self._errors as error:
                    raise unreadable(self.path, self.backend, error) from error
                yield self._shown(image)
            if self._long:
                self._reader.seek(0)  # discards the frames decoded ahead
            return
        # decord's indices include frames hidden by an edit list after a seek, but not before. Reading from the start
        # is correct: it gives the shown frames in order.
        for index in indices:
            if index < self._position:
                self._restart()
            while self._position < index:
                self._next()
            yield self._shown(self._next())


def open_video(path: Path, backend: str = "auto", image_fps: float | None = None) -> Video:
    """Open a video file, or a folder of images as a video.

    Frames are shown as a player does: turned and mirrored as the file says, with square pixels (the short side is
    enlarged). If the picture's size changes within the file, later frames are scaled to the first one's size; another
    shape is an error. A warning says if the first of several video streams is read, and if a video is interlaced or has
    high dynamic range, which are read as they are stored.

    Args:
        path: the file, or the folder.
        backend: "decord", "pyav", "images", or "auto": images for a folder; for a file decord if it is installed and
            reads the file correctly within 64 MiB, otherwise PyAV. `Video.backend` is the choice, and
            `Video.backend_note` the reason if it is not decord. decord itself is refused where its frames may be wrong:
            in containers other than MP4, MOV and MKV, for an MKV that is stored turned, for VP8, VP9 and AV1, and with
            several video streams. A video whose edit list hides frames it reads from the start only.
        image_fps: images per second; required for a folder. A file has its own timestamps.

    Raises:
        PainseqError: the file is missing, empty, truncated or not a video; a folder without images or `image_fps`; the
            backend is unknown, not installed, or does not read this kind of video.
    """
    if backend not in ("auto", "decord", "pyav", "images"):
        raise PainseqError(f"Unknown video backend {backend!r}; use auto, decord, pyav or images.")
    if path.is_dir():
        if backend in ("decord", "pyav"):
            raise PainseqError(f"{path} is a folder, which {backend} cannot read. Use backend images or auto.")
        return ImageSequence(path, image_fps)
    if backend == "images" and path.exists():
        raise PainseqError(f"{path} is a file, not a folder of images. Use backend auto, decord or pyav.")
    installed = importlib.util.find_spec("decord") is not None
    if backend == "decord" and not installed:
        raise PainseqError("Video backend decord is not installed; use pyav or auto.")
    timeline = read_timeline(path)
    _tell(path, timeline)
    if backend == "pyav" or not installed:
        return _PyAVVideo(path, timeline)
    wrong = _wrong_in_decord(timeline)
    if backend == "decord":
        if wrong:
            raise PainseqError(f"{path}: {wrong}. Use backend pyav or auto.")
        return _DecordVideo(path, timeline)
    why_not_decord = wrong or _better_without_decord(timeline)
    if why_not_decord:
        return _PyAVVideo(path, timeline, why_not_decord)
    try:
        return _DecordVideo(path, timeline)
    except PainseqError as error:
        return _PyAVVideo(path, timeline, f"decord does not read it ({error})")


def _wrong_in_decord(timeline: Timeline) -> str:
    """Return why decord would show other pictures than the container's; empty if it does not."""
    if not timeline.container.startswith(_DECORD_CONTAINERS):
        return f"decord's frame numbers are wrong in {timeline.container} files"
    if timeline.streams > 1:
        return f"decord may take another one of the file's {timeline.streams} video streams than the first"
    if timeline.stated_frames > 2 * (len(timeline.pts) + timeline.hidden) + 1000:
        return f"decord reserves memory for the {timeline.stated_frames} frames of a damaged header"
    if timeline.display.is_turned and not timeline.container.startswith("mov"):
        return f"decord shows {timeline.container} files as they are stored, and this one is stored turned or mirrored"
    if timeline.may_resize:
        return f"decord stretches pictures whose shape changes, which it can in this {timeline.codec} stream"
    return ""


def _better_without_decord(timeline: Timeline) -> str:
    if timeline.display.is_turned:
        return "decord knows only one of the places that say how a video is turned or mirrored"
    if timeline.hidden:
        return f"decord's frame numbers are unreliable if an edit list hides frames ({timeline.hidden} here)"
    if len(timeline.pts) * timeline.picture_bytes > _AHEAD_BYTES:
        return "decord decodes ahead without limit, and this video is large"
    return ""


def _tell(path: Path, timeline: Timeline) -> None:
    """Warn of what a viewer of the file might not expect of the frames."""
    display = timeline.display
    if timeline.streams > 1:
        _warn_once(
            f"{path} holds {timeline.streams} video streams; the first is read ({display.width} x {display.height})."
        )
    if display.interlaced:
        _warn_once(
            f"{path} is interlaced: its lines alternate between two moments, which combs a moving face. It is read as "
            "it is stored. Deinterlace it for comparable results."
        )
    if display.hdr:
        _warn_once(
            f"{path} has high dynamic range, {display.hdr}. It is read without tone mapping, so its faces look paler "
            "and darker than those of ordinary videos. Convert it for comparable results."
        )


@lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    log.warning("%s", printable(message))


def read_chunks(
    video: Video, start_s: float = 0.0, end_s: float | None = None, fps: float | None = None, chunk_frames: int = 64
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Read the frames of [start_s, end_s) in chunks, so that memory does not grow with the video's length.

    Args:
        video: an open video.
        start_s: start of the span, in seconds; see `frame_indices`.
        end_s: end of the span, exclusive; None is the end of the video.
        fps: samples per second; None takes every frame.
        chunk_frames: maximum frames per chunk; chunks of large frames are smaller, at most 64 MiB.

    Yields:
        (n, H, W, 3) RGB uint8 and the (n,) sample times in seconds since `start_s`.
    """
    indices, times_s = frame_indices(video.times_s, start_s, end_s, fps)
    width, height = video.size
    step = max(1, min(chunk_frames, _BLOCK_BYTES // (width * height * 3)))
    for first in range(0, len(indices), step):
        yield video.frames(indices[first : first + step]), times_s[first : first + step]
