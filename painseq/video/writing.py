"""Write H.264 videos."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, *, crf: int = 23) -> int:
    """Encode frames as H.264 (yuv420p); the file appears only when it is complete.

    Args:
        path: output file; its suffix sets the container, e.g. ".mp4". Its folder is created if missing.
        frames: (H, W, 3) RGB uint8, all of the same size, with even height and width.
        fps: frames per second, above 0.
        crf: x264's constant rate factor, 0 (lossless) to 51.

    Returns:
        Number of frames written.

    Raises:
        PainseqError: no frames, a frame of another shape or type, or a full disk; no partial file remains.
    """
    import av

    if not fps > 0:
        raise PainseqError(f"fps is {fps}; it must be more than 0.")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise PainseqError(f"No frames to write to {path}.")
    if first.ndim != 3 or first.shape[0] % 2 or first.shape[1] % 2:
        raise PainseqError(f"{path}: a frame is {first.shape}; H.264 needs (height, width, 3) with even sides.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    count = 0
    try:
        # A Python file instead of a name: FFmpeg's own file layer loses an error at the very end.
        with partial.open("wb") as file, av.open(file, "w", format=_FORMATS.get(path.suffix.lower())) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1_000_000))
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = "yuv420p"
            # With macroblock trees x264 wrote a different file each time for the same frames (libx264 of PyAV 18.1).
            stream.options = {"preset": "veryfast", "crf": str(crf), "x264-params": "mbtree=0"}
            # x264's output depends on the number of threads, which should not depend on the machine.
            stream.codec_context.thread_count = 1
            for frame in itertools.chain([first], iterator):
                if frame.shape != first.shape or frame.dtype != np.uint8:
                    raise PainseqError(
                        f"{path}: frame {count} is {frame.shape} {frame.dtype}, not {first.shape} uint8."
                    )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
                count += 1
            container.mux(stream.encode())
        partial.replace(path)
    except (av.error.FFmpegError, OSError) as error:
        raise PainseqError(f"{path} cannot be written: {error}. Is the disk full?") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
