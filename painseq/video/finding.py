"""Find the videos of a folder."""

from __future__ import annotations

from pathlib import Path

from painseq.video.container import VIDEO_SUFFIXES


def videos_in(path: Path) -> list[Path]:
    """Return the videos in a folder, at any depth, sorted by path; hidden files do not count.

    A path without any is itself the video: a file, or a folder of images.
    """
    inside = sorted(path.rglob("*")) if path.is_dir() else []
    videos = [file for file in inside if file.suffix.lower() in VIDEO_SUFFIXES and not file.name.startswith(".")]
    return videos or [path]
