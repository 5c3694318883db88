"""Contact sheets of data sets: one clip of each class for some subjects."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.data.datamodule import PainDataModule
from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.explain.drawing import contact_sheet
from painseq.faces import FaceCrops
from painseq.files import write_atomically
from painseq.records import Clip, Manifest
from painseq.video import open_video
from painseq.video.generated import is_generated

PICTURE_PX = 224
log = logging.getLogger("painseq")


def write_contact_sheet(
    data: PainDataModule, out: str | Path, subjects: int = 6, show_faces: bool = False
) -> list[Clip]:
    """Draw the middle frame of one clip of each class for some subjects, cropped to the face if one is found.

    Args:
        out: PNG to write.
        subjects: number of subjects, evenly spaced over the data set.
        show_faces: draw faces even if they may be patients'.

    Returns:
        The clips drawn.

    Raises:
        PainseqError: no clip has a label, or faces are not generated and `show_faces` is False.

    Example:
        >>> from painseq.studies.contact_sheet import write_contact_sheet
        >>> write_contact_sheet(data, Path("sheet.png"), subjects=3)
    """
    out = Path(out)
    if subjects < 1:
        raise PainseqError(f"subjects is {subjects}; it must be 1 or more.")
    manifest, names = data.manifest, data.scheme.groups
    chosen = _one_per_class(data, subjects)
    if not chosen:
        raise PainseqError(f"{data.name} has no clip with a known label, so there is nothing to draw.")
    real = [clip for clip in chosen.values() if not is_generated(manifest.path(clip))]
    if real and not show_faces:
        raise PainseqError(
            f"{real[0].video} is not known to be generated, so its face may be a patient's and is not drawn. If "
            "everyone who gets the picture may see the faces, set show_faces (command line: --show-faces)."
        )
    pictures, titles = [], []
    for subject in dict.fromkeys(subject for subject, _ in chosen):
        for name in names:
            clip = chosen.get((subject, name))
            picture, note = _middle(manifest, clip, data.options.face) if clip is not None else (_blank(), "no clip")
            pictures.append(picture)
            titles.append(_title(subject if clip is None else clip.clip_id, name, note))
    write_atomically(out, contact_sheet(pictures, titles, columns=len(names)))
    return list(chosen.values())


def _one_per_class(data: PainDataModule, subjects: int) -> dict[tuple[str, str], Clip]:
    """Return (subject, class) -> the first such clip, for subjects evenly spaced over the data set."""
    first: dict[tuple[str, str], Clip] = {}
    for clip in data.manifest:
        group = data.scheme.group(clip.label)
        if group is not None:
            first.setdefault((clip.subject_id, group), clip)
    named = sorted({subject for subject, _ in first})
    places = np.linspace(0, len(named) - 1, min(subjects, len(named))).round().astype(int)
    chosen = [named[place] for place in places]
    return {key: first[key] for subject in chosen for key in first if key[0] == subject}


def _middle(manifest: Manifest, clip: Clip, face: FaceCrops | None) -> tuple[NDArray[np.uint8], str]:
    """Return the face in the middle frame of a clip, or the whole frame if none is found, and a note."""
    path = manifest.path(clip)
    try:
        with open_video(path, image_fps=clip.fps) as video:
            end_s = min(video.duration_s, clip.end_s or video.duration_s)
            middle = int(np.abs(video.times_s - (clip.start_s + end_s) / 2).argmin())
            frame = video.frames(np.array([middle]))[0]
            time_s = float(video.times_s[middle])
            after_s = float(video.times_s[middle + 1]) if middle + 1 < len(video) else None
        chunk = None if face is None else next(face.clip(path, time_s, after_s, image_fps=clip.fps))
    except CLIP_FAILURES as error:
        log.warning("%s cannot be drawn: %s", clip.clip_id, reason_of(error))
        return _blank(), "cannot be read"
    if chunk is not None and chunk.present[0]:
        return chunk.crops[0].transpose(1, 2, 0), ""
    small = Image.fromarray(frame)
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    return np.asarray(small), "" if face is None else "no face found"


def _blank() -> NDArray[np.uint8]:
    return np.full((PICTURE_PX, PICTURE_PX, 3), 230, np.uint8)


def _title(clip_id: str, class_name: str, note: str) -> str:
    # A column is about this many characters wide; ids differ at the end.
    short = clip_id.rpartition("/")[2]
    short = short if len(short) <= 20 else f"…{short[-19:]}"
    return "\n".join([short, class_name, *([note] if note else [])])
