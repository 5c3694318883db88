"""Recognise generated data: which videos painseq drew itself, and where their truth is stored."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from painseq.errors import PainseqError
from painseq.video.container import bare_name, video_digest

MARKER = "painseq_synthetic.json"


def truth_folder(root: Path) -> Path:
    """Return the folder of a generated data set's truth: next to its root, so that scans of the root skip it."""
    return root.parent / f"{root.name}_truth"


def is_generated(path: Path) -> bool:
    """Whether a data set's root is marked as generated, or a video is the one that was generated at this path.

    A video is recognised by the digest in its truth file: videos of real people may have been copied below a marked
    folder. Without a truth file, a video does not count as generated.
    """
    path = path.resolve()
    if (path / MARKER).is_file():
        return True
    truth = truth_of(path)
    if truth is None:
        return False
    try:
        with safe_open(truth, "np") as file:
            recorded = (file.metadata() or {}).get("video")
        return recorded == video_digest(path)
    except (PainseqError, SafetensorError, OSError):
        # A video that is not provably generated may show a real person.
        return False


def truth_of(video: Path) -> Path | None:
    """Return the truth file of a generated video; None for any other video."""
    video = video.resolve()
    root = next((folder for folder in video.parents if (folder / MARKER).is_file()), None)
    if root is None:
        return None
    path = truth_folder(root) / video.relative_to(root).parent / f"{bare_name(video)}.safetensors"
    return path if path.is_file() else None
