"""What each video of a data set tells when it is opened."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from painseq.errors import PainseqError
from painseq.records import Clip
from painseq.video import open_video, read_chunks, video_digest
from painseq.video.container import image_files


@dataclass(frozen=True)
class VideoFacts:
    """What one video told when it was opened.

    Args:
        problem: why it cannot be read; the rest is then empty.
        fps: frames a second, None for a single frame.
        digest: of the content.
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
    """The facts of each video, in the manifest's order."""

    def work(video: str) -> VideoFacts:
        return _read_video(root, video, by_video[video][0].fps, deep)

    found: dict[str, VideoFacts] = {}
    on_progress(0, len(by_video))
    # Its threads do not hold the process back when it is interrupted.
    with ThreadPool(workers) as pool:
        for facts in pool.imap_unordered(work, by_video):
            found[facts.video] = facts
            on_progress(len(found), len(by_video))
    return {video: found[video] for video in by_video}


def _read_video(root: Path, video: str, image_fps: float | None, deep: bool) -> VideoFacts:
    path = root / video
    try:
        digest = _content_digest(path)
        with open_video(path, image_fps=image_fps) as opened:
            if deep:
                for _ in read_chunks(opened):
                    pass
            else:
                opened.frames(np.unique([0, len(opened) - 1]))
            times_s = opened.times_s
            fps = (len(times_s) - 1) / float(times_s[-1] - times_s[0]) if len(times_s) > 1 else None
            return VideoFacts(video, "", len(times_s), fps, opened.duration_s, digest)
    except (PainseqError, OSError) as error:
        # The item begins with the path already.
        return VideoFacts(video, problem=below(root, error).removeprefix(f"{video} "))


def _content_digest(path: Path) -> str:
    """As `video_digest`, but the names of a folder's images, which may repeat the folder's, do not count."""
    if not path.is_dir():
        return video_digest(path)
    files = image_files(path)
    state = hashlib.sha256(repr([file.stat().st_size for file in files]).encode())
    for file in (files[0], files[-1]):
        state.update(file.read_bytes())
    return state.hexdigest()


def below(root: Path, error: object) -> str:
    """A message without the place of the data set on this machine."""
    return str(error).replace(f"{root}{os.sep}", "")


def available_s(clip: Clip, facts: VideoFacts) -> float:
    """Seconds of the clip that its video holds; NaN if it cannot be read."""
    if facts.problem:
        return math.nan
    return max(0.0, min(facts.duration_s, clip.end_s or math.inf) - clip.start_s)
