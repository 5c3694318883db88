"""What a video says of itself, a file or a folder of images: which frames it shows, how long it lasts, which it is."""

from __future__ import annotations

import hashlib
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

_ONE_FRAME_A_PACKET = ("h264", "hevc", "mpeg4", "vp9", "av1", "mjpeg")
_TRUSTED_CONTAINERS = ("mov", "matroska")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_MIB = 1 << 20
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Timeline:
    """The frames of a video's first video stream that a player shows, in order.

    Args:
        pts: (N,) int64, the container's time stamps, increasing.
        key_pts: (K,) int64, time stamps of the key frames, at which decoding can start; increasing.
        time_base: seconds of one unit of `pts`.
        end_pts: where the last frame ends.
        hidden: frames stored in the file that its edit list hides.
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
        """From the first frame's start to the last one's end."""
        return float((self.end_pts - int(self.pts[0])) * self.time_base)


def unreadable(path: Path, backend: str, reason: object) -> PainseqError:
    """The error for a file that cannot be read; names file, backend and reason."""
    return PainseqError(
        f"{path} cannot be read as a video by {backend}: {reason}. Is the file complete? Copy or convert it again."
    )


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream, for PyAV; decoding errors inside become a `PainseqError`."""
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
    """Find the frames shown, without decoding where the format gives one frame a packet.

    Raises:
        PainseqError: missing, empty, truncated, or not a video.
    """
    with opened(path) as (container, stream):
        size, promised = path.stat().st_size, _promised_bytes(path, container.format.name)
        if promised > size:
            raise unreadable(path, "pyav", f"it is cut off; {size} of {promised} bytes are there")
        name, codec, time_base = container.format.name, stream.codec.name, stream.time_base
        width, height = stream.width, stream.height
        pts: list[int] = []
        keys: list[int] = []
        hidden, end = 0, 0
        packets_tell = codec in _ONE_FRAME_A_PACKET and name.startswith(_TRUSTED_CONTAINERS)
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise unreadable(path, "pyav", f"it is cut off; packet {len(pts) + hidden} is incomplete")
            if packet.pts is None:
                packets_tell = False
                continue
            if packet.is_keyframe:
                keys.append(packet.pts)
            if packet.is_discard:
                hidden += 1
            else:
                pts.append(packet.pts)
                end = max(end, packet.pts + (packet.duration or 0))
    if not packets_tell:
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


def _promised_bytes(path: Path, container: str) -> int:
    """How large the file must be by its own headers; 0 where they do not tell.

    Needed because FFmpeg takes a file that ends between two packets for a shorter video.
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
            if size < 8:  # 0 is a box that goes on to the end of the file; less than 8 is padding
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
                raise unreadable(path, "pyav", f"frame {len(pts)} has no time stamp")
            if pts and frame.pts <= pts[-1]:
                raise unreadable(path, "pyav", f"the time stamps go backwards at frame {len(pts)}")
            pts.append(frame.pts)
            end = max(end, frame.pts + (frame.duration or 0))
    return pts, end


def image_files(folder: Path) -> list[Path]:
    """The images of a folder in the natural order of their names: img2 before img10.

    Hidden files, folders, and files without the suffix of an image are left alone.

    Raises:
        PainseqError: no image in it.
    """
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(_IMAGE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
        ]
    if not names:
        raise PainseqError(f"{folder} holds no image ({', '.join(_IMAGE_SUFFIXES)}).")
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[str | int], str]:
    # Text and numbers take turns, so that like is compared with like.
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def image_times_s(folder: Path, count: int, image_fps: float | None) -> NDArray[np.float64]:
    """(count + 1,) when each image of a folder is shown, in seconds, and when the last one ends.

    Raises:
        PainseqError: `image_fps` is not known, or not more than 0.
    """
    if image_fps is None:
        raise PainseqError(
            f"{folder} is a folder of images, which do not tell how many there are a second. Say so: in the column fps "
            "of a manifest, with --data.fps, or with painseq predict --image-fps."
        )
    if not (math.isfinite(image_fps) and image_fps > 0):
        raise PainseqError(f"{folder}: {image_fps} images a second; it must be more than 0.")
    times_s: NDArray[np.float64] = np.arange(count + 1) / image_fps
    return times_s


def probe_duration_s(path: Path, image_fps: float | None = None) -> float:
    """How long the video lasts by its container's own word, in seconds: cheap, and right to about a frame.

    Args:
        path: the file, or a folder of images.
        image_fps: images a second; a folder needs it.

    Raises:
        PainseqError: missing, unreadable, or a container that does not tell; a folder without images or `image_fps`.
    """
    if path.is_dir():
        return float(image_times_s(path, len(image_files(path)), image_fps)[-1])
    with opened(path) as (container, stream):
        # The container's figure honours an edit list; the stream's counts what the list hides.
        if container.duration is not None:
            return container.duration / 1_000_000
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
    return read_timeline(path).duration_s


def video_digest(path: Path, image_fps: float | None = None) -> str:
    """Quick identity of a file's content: sha256 (hex) over its size and its first and last MiB.

    A change that leaves the size and both ends alone goes unseen; in a video file that takes a deliberate hand. Of a
    folder of images, names and sizes count, the content of the first and the last one, and `image_fps`, which decides
    what is shown when; not the folder's own name.
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
    """A video's name without its suffix; a folder of images has none, whatever dots are in its name."""
    return video.stem if video.suffix.lower() in VIDEO_SUFFIXES or video.is_file() else video.name
