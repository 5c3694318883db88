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


def root_is_generated(root: Path) -> bool | None:
    """Whether a data set's root is marked as generated; None if it does not exist, or if a folder above is marked."""
    root = root.resolve()
    if (root / MARKER).is_file():
        return True
    unknown = not root.is_dir() or any((folder / MARKER).is_file() for folder in root.parents)
    return None if unknown else False


def other_faces_warning(fitted_on_generated: bool | None, generated: bool | None) -> str | None:
    """Describe a model of generated faces alone that is given real ones, or the reverse; None if neither is known."""
    if fitted_on_generated is None or generated is None or fitted_on_generated is generated:
        return None
    if fitted_on_generated:
        return (
            "the model was fitted on generated faces alone, but this is not known to be generated: its answer says "
            "nothing about the pain of real people."
        )
    return "the model was fitted on real faces, but this is generated: the answer does not show how good the model is."


def truth_of(video: Path) -> Path | None:
    """Return the truth file of a generated video; None for any other video."""
    video = video.resolve()
    root = next((folder for folder in video.parents if (folder / MARKER).is_file()), None)
    if root is None:
        return None
    path = truth_folder(root) / video.relative_to(root).parent / f"{bare_name(video)}.safetensors"
    return path if path.is_file() else None
