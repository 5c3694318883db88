"""Metadata of videos, files and folders of images: the frames shown, the duration, a digest of the content."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.video.display import Display, read_display
from painseq.video.limits import check_pixels, max_pixels, too_many_pixels

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_ONE_FRAME_PER_PACKET = ("h264", "hevc", "mpeg4", "vp9", "av1", "mjpeg")
_RESIZING_CODECS = ("vp8", "vp9", "av1")
# Where the kind of a unit of a packet stands in its first byte, and the kind that holds the picture's size.
_SETTINGS = {"h264": (0, 31, 7), "hevc": (1, 63, 33)}
_TRUSTED_CONTAINERS = ("mov", "matroska")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_UNREAD_IMAGE_SUFFIXES = (".avif", ".dng", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm", ".tga")
_MIB = 1 << 20
REMEMBERED = 64
_LONGEST_STATED_S = 1e5
# Between two frames: a camera of 100,000 frames per second, and one picture every three hours.
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1e-5, 1e4
# What follows the last known box or chunk belongs to the program that appended it.
_BOXES = (
    b"ftyp",
    b"moov",
    b"mdat",
    b"moof",
    b"mfra",
    b"free",
    b"skip",
    b"wide",
    b"uuid",
    b"meta",
    b"sidx",
    b"styp",
    b"udta",
)
_CHUNKS = (b"LIST", b"idx1", b"JUNK")
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".ogv", ".flv"),
)
"""Suffixes, in lower case, by which a file in a data set's folders is taken for a video."""


@dataclass(frozen=True)
class Timeline:
    """The frames of a file's first video stream (not a cover picture) that a player shows, in order.

    Args:
        pts: (N,) int64, the container's timestamps, increasing.
        key_pts: (K,) int64, timestamps of the key frames, at which decoding can start; increasing.
        time_base: seconds per unit of `pts`.
        end_pts: end of the last frame.
        hidden: number of stored frames that the file's edit list hides.
        reordered: whether the own timestamps of an AVI or MPEG file do not increase; decoded picture k is at pts[k].
        picture_bytes: size of one decoded picture (yuv420p).
        container: FFmpeg's name of the format, e.g. "mov,mp4,m4a,3gp,3g2,mj2".
        codec: FFmpeg's name of the decoder, e.g. "h264".
        may_resize: whether the stored picture's size may change within the stream.
        display: how stored pictures are turned into shown ones.
        streams: number of video streams, without cover pictures.
        stated_frames: number of frames by the file's header; 0 if it has none.
    """

    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    time_base: Fraction
    end_pts: int
    hidden: int
    reordered: bool
    picture_bytes: int
    container: str
    codec: str
    may_resize: bool
    display: Display
    streams: int
    stated_frames: int

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(N,) seconds since the first frame shown."""
        times_s: NDArray[np.float64] = (self.pts - self.pts[0]) * float(self.time_base)
        return times_s

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return float((self.end_pts - int(self.pts[0])) * self.time_base)


def unreadable(path: Path, backend: str, reason: object) -> PainseqError:
    """Return the error for an unreadable file; it names file, backend and reason."""
    return PainseqError(
        f"{path} cannot be read as a video by {backend}: {reason}. Is the file complete? Copy or convert it again."
    )


_LISTS = {"concat", "hls", "dash", "sdp", "rtsp", "lavfi", "webm_dash_manifest", "imf"}
"""Formats of texts that name other files: the digest of such a file would say nothing of its pictures."""


@contextmanager
def decoding(path: Path, backend: str) -> Iterator[None]:
    """Turn whatever FFmpeg and its bindings raise for odd files into the error for an unreadable file."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError, LookupError) as error:
        raise unreadable(path, backend, error) from error


def titles_in_any_encoding() -> dict[str, Any]:
    """Arguments of `av.open` with which PyAV before 19 reads a file whose titles are not UTF-8, as later ones do."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and its first video stream with PyAV; decoding errors inside become a `PainseqError`.

    A cover picture does not count as a video stream. Nothing is decoded if the pictures are too large.
    """
    import av

    # FFmpeg decodes on opening, where the header lacks something, and may meet larger pictures than the header's.
    # Its own limit is wider, so that the one in pixels shown decides.
    options = {"max_pixels": str(2 * max_pixels())}
    if not path.is_file():
        raise PainseqError(f"No video at {path}.")
    if path.stat().st_size == 0:
        raise unreadable(path, "pyav", "the file is empty")
    # FFmpeg takes what is before a colon in a relative path for a protocol.
    with (
        decoding(path, "pyav"),
        av.open(str(path.absolute()), options=options, **titles_in_any_encoding()) as container,
    ):
        if _LISTS & set(container.format.name.split(",")):
            raise unreadable(path, "pyav", f"it is a list of other files ({container.format.name})")
        streams = video_streams(container)
        if not streams:
            raise unreadable(path, "pyav", "it holds no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise unreadable(path, "pyav", "FFmpeg has no decoder for its codec")
        check_pixels(path, stream.width, stream.height)
        sized = stream.width > 0
        stream.codec_context.options = options
        try:
            yield container, stream
        except av.error.ArgumentError as error:
            if sized:
                raise
            raise too_many_pixels(path, "by its codec, as its header has no size") from error


def video_streams(container: InputContainer) -> list[VideoStream]:
    """List the video streams that are not cover pictures."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def read_timeline(path: Path) -> Timeline:
    """Find the frames shown, without decoding if the format stores one frame per packet.

    The last few files are remembered, as long as they do not change: a long recording may hold many clips.

    Raises:
        PainseqError: missing, empty, truncated, or not a video; to be shown turned by other than quarter turns; damaged
            timestamps; pictures of more than `painseq.video.limits.max_pixels`.
    """
    if not path.is_file():
        raise PainseqError(f"No video at {path}.")
    state = path.stat()
    return _timeline(path, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns), max_pixels())


@lru_cache(maxsize=REMEMBERED)
def _timeline(path: Path, _state: tuple[int, ...], _max_pixels: int) -> Timeline:
    with opened(path) as (container, stream):
        size, expected_size = path.stat().st_size, _expected_bytes(path, container.format.name)
        if expected_size > size:
            raise unreadable(path, "pyav", f"it is truncated: {size} of {expected_size} bytes")
        name, codec, time_base = container.format.name, stream.codec.canonical_name, stream.time_base
        streams, pixel_aspect = len(video_streams(container)), stream.sample_aspect_ratio
        stated_frames = stream.frames
        transfer = int(stream.codec_context.color_trc)
        packets = _read_packets(path, container, stream)
    reordered = False
    if not (packets.timed and codec in _ONE_FRAME_PER_PACKET and name.startswith(_TRUSTED_CONTAINERS)):
        pts, end, reordered = _decoded_pts(path, name)
        packets = replace(packets, pts=pts, end=end, keys=[], hidden=0)
    if not packets.pts or time_base is None or packets.picture is None:
        raise unreadable(path, "pyav", "it holds no frame")
    try:
        display = read_display(packets.picture, pixel_aspect, transfer)
    except ValueError as error:
        raise unreadable(path, "pyav", error) from error
    check_pixels(path, *display.size)
    unique = np.unique(np.asarray(packets.pts, dtype=np.int64))
    step = int(np.median(np.diff(unique))) if len(unique) > 1 else 0
    end_pts = packets.end if packets.end > unique[-1] else int(unique[-1]) + step
    _check_steps(path, np.diff([*unique, end_pts]) * float(time_base))
    unique.flags.writeable = False
    return Timeline(
        pts=unique,
        key_pts=np.unique(np.asarray(packets.keys, dtype=np.int64)),
        time_base=time_base,
        end_pts=end_pts,
        hidden=packets.hidden,
        reordered=reordered,
        picture_bytes=display.width * display.height * 3 // 2,
        container=name,
        codec=codec,
        may_resize=codec in _RESIZING_CODECS or len(packets.settings) > 1,
        display=display,
        streams=streams,
        stated_frames=stated_frames,
    )


def _check_steps(path: Path, steps_s: NDArray[np.float64]) -> None:
    """Refuse timestamps that no camera makes: a span would hold no frame, or one frame billions of times."""
    if steps_s.max() > _LONGEST_STEP_S:
        reason = f"a frame lasts {steps_s.max():.3g} s"
    elif len(steps_s) > 1 and np.median(steps_s[:-1]) < _SHORTEST_STEP_S:
        reason = f"its frames are {np.median(steps_s[:-1]):.3g} s apart"
    else:
        return
    raise unreadable(path, "pyav", f"its timestamps are damaged: {reason}")


@dataclass
class _Packets:
    """What the packets of a stream say: as in `Timeline`; `timed`, whether all have a time; the first picture."""

    pts: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    settings: set[bytes] = field(default_factory=set)
    hidden: int = 0
    end: int = 0
    timed: bool = True
    picture: VideoFrame | None = None


def _read_packets(path: Path, container: InputContainer, stream: VideoStream) -> _Packets:
    found = _Packets()
    codec = stream.codec.canonical_name
    stream.codec_context.thread_count = 1  # Threads would delay the first picture.
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            number = len(found.pts) + found.hidden
            raise unreadable(path, "pyav", f"it is truncated: packet {number} is incomplete")
        if found.picture is None:
            found.picture = next(iter(packet.decode()), None)
        if packet.pts is None:
            found.timed = False
            continue
        if packet.is_keyframe:
            found.keys.append(packet.pts)
            if codec in _SETTINGS:
                found.settings |= _settings(bytes(packet), *_SETTINGS[codec])
        if packet.is_discard:
            found.hidden += 1
        else:
            found.pts.append(packet.pts)
            found.end = max(found.end, packet.pts + (packet.duration or 0))
    if found.picture is None:
        found.picture = next(iter(stream.decode(None)), None)
    return found


def _settings(packet: bytes, shift: int, mask: int, kind: int) -> set[bytes]:
    """Return the sequence parameter sets, which hold the picture's size, that an H.264 or H.265 packet contains."""
    found: set[bytes] = set()
    start = 0
    while start + 4 < len(packet):
        size = int.from_bytes(packet[start : start + 4], "big")
        if (packet[start + 4] >> shift) & mask == kind:
            found.add(packet[start + 4 : start + 4 + size])
        start += 4 + size
    return found


def _expected_bytes(path: Path, container: str) -> int:
    """Return the file size that its headers imply; 0 if they do not specify it.

    FFmpeg reads a file that ends between two packets as a shorter video, without an error. What a camera or a program
    appended to the video does not count.
    """
    with path.open("rb") as file:
        if container.startswith("matroska"):
            file.seek(4)
            file.seek(_ebml_size(file) or 0, 1)
            file.seek(4, 1)
            segment = _ebml_size(file)
            return 0 if segment is None else file.tell() + segment
        if container == "avi":
            return _end_of_chunks(file)
        return _end_of_boxes(file) if container.startswith("mov") else 0


def _end_of_boxes(file: BinaryIO) -> int:
    """Return where the last box of an MP4 or MOV file ends; 0 if it extends to the end of the file."""
    start, total = 0, file.seek(0, os.SEEK_END)
    while start < total:
        file.seek(start)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if size < 8 or header[4:8] not in _BOXES:  # less than 8 is padding, or a box that extends to the end
            break
        start += size
    return start


def _end_of_chunks(file: BinaryIO) -> int:
    """Return where the last chunk of an AVI file ends; its size as a whole is wrong in files of some programs."""
    start, total = 0, file.seek(0, os.SEEK_END)
    while start + 8 <= total:
        file.seek(start)
        header = file.read(8)
        if header[:4] == b"RIFF":
            start += 12
        elif header[:4] in _CHUNKS or re.fullmatch(rb"\d\d(dc|db|wb)", header[:4]):
            start += 8 + int.from_bytes(header[4:], "little")
            start += start % 2
        else:
            break
    return start - start % 2


def _ebml_size(file: BinaryIO) -> int | None:
    first = file.read(1)[0]
    extra = 8 - first.bit_length()
    size = int.from_bytes(bytes([first - (0x80 >> extra)]) + file.read(extra), "big")
    return None if size == (1 << (7 * (extra + 1))) - 1 else size


def _decoded_pts(path: Path, container_name: str) -> tuple[list[int], int, bool]:
    """Return the times of the frames, the end of the last one, and whether the file's times are those of decoding."""
    pts: list[int] = []
    end = 0
    with opened(path) as (container, stream):
        for frame in container.decode(stream):
            if frame.pts is None:
                raise unreadable(path, "pyav", f"frame {len(pts)} has no timestamp")
            pts.append(frame.pts)
            end = max(end, frame.pts + (frame.duration or 0))
    backwards = np.flatnonzero(np.diff(pts) <= 0)
    if not len(backwards):
        return pts, end, False
    times = np.sort(np.asarray(pts, dtype=np.int64))
    if container_name == "mpeg":
        # MPEG program streams time only the first frame of a group; FFmpeg may guess the others wrong by a frame.
        guessed, times = times, times[0] + int(np.median(np.diff(times))) * np.arange(len(times))
        if np.abs(times - guessed).max() > 1.5 * (times[1] - times[0]):
            times = guessed
    # AVI numbers the frames as they are stored, which with B-frames is not how they are shown.
    if container_name in ("avi", "mpeg") and np.all(np.diff(times) > 0):
        return times.tolist(), end, True
    raise unreadable(path, "pyav", f"the timestamps go backwards at frame {backwards[0] + 1}")


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder in the natural order of their names: img2 before img10.

    Hidden files, folders, and files without an image suffix are ignored.

    Raises:
        PainseqError: the folder holds no image, images of a format that is not read, or one image in two formats.
    """
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    names = sorted((name for name in found if name.lower().endswith(IMAGE_SUFFIXES)), key=_natural)
    if not names:
        raise PainseqError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    unread = sorted(name for name in found if name.lower().endswith(_UNREAD_IMAGE_SUFFIXES))
    if unread:
        raise PainseqError(
            f"{folder} holds images that are not read ({len(unread)}, such as {unread[0]}) beside {len(names)} that "
            f"are. Convert them to one of {', '.join(IMAGE_SUFFIXES)}, or move them out of the folder."
        )
    for name, following in itertools.pairwise(names):
        if Path(name).stem == Path(following).stem:
            raise PainseqError(f"{folder} holds the same image twice, {name} and {following}. Remove one of the two.")
    return [folder / name for name in names]


def _natural(name: str) -> tuple[list[str | int], str]:
    # Text and numbers alternate, so that text is compared with text and numbers with numbers.
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def image_times_s(folder: Path, count: int, image_fps: float | None) -> NDArray[np.float64]:
    """Return (count + 1,) seconds: the start of each image of a folder, and the end of the last one.

    Raises:
        PainseqError: `image_fps` is None, or not above 0.
    """
    if image_fps is None:
        raise PainseqError(
            f"{folder} is a folder of images, which has no frame rate. Set image_fps: in the column fps of a manifest, "
            "with --data.fps, or with painseq predict --image-fps."
        )
    if not (math.isfinite(image_fps) and image_fps > 0):
        raise PainseqError(f"{folder}: image_fps is {image_fps}; it must be more than 0.")
    times_s: NDArray[np.float64] = np.arange(count + 1) / image_fps
    return times_s


def probe_duration_s(path: Path, image_fps: float | None = None) -> float:
    """Return the duration that the container states, in seconds: fast, and accurate to about one frame.

    A header that states none, or more than a day, is not believed: the frames tell.

    Args:
        path: the file, or a folder of images.
        image_fps: images per second; required for a folder.

    Raises:
        PainseqError: the video is missing or unreadable; a folder without images or `image_fps`.
    """
    if path.is_dir():
        return float(image_times_s(path, len(image_files(path)), image_fps)[-1])
    with opened(path) as (container, stream):
        # The container's duration respects an edit list; the stream's includes hidden frames.
        # That of an MPEG program stream is a guess from its last timestamp, which may lie many frames before the end.
        stated_s = 0.0
        if container.format.name != "mpeg" and container.duration is not None:
            stated_s = container.duration / 1_000_000
        elif container.format.name != "mpeg" and stream.duration is not None and stream.time_base is not None:
            stated_s = float(stream.duration * stream.time_base)
        if 0 < stated_s < _LONGEST_STATED_S:
            return stated_s
    return read_timeline(path).duration_s


SHORT_DIGEST = 16
"""Hex digits of a digest (64 bits) that recognise a video: among 10,000 videos, two agree by chance once in 10^11."""


def video_digest(path: Path, image_fps: float | None = None) -> str:
    """Return a quick digest of a video's content: sha256 (hex) over its size and its first and last MiB.

    A change that keeps the size and both ends is not detected; in a video file this does not happen by accident. For a
    folder of images the digest covers names, sizes, the content of the first and the last image, and `image_fps`, which
    sets their times, but not the folder's name.
    """
    if path.is_dir():
        files = image_files(path)
        names = [(file.name, file.stat().st_size) for file in files]
        state = hashlib.sha256(repr([None if image_fps is None else float(image_fps), names]).encode())
        for file in (files[0], files[-1]):
            state.update(file.read_bytes())
        return state.hexdigest()
    if not path.is_file():
        raise PainseqError(f"No video at {path}.")
    size = path.stat().st_size
    state = hashlib.sha256(str(size).encode())
    with path.open("rb") as content:
        state.update(content.read(_MIB))
        content.seek(max(0, size - _MIB))
        state.update(content.read(_MIB))
    return state.hexdigest()


def bare_name(video: Path) -> str:
    """Return a video's name without its suffix; the name of a folder of images is kept, including its dots."""
    return video.stem if video.suffix.lower() in VIDEO_SUFFIXES or video.is_file() else video.name
