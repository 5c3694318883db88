"""Defects that copies of real data sets have, given to a generated one on purpose.

A scar is one small function: it damages a finished data set and says what it did where. Those that several layouts
share stand here; the others in the file of their layout.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from painseq.errors import PainseqError
from painseq.synthetic.clips import ClipJob, rng_of, write_start


@dataclass(frozen=True)
class Scar:
    """One defect.

    Args:
        name: of the function that made it.
        what: was done, for people.
        where: files or folders concerned, as paths below the root.
    """

    name: str
    what: str
    where: tuple[str, ...]


def pick_clips(jobs: Sequence[ClipJob], count: int) -> list[ClipJob]:
    """Different clips to damage, drawn by the data set's seed.

    Raises:
        PainseqError: there are not so many.
    """
    if len(jobs) < count:
        raise PainseqError(f"Scars take {count} different clips; this data set has {len(jobs)}. Make it larger.")
    rng = rng_of(jobs[0].seed, jobs[0].data_set, 1 << 31)
    return [jobs[i] for i in rng.permutation(len(jobs))[:count].tolist()]


def below(root: Path, path: Path) -> str:
    """The path as a scar names it."""
    return path.relative_to(root).as_posix()


def truncated_video(job: ClipJob) -> Scar:
    """Half of a video is missing; of a folder of images, half of the image in its middle."""
    path = job.video
    if job.images:
        path = path / job.images.format(job.frames // 2 + 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return Scar("truncated_video", "the second half of the file is missing", (below(job.root, path),))


def short_clip(job: ClipJob, duration_s: float) -> Scar:
    """A recording that was broken off."""
    write_start(job.video, job, duration_s)
    return Scar("short_clip", f"lasts {duration_s:g} s, not {job.duration_s:g} s", (below(job.root, job.video),))


def duplicate_clip(job: ClipJob, item: str) -> Scar:
    """The same video again under another name, with its sidecar."""
    copy = job.root / (item if job.images else f"{item}.mp4")
    if job.images:
        shutil.copytree(job.video, copy)
    else:
        shutil.copyfile(job.video, copy)
    shutil.copyfile(job.sidecar, job.root / f"{item}.faces.safetensors")
    where = (below(job.root, job.video), below(job.root, copy))
    return Scar("duplicate_clip", "the second has the content of the first", where)


def stray_video(name: str, what: str, job: ClipJob, path: Path) -> Scar:
    """A second of video under a name that the layout does not know."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_start(path, job, 1.0)
    return Scar(name, what, (below(job.root, path),))


def stray_files(name: str, what: str, root: Path, content: bytes, paths: Sequence[Path]) -> Scar:
    """Files that are no part of the data set."""
    for path in paths:
        path.write_bytes(content)
    return Scar(name, what, tuple(below(root, path) for path in paths))
