"""Metadata of videos, files and folders of images: the frames shown, the duration, a digest of the content."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_ONE_FRAME_PER_PACKET = ("h264", "hevc", "mpeg4", "vp9", "av1", "mjpeg")
_TRUSTED_CONTAINERS = ("mov", "matroska")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_UNREAD_IMAGE_SUFFIXES = (".avif", ".dng", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm", ".tga")
_MIB = 1 << 20
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Timeline:
    """The frames of a file's first video stream that a player shows, in order.

    Args:
        pts: (N,) int64, the container's timestamps, increasing.
        key_pts: (K,) int64, timestamps of the key frames, at which decoding can start; increasing.
        time_base: seconds per unit of `pts`.
        end_pts: end of the last frame.
        hidden: number of stored frames that the file's edit list hides.
        picture_bytes: size of one decoded picture (yuv420p).
        container: FFmpeg's name of the format, e.g. "mov,mp4,m4a,3gp,3g2,mj2".
    """

    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    time_base: Fraction
    end_pts: int
    hidden: int
    picture_bytes: int
    container: str

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


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and its first video stream with PyAV; decoding errors inside become a `PainseqError`."""
    import av

    if not path.is_file():
        raise PainseqError(f"No video at {path}.")
    if path.stat().st_size == 0:
        raise unreadable(path, "pyav", "the file is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise unreadable(path, "pyav", "it holds no video stream")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        raise unreadable(path, "pyav", error) from error


def read_timeline(path: Path) -> Timeline:
    """Find the frames shown, without decoding if the format stores one frame per packet.

    Raises:
        PainseqError: missing, empty, truncated, or not a video.
    """
    with opened(path) as (container, stream):
        size, expected_size = path.stat().st_size, _expected_bytes(path, container.format.name)
        if expected_size > size:
            raise unreadable(path, "pyav", f"it is truncated: {size} of {expected_size} bytes")
        name, codec, time_base = container.format.name, stream.codec.name, stream.time_base
        width, height = stream.width, stream.height
        pts: list[int] = []
        keys: list[int] = []
        hidden, end = 0, 0
        one_frame_per_packet = codec in _ONE_FRAME_PER_PACKET and name.startswith(_TRUSTED_CONTAINERS)
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise unreadable(path, "pyav", f"it is truncated: packet {len(pts) + hidden} is incomplete")
            if packet.pts is None:
                one_frame_per_packet = False
                continue
            if packet.is_keyframe:
                keys.append(packet.pts)
            if packet.is_discard:
                hidden += 1
            else:
                pts.append(packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
    if not one_frame_per_packet:
        pts, end = _decoded_pts(path)
        keys, hidden = [], 0
    if not pts or time_base is None:
        raise unreadable(path, "pyav", "it holds no frame")
    unique = np.unique(np.asarray(pts, dtype=np.int64))
    step = int(np.median(np.diff(unique))) if len(unique) > 1 else 0
    return Timeline(
        pts=unique,
        key_pts=np.unique(np.asarray(keys, dtype=np.int64)),
        time_base=time_base,
        end_pts=end if end > unique[-1] else int(unique[-1]) + step,
        hidden=hidden,
        picture_bytes=width * height * 3 // 2,
        container=name,
    )


def _expected_bytes(path: Path, container: str) -> int:
    """Return the file size that its headers imply; 0 if they do not specify it.

    FFmpeg reads a file that ends between two packets as a shorter video, without an error.
    """
    with path.open("rb") as file:
        if container == "avi":
            return 8 + int.from_bytes(file.read(8)[4:], "little")
        if container.startswith("matroska"):
            file.seek(4)
            file.seek(_ebml_size(file) or 0, 1)
            file.seek(4, 1)
            segment = _ebml_size(file)
            return 0 if segment is None else file.tell() + segment
        if not container.startswith("mov"):
            return 0
        start, total = 0, path.stat().st_size
        while start < total:
            file.seek(start)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            if size == 1:
                size = int.from_bytes(header[8:], "big")
            if size < 8:  # 0 is a box that extends to the end of the file; less than 8 is padding
                return 0
            start += size
        return start


def _ebml_size(file: BinaryIO) -> int | None:
    first = file.read(1)[0]
    extra = 8 - first.bit_length()
    size = int.from_bytes(bytes([first - (0x80 >> extra)]) + file.read(extra), "big")
    return None if size == (1 << (7 * (extra + 1))) - 1 else size


def _decoded_pts(path: Path) -> tuple[list[int], int]:
    pts: list[int] = []
    end = 0
    with opened(path) as (container, stream):
        for frame in container.decode(stream):
            if frame.pts is None:
                raise unreadable(path, "pyav", f"frame {len(pts)} has no timestamp")
            if pts and frame.pts <= pts[-1]:
                raise unreadable(path, "pyav", f"the timestamps go backwards at frame {len(pts)}")
            pts.append(frame.pts)
            end = max(end, frame.pts + (frame.duration or 0))
    return pts, end


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
        if container.duration is not None:
            return container.duration / 1_000_000
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
    return read_timeline(path).duration_s


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
