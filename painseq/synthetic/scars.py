"""Add typical defects ("scars") of real data sets to a generated one.

Each scar is a function that damages a finished data set and describes the damage. Scars of several layouts are here,
the others in the file of their layout.
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
        name: name of the function that made it.
        what: description of the damage.
        where: damaged files or folders, as paths relative to the root.
    """

    name: str
    what: str
    where: tuple[str, ...]


def pick_clips(jobs: Sequence[ClipJob], count: int) -> list[ClipJob]:
    """Draw different clips to damage, by the data set's seed.

    Raises:
        PainseqError: there are fewer than `count` clips.
    """
    if len(jobs) < count:
        raise PainseqError(f"Scars need {count} different clips; this data set has {len(jobs)}. Make it larger.")
    rng = rng_of(jobs[0].seed, jobs[0].data_set, 1 << 31)
    return [jobs[i] for i in rng.permutation(len(jobs))[:count].tolist()]


def below(root: Path, path: Path) -> str:
    """Return the path relative to the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def truncated_video(job: ClipJob) -> Scar:
    """Cut a video in half; in a folder of images, cut the middle image in half."""
    path = job.video
    if job.images:
        path = path / job.images.format(job.frames // 2 + 1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return Scar("truncated_video", "the second half of the file is missing", (below(job.root, path),))


def short_clip(job: ClipJob, duration_s: float) -> Scar:
    """Shorten a recording, as if it had been interrupted."""
    write_start(job.video, job, duration_s)
    return Scar("short_clip", f"lasts {duration_s:g} s, not {job.duration_s:g} s", (below(job.root, job.video),))


def duplicate_clip(job: ClipJob, item: str) -> Scar:
    """Copy a video and its sidecar to another name."""
    copy = job.root / (item if job.images else f"{item}.mp4")
    if job.images:
        shutil.copytree(job.video, copy)
    else:
        shutil.copyfile(job.video, copy)
    shutil.copyfile(job.sidecar, job.root / f"{item}.faces.safetensors")
    where = (below(job.root, job.video), below(job.root, copy))
    return Scar("duplicate_clip", "the second has the content of the first", where)


def stray_video(name: str, what: str, job: ClipJob, path: Path) -> Scar:
    """Add one second of video under a name that the layout does not have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_start(path, job, 1.0)
    return Scar(name, what, (below(job.root, path),))


def stray_files(name: str, what: str, root: Path, content: bytes, paths: Sequence[Path]) -> Scar:
    """Add files that do not belong to the data set."""
    for path in paths:
        path.write_bytes(content)
    return Scar(name, what, tuple(below(root, path) for path in paths))
