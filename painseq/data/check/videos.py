"""Properties of the videos of a data set."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from painseq.errors import CLIP_FAILURES, reason_of
from painseq.records import Clip
from painseq.video import open_video, read_chunks, video_digest
from painseq.video.ahead import read_ahead
from painseq.video.container import image_files


@dataclass(frozen=True)
class VideoFacts:
    """Properties of one video.

    Args:
        video: path relative to the root.
        problem: why it cannot be read; other properties are then empty.
        frames: number of frames.
        fps: frames per second; None for a single frame.
        duration_s: duration in seconds.
        digest: digest of the content.
    """

    video: str
    problem: str = ""
    frames: int = 0
    fps: float | None = None
    duration_s: float = 0.0
    digest: str = ""


def read_videos(
    root: Path,
    by_video: Mapping[str, Sequence[Clip]],
    deep: bool,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, VideoFacts]:
    """Read the properties of each video, in the order of `by_video`.

    Args:
        root: folder that paths are relative to.
        by_video: path -> clips of the video.
        deep: decode every frame.
        workers: number of threads.
        on_progress: called with the number of videos done, and the number of all videos.
    """

    def read(video: str) -> VideoFacts:
        return _read_video(root, video, by_video[video][0].fps, deep)

    found: dict[str, VideoFacts] = {}
    on_progress(0, len(by_video))
    with closing(read_ahead(by_video, lambda video: [read(video)], workers, 2 * workers)) as read_videos:
        for facts in read_videos:
            found[facts.video] = facts
            on_progress(len(found), len(by_video))
    return {video: found[video] for video in by_video}


def _read_video(root: Path, video: str, image_fps: float | None, deep: bool) -> VideoFacts:
    path = root / video
    try:
        digest = _content_digest(path)
        # decord shows damaged pictures without an error.
        with open_video(path, backend="pyav" if deep and path.is_file() else "auto", image_fps=image_fps) as opened:
            if deep:
                for _ in read_chunks(opened):
                    pass
            else:
                opened.frames(np.unique([0, len(opened) - 1]))
            times_s = opened.times_s
            fps = (len(times_s) - 1) / float(times_s[-1] - times_s[0]) if len(times_s) > 1 else None
            return VideoFacts(video, "", len(times_s), fps, opened.duration_s, digest)
    except CLIP_FAILURES as error:
        # The item of the finding already starts with the path.
        return VideoFacts(video, problem=below(root, reason_of(error)).removeprefix(f"{video} "))


def _content_digest(path: Path) -> str:
    """Digest as `video_digest`, but without the names of images in a folder, which may contain the folder's name."""
    if not path.is_dir():
        return video_digest(path)
    files = image_files(path)
    state = hashlib.sha256(repr([file.stat().st_size for file in files]).encode())
    for file in (files[0], files[-1]):
        state.update(file.read_bytes())
    return state.hexdigest()


def below(root: Path, text: object) -> str:
    """Remove the root of the data set from a message."""
    return str(text).replace(f"{root}{os.sep}", "")


def available_s(clip: Clip, facts: VideoFacts) -> float:
    """Seconds of the clip that its video covers; NaN if the video cannot be read."""
    if facts.problem:
        return math.nan
    return max(0.0, min(facts.duration_s, clip.end_s or math.inf) - clip.start_s)
