"""Sources of pictures that come one after the other: files in real time, cameras, network streams, iterators."""

from __future__ import annotations

import errno
import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.video.container import titles_in_any_encoding
from painseq.video.display import read_display
from painseq.video.limits import check_pixels, max_pixels
from painseq.video.reading import open_video, read_chunks

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_BLOCK_FRAMES = 4
_LATENCY = {"fflags": "nobuffer", "flags": "low_delay"}
# Half of the time over which the quickest arrival is remembered: clocks of cameras drift.
_WINDOW_S = 15.0
# Beyond this, a time stamp says nothing of when the picture was taken.
_LONGEST_DELAY_S = 10.0
# Formats whose time stamps are counted at 25 a second, whatever the camera does.
_UNTIMED = {"mpjpeg", "mjpeg", "image2pipe"}
# Formats that come in parts of several seconds.
_IN_PARTS = {"hls", "dash"}
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Clock:
    """The time of day, without the jumps of a clock that is set, and pauses that `stop` ends."""

    def __init__(self) -> None:
        self._since_s = time.time() - time.monotonic()
        self._stopped = threading.Event()

    def now_s(self) -> float:
        """Return the seconds since 1970 (Unix time)."""
        return self._since_s + time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait; return false, at once, if the clock was stopped."""
        return not self._stopped.wait(max(0.0, seconds))

    def stop(self) -> None:
        """End all pauses, and every source with this clock. Can be called from any thread."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a source.

    Args:
        image: (H, W, 3) RGB uint8.
        time_s: seconds since the source's first picture, never decreasing: in a file the time of the frame, elsewhere
            the time of capture.
        captured_s: Unix time at which it was taken, as far as the source's time stamps tell; else when it was received.
        received_s: Unix time at which it was received and decoded.
    """

    image: NDArray[np.uint8]
    time_s: float
    captured_s: float
    received_s: float


@dataclass(frozen=True)
class SignalLost:
    """A live source gives no pictures at the moment; it is tried again.

    Args:
        at_s: Unix time.
        reason: what happened, in a few words.
        pause_s: seconds until the next attempt.
    """

    at_s: float
    reason: str
    pause_s: float


class Source(ABC):
    """Gives pictures in order, and what happens to the signal; iterate over it once, in one thread.

    A file or an iterator ends. A camera or a network stream does not: its end is a loss of signal, after which it is
    opened again, until `stop`.

    Args:
        name: of the file, camera or stream, for people; without passwords.
        clock: tells the time, and waits; tests may give their own.
    """

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self.clock = Clock() if clock is None else clock

    @property
    @abstractmethod
    def is_live(self) -> bool:
        """Whether pictures come at their own time, so that one who is slow must leave some out."""

    @abstractmethod
    def __iter__(self) -> Iterator[Picture | SignalLost]:
        """Yield pictures, and each loss of the signal.

        Raises:
            PainseqError: the source cannot be opened, or is no source of pictures.
        """

    def stop(self) -> None:
        """End the iteration, from any thread: at once in a pause, else after the next picture."""
        self.clock.stop()


class FileSource(Source):
    """The frames of a video file or of a folder of images.

    Args:
        path: the file, or the folder.
        paced: give each frame at its time, as a camera would; otherwise as fast as they are taken.
        loop: begin again at the end, for ever; times go on.
        image_fps: images per second, for a folder of images.
        backend: see `painseq.video.open_video`.
        clock: see `Source`.

    Example:
        >>> for picture in FileSource("video.mp4"):
        ...     print(picture.time_s, picture.image.shape)
    """

    def __init__(
        self,
        path: str | Path,
        paced: bool = False,
        loop: bool = False,
        image_fps: float | None = None,
        backend: str = "auto",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(str(path), clock)
        self.path = Path(path)
        self.paced = paced
        self.loop = loop
        self.image_fps = image_fps
        self.backend = backend

    @property
    def is_live(self) -> bool:
        """Whether it is paced."""
        return self.paced

    def __iter__(self) -> Iterator[Picture]:
        start_s, begun_s = None, 0.0
        while True:
            with open_video(self.path, self.backend, self.image_fps) as video:
                for images, times_s in read_chunks(video, chunk_frames=_BLOCK_FRAMES):
                    for image, frame_s in zip(images, times_s.tolist(), strict=True):
                        start_s = self.clock.now_s() if start_s is None else start_s
                        time_s = begun_s + frame_s
                        due_s = start_s + time_s
                        if self.paced and not self.clock.wait(due_s - self.clock.now_s()):
                            return
                        if self.clock.stopped:
                            return
                        now_s = self.clock.now_s()
                        yield Picture(image, time_s, due_s if self.paced else now_s, now_s)
                begun_s += video.duration_s
            if not self.loop:
                return


class IteratorSource(Source):
    """Pictures of the user's own: from any iterable of `(image, time_s)`.

    Args:
        pictures: (H, W, 3) RGB uint8 images, and their times in seconds, not decreasing.
        name: of the source, for messages.
        is_live: whether pictures come at their own time (a camera), or when they are asked for.
        clock: see `Source`.

    Example:
        >>> source = IteratorSource((camera.grab(), time.monotonic()) for _ in range(100))
    """

    def __init__(
        self,
        pictures: Iterable[tuple[NDArray[np.uint8], float]],
        name: str = "The source",
        is_live: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock)
        self.pictures = pictures
        self._is_live = is_live

    @property
    def is_live(self) -> bool:
        """As given."""
        return self._is_live

    def __iter__(self) -> Iterator[Picture]:
        first_s = last_s = None
        for image, time_s in self.pictures:
            if self.clock.stopped:
                return
            if getattr(image, "dtype", None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
                raise PainseqError(f"{self.name}: a picture is {found}; it must be (H, W, 3) uint8, in RGB.")
            if not math.isfinite(time_s) or (last_s is not None and time_s < last_s):
                raise PainseqError(f"{self.name}: a picture at {time_s} s comes after one at {last_s} s.")
            first_s = time_s if first_s is None else first_s
            last_s = time_s
            now_s = self.clock.now_s()
            yield Picture(image, time_s - first_s, now_s, now_s)


class _DeviceSource(Source):
    """What PyAV opens and does not end: opened again, after growing pauses, whenever pictures stay away.

    Args:
        name: see `Source`.
        address: what PyAV opens.
        container_format: FFmpeg's name of the format; None finds it out.
        options: FFmpeg's options.
        timeout_s: seconds to open it, and between two pictures, after which the signal is lost.
        pauses_s: the first and the longest pause before it is opened again, in seconds; each is twice the one before.
        clock: see `Source`.
    """

    def __init__(
        self,
        name: str,
        address: str,
        container_format: str | None,
        options: Mapping[str, str],
        timeout_s: tuple[float, float],
        pauses_s: tuple[float, float],
        clock: Clock | None,
    ) -> None:
        super().__init__(name, clock)
        if not (0 < pauses_s[0] <= pauses_s[1] and min(timeout_s) > 0):
            raise PainseqError(
                f"{name}: timeout_s is {timeout_s} and pauses_s is {pauses_s}; they must be more than 0, and the first "
                "pause no longer than the longest."
            )
        self.address = address
        self.container_format = container_format
        self.options = dict(options)
        self.timeout_s = timeout_s
        self.pauses_s = pauses_s
        self._first_s: float | None = None
        self._last_s = 0.0

    @property
    def is_live(self) -> bool:
        """Always."""
        return True

    def __iter__(self) -> Iterator[Picture | SignalLost]:
        pause_s, longest_s = self.pauses_s
        while not self.clock.stopped:
            reason, limit_s, since_s = "it ended", self.timeout_s[0], self.clock.now_s()
            try:
                for picture in self._pictures():
                    pause_s, limit_s = self.pauses_s[0], self.timeout_s[1]
                    yield picture
                    if self.clock.stopped:
                        return
                    since_s = self.clock.now_s()
            except _errors() as error:
                # FFmpeg names a time that ran out in many ways.
                is_late = self.clock.now_s() - since_s > 0.95 * limit_s
                reason = "no picture came in time" if is_late else _reason(error)
                if self._first_s is None:
                    # Not from FFmpeg's error, whose text holds the address with its password.
                    raise self._never_began(error, reason) from None
            if self._first_s is None:
                raise PainseqError(f"{self.name} gives no picture: {reason}. Is it a source of video?")
            yield SignalLost(self.clock.now_s(), reason, pause_s)
            if not self.clock.wait(pause_s):
                return
            pause_s = min(2 * pause_s, longest_s)

    def _pictures(self) -> Iterator[Picture]:
        """Yield pictures until the signal is lost."""
        import av
        from av.video.reformatter import VideoReformatter

        convert, capture, display = VideoReformatter(), _CaptureClock(), None
        options = self.options | {"max_pixels": str(2 * max_pixels())}
        with av.open(
            self.address,
            format=self.container_format,
            options=options,
            timeout=self.timeout_s,
            **titles_in_any_encoding(),
        ) as container:
            if not container.streams.video:
                raise ValueError("it holds no video")
            stream = container.streams.video[0]
            formats = set(container.format.name.split(","))
            for frame in _frames(container, stream):
                if display is None or (frame.width, frame.height) != (display.width, display.height):
                    check_pixels(Path(self.name), frame.width, frame.height)
                    display = read_display(frame, stream.sample_aspect_ratio, int(stream.codec_context.color_trc))
                stamp_s = None if formats & _UNTIMED or frame.time is None else float(frame.time)
                stored = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                image = display.show(np.asarray(stored, np.uint8))
                if formats & _IN_PARTS and stamp_s is not None and not self._wait_for(capture, stamp_s):
                    return
                received_s = self.clock.now_s()
                captured_s = capture.at(received_s, stamp_s)
                yield Picture(image, self._time_s(captured_s), captured_s, received_s)

    def _wait_for(self, capture: _CaptureClock, stamp_s: float) -> bool:
        """Pause until a picture that came with many others is due; return false if the source was stopped."""
        ahead_s = capture.ahead_s(self.clock.now_s(), stamp_s)
        return self.clock.wait(ahead_s) if ahead_s > 0 else not self.clock.stopped

    def _time_s(self, captured_s: float) -> float:
        if self._first_s is None:
            self._first_s = captured_s
        self._last_s = max(self._last_s, captured_s - self._first_s)
        return self._last_s

    @abstractmethod
    def _never_began(self, error: BaseException, reason: str) -> PainseqError:
        """Return the error for a source that could not be opened at all."""


class StreamSource(_DeviceSource):
    """A stream from the network: RTSP, HTTP (also of single JPEG pictures), HLS.

    Args:
        url: its address; a password in it is not shown.
        options: FFmpeg's options, besides those for little delay, and for RTSP over TCP.
        timeout_s: seconds to connect, and between two pictures, after which the signal is lost.
        pauses_s: the first and the longest pause before it is opened again, in seconds; each is twice the one before.
        clock: see `Source`.

    Raises:
        PainseqError: an address of another kind.

    Example:
        >>> for event in StreamSource("rtsp://camera.local/stream"):
        ...     print(event.reason if isinstance(event, SignalLost) else event.captured_s)
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str] | None = None,
        timeout_s: tuple[float, float] = (5.0, 3.0),
        pauses_s: tuple[float, float] = (0.5, 30.0),
        clock: Clock | None = None,
    ) -> None:
        if not _URL.match(url) or url.lower().startswith("file:"):
            name = _without_password(url)
            raise PainseqError(f"{name} is not the address of a stream, such as rtsp://... or http://... .")
        over_tcp = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
        chosen = _LATENCY | over_tcp | dict(options or {})
        super().__init__(_without_password(url), url, None, chosen, timeout_s, pauses_s, clock)

    def _never_began(self, error: BaseException, reason: str) -> PainseqError:
        return PainseqError(f"{self.name} cannot be opened: {reason}. Is the address right, and is the camera on?")


class CameraSource(_DeviceSource):
    """A camera of this machine.

    Not tested with a real camera, but with FFmpeg's generated pictures (`container_format="lavfi"`).

    Args:
        device: as FFmpeg names it: /dev/video0 on Linux.
        container_format: FFmpeg's name of the system's cameras: v4l2 on Linux, avfoundation on macOS, dshow on Windows.
        options: FFmpeg's options, such as `{"video_size": "640x480", "framerate": "30"}`.
        timeout_s: seconds to open it, and between two pictures, after which the signal is lost.
        pauses_s: the first and the longest pause before it is opened again, in seconds; each is twice the one before.
        clock: see `Source`.
    """

    def __init__(
        self,
        device: str = "/dev/video0",
        container_format: str = "v4l2",
        options: Mapping[str, str] | None = None,
        timeout_s: tuple[float, float] = (5.0, 3.0),
        pauses_s: tuple[float, float] = (0.5, 30.0),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(device, device, container_format, dict(options or {}), timeout_s, pauses_s, clock)

    def _never_began(self, error: BaseException, reason: str) -> PainseqError:
        number = getattr(error, "errno", None)
        if number == errno.EBUSY:
            return PainseqError(f"The camera {self.name} is used by another program. Close that program.")
        if number in (errno.EACCES, errno.EPERM):
            return PainseqError(
                f"The camera {self.name} may not be read by this user. Add the user to the group of cameras (on Linux: "
                "video), and log in again."
            )
        if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            others = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            return PainseqError(f"There is no camera {self.name}. Connect it, or name another one; found: {others}.")
        return PainseqError(f"The camera {self.name} cannot be opened: {reason}. Is it a camera that FFmpeg reads?")


def open_source(
    name: str, paced: bool = True, loop: bool = False, image_fps: float | None = None, clock: Clock | None = None
) -> Source:
    """Return the source that a text names.

    Args:
        name: a file or a folder of images; the number or the device of a camera (0, /dev/video0); an address (rtsp://,
            http://, ...); or `lavfi:` with a graph of FFmpeg's, which is then treated like a camera.
        paced: see `FileSource`.
        loop: see `FileSource`.
        image_fps: see `FileSource`.
        clock: see `Source`.

    Raises:
        PainseqError: none of these.
    """
    if _URL.match(name):
        return StreamSource(name, clock=clock)
    if name.startswith("lavfi:"):
        return CameraSource(name.removeprefix("lavfi:"), "lavfi", clock=clock)
    if name.isdecimal() and not Path(name).exists():
        return CameraSource(f"/dev/video{name}", clock=clock)
    if name.startswith("/dev/"):
        return CameraSource(name, clock=clock)
    if not Path(name).exists():
        raise PainseqError(
            f"There is no source {name}. Name a video, a folder of images, a camera (0, /dev/video0) or an address "
            "(rtsp://...)."
        )
    return FileSource(name, paced, loop, image_fps, clock=clock)


class _CaptureClock:
    """Estimates when pictures were taken, on our clock, from their own time stamps.

    The picture that arrived quickest of the last half minute is taken to have arrived at once.
    """

    def __init__(self) -> None:
        self._began_s = -math.inf
        self._quickest_s = self._before_s = math.inf
        self._first: tuple[float, float] | None = None

    def at(self, received_s: float, stamp_s: float | None) -> float:
        """Return the time of capture of a picture, never later than it was received.

        Args:
            received_s: when it was received.
            stamp_s: its own time stamp, of any origin; None if it has none.
        """
        if stamp_s is None:
            return received_s
        if received_s - self._began_s >= _WINDOW_S:
            self._began_s, self._before_s, self._quickest_s = received_s, self._quickest_s, math.inf
        self._quickest_s = min(self._quickest_s, received_s - stamp_s)
        captured_s = stamp_s + min(self._quickest_s, self._before_s)
        if received_s - captured_s <= _LONGEST_DELAY_S:
            return min(captured_s, received_s)
        # The stamps jumped back.
        self._began_s, self._before_s, self._quickest_s = received_s, math.inf, received_s - stamp_s
        return received_s

    def ahead_s(self, now_s: float, stamp_s: float) -> float:
        """Return how long a picture came before its time, if the first one came at its own."""
        if self._first is None or abs(stamp_s - self._first[1] - (now_s - self._first[0])) > 6 * _LONGEST_DELAY_S:
            self._first = now_s, stamp_s
        return stamp_s - self._first[1] - (now_s - self._first[0])


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield the decoded frames; a damaged packet is left out, and the next ones are read."""
    import av

    stream.thread_type = "SLICE"  # Threads by frame hold frames back.
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from (frame for frame in frames if not frame.is_corrupt)


def _reason(error: BaseException) -> str:
    """Return what FFmpeg says of an error, without the address that its text names."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()


def _without_password(url: str) -> str:
    """Return an address without the name and password that it may hold, also in its query."""
    return re.sub(r"\?.*", "?...", re.sub(r"(?<=://)[^/?#]*@", "", url, count=1), count=1, flags=re.DOTALL)


def _errors() -> tuple[type[Exception], ...]:
    """What PyAV raises for a source that is lost or cannot be opened."""
    import av

    return (av.error.FFmpegError, OSError, ValueError, ArithmeticError, LookupError)
