"""Finding a data set's files: hidden ones are left alone, and suffixes count in any case."""

from __future__ import annotations

from pathlib import Path


def mp4_files(folder: Path, pattern: str) -> list[Path]:
    """Videos below a folder that fit a pattern of `Path.glob`, in order; "**/*" is any depth."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() == ".mp4" and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in order; none where it is not there."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
