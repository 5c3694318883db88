"""The mark of generated data: which videos painseq drew itself, and where their truth lies."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from painseq.errors import PainseqError
from painseq.video.container import bare_name, video_digest

MARKER = "painseq_synthetic.json"


def truth_folder(root: Path) -> Path:
    """Where the truth of a generated data set lies: beside its root, so that no scan of the root finds it."""
    return root.parent / f"{root.name}_truth"


def is_generated(path: Path) -> bool:
    """Whether a data set's root is marked as generated, or a video is the very one that was generated in its place.

    A video is known by its truth, which holds its digest: a folder above it may be marked, and yet somebody has put the
    videos of people below it. Where the truth is not to be found, no video counts as generated.
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
    except (PainseqError, SafetensorError):
        # Whatever cannot be proved to be generated may be a person's.
        return False


def truth_of(video: Path) -> Path | None:
    """Where the truth of a generated video lies; None for any other video."""
    video = video.resolve()
    root = next((folder for folder in video.parents if (folder / MARKER).is_file()), None)
    if root is None:
        return None
    path = truth_folder(root) / video.relative_to(root).parent / f"{bare_name(video)}.safetensors"
    return path if path.is_file() else None
