"""Generate heat pain in BioVid's layout, as videos or as folders of JPEG frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from painseq.errors import PainseqError
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, draw_subject, rng_of
from painseq.synthetic.scars import Scar, duplicate_clip, pick_clips, short_clip, truncated_video
from painseq.synthetic.writing import GeneratedSet, check_counts, read_table, write_dataset, write_table

DATA_SET = 0
CLIP_S = 5.5
LEVELS = ("BL1", "PA1", "PA2", "PA3", "PA4")
MAX_SUBJECTS = 6 * 28 * 12
COLUMNS = ["subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name"]


@dataclass(frozen=True)
class BioVidPlan:
    """A heat-pain data set: subjects x levels x trials clips of 5.5 s.

    Args:
        subjects: number of subjects.
        trials: clips per class and subject.
        levels: native classes, from BL1 and PA1 to PA4.
        fps: frame rate of the videos; 25 in the original data set.
        size_px: height and width of the frames; an even number.
    """

    subjects: int = 24
    trials: int = 4
    levels: tuple[str, ...] = LEVELS
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        check_counts(self.fps, self.size_px, subjects=self.subjects, trials=self.trials)
        wrong = [level for level in self.levels if level not in LEVELS]
        if wrong or not self.levels or len(set(self.levels)) < len(self.levels):
            raise PainseqError(
                f"levels is {', '.join(self.levels) or 'empty'}; list each wanted class once, from {', '.join(LEVELS)}."
            )
        if self.subjects > MAX_SUBJECTS:
            raise PainseqError(f"subjects is {self.subjects}; BioVid's naming scheme allows at most {MAX_SUBJECTS}.")


def write_biovid(
    root: Path,
    plan: BioVidPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write a heat-pain data set in BioVid's layout; existing clips are kept.

    The files are `PartA/video/<subject>/<sample>.mp4`, `<sample>.faces.safetensors` with face boxes and landmarks next
    to each video, `samples.csv` and a marker.

    Args:
        root: folder of the data set.
        plan: size of the data set.
        seed: seed of everything drawn.
        workers: number of processes that draw.
        on_progress: called with the number of finished frames and of all frames.
        scars: add typical defects of real copies, listed in `scars.json` in the truth.

    Returns:
        The folder of the truth, next to `root`.

    Raises:
        PainseqError: the folder holds other files, or a generated set with another plan or seed; too few clips for
            scars.
    """
    return _write("biovid", Path(root), plan, seed, workers, on_progress, scars)


def write_biovid_frames(
    root: Path,
    plan: BioVidPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write the same clips as folders of JPEG frames, `<class>/<sample>/img_00001.jpg` below `root`.

    `<sample>.faces.safetensors` is next to each folder. Args, returns and raises as `write_biovid`.
    """
    return _write("biovid-frames", Path(root), plan, seed, workers, on_progress, scars)


def _write(
    layout: str, root: Path, plan: BioVidPlan, seed: int, workers: int, on_progress: OnProgress | None, scars: bool
) -> Path:
    jobs = biovid_jobs(root, plan, seed, images="img_{:05d}.jpg" if layout == "biovid-frames" else "")
    dataset = GeneratedSet(
        {"data_set": layout, **asdict(plan)},
        jobs,
        tables=partial(_write_samples, root, jobs),
        scar=partial(_scar, root, jobs, pick_clips(jobs, 4)) if scars else None,
    )
    return write_dataset(root, dataset, seed, workers, on_progress)


def biovid_jobs(root: Path, plan: BioVidPlan, seed: int, images: str = "") -> list[ClipJob]:
    """List the clips; `images` names the frames of the image layout."""
    # Month, day, hour: the original names use months 07 to 12, so generated names never collide with them.
    days = rng_of(seed, DATA_SET, 1 << 30).permutation(MAX_SUBJECTS)[: plan.subjects]
    jobs: list[ClipJob] = []
    for subject, day in enumerate(days.tolist()):
        look, _, _ = draw_subject(seed, DATA_SET, subject)
        name = f"{day % 6 + 1:02d}{day // 6 % 28 + 1:02d}{day // 168 + 8:02d}_{look.sex}_{look.age}"
        for clip, (label, number) in enumerate(_samples(plan, rng_of(seed, DATA_SET, subject, 1 << 30))):
            sample = f"{name}-{label}-{number:03d}"
            jobs.append(
                ClipJob(
                    root=root,
                    item=f"{label}/{sample}" if images else f"PartA/video/{name}/{sample}",
                    clip_id=sample,
                    subject_id=name,
                    label=label,
                    stimulus="heat",
                    level=LEVELS.index(label),
                    duration_s=CLIP_S,
                    fps=plan.fps,
                    size_px=plan.size_px,
                    seed=seed,
                    data_set=DATA_SET,
                    subject=subject,
                    clip=clip,
                    images=images,
                )
            )
    return jobs


def _samples(plan: BioVidPlan, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Yield (label, number): painful stimuli in random order, then the baselines."""
    painful = [level for level in plan.levels if level != "BL1" for _ in range(plan.trials)]
    order = rng.permutation(len(painful)).tolist()
    stimuli = [painful[i] for i in order] + ["BL1"] * (plan.trials if "BL1" in plan.levels else 0)
    return ((label, number) for number, label in enumerate(stimuli, start=1))


def _write_samples(root: Path, jobs: list[ClipJob]) -> None:
    rows = [
        [job.subject + 1, job.subject_id, LEVELS.index(job.label), job.label, job.clip + 1, job.clip_id] for job in jobs
    ]
    write_table(root / "samples.csv", COLUMNS, rows, "\t")


# ---- scars ----


def _scar(root: Path, jobs: list[ClipJob], picked: list[ClipJob]) -> list[Scar]:
    mislabelled, cut, copied, short = picked
    number = max(job.clip for job in jobs if job.subject == copied.subject) + 2
    copy = f"{copied.item.removesuffix(copied.clip_id)}{copied.subject_id}-{copied.label}-{number:03d}"
    return [
        disagreeing_label(root, mislabelled),
        trailing_blanks(root),
        truncated_video(cut),
        duplicate_clip(copied, copy),
        short_clip(short, 0.5),
    ]


def disagreeing_label(root: Path, job: ClipJob) -> Scar:
    """Give a clip another class in samples.csv than in its name."""
    rows = read_table(root / "samples.csv", "\t")
    level = (LEVELS.index(job.label) + 1) % len(LEVELS)
    for row in rows:
        if row[-1] == job.clip_id:
            row[2:4] = [str(level), LEVELS[level]]
    write_table(root / "samples.csv", COLUMNS, rows, "\t")
    return Scar("disagreeing_label", f"samples.csv says {LEVELS[level]}, the name says {job.label}", (job.item,))


def trailing_blanks(root: Path) -> Scar:
    """Add trailing spaces to names in samples.csv."""
    rows = [[*row[:-1], f"{row[-1]}  "] for row in read_table(root / "samples.csv", "\t")]
    rows = [[row[0], f"{row[1]} ", *row[2:]] for row in rows]
    write_table(root / "samples.csv", COLUMNS, rows, "\t")
    return Scar("trailing_blanks", "subject_name and sample_name have trailing spaces", ("samples.csv",))
