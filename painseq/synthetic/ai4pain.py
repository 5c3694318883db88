"""Generated electrical pain in AI4Pain's layout, with a test part whose names tell nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from painseq.errors import PainseqError
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, rng_of
from painseq.synthetic.scars import Scar, below, pick_clips, stray_video, truncated_video
from painseq.synthetic.writing import check_counts, write_dataset

DATA_SET = 1
CLIP_S = 10.0
LEVELS = ("No_Pain", "Low_Pain", "High_Pain")


@dataclass(frozen=True)
class AI4PainPlan:
    """An electrical-pain data set: for each subject one long no-pain recording, and low and high pain clips of 10 s.

    Args:
        train: subjects in Train.
        validation: subjects in Validation.
        test: subjects in Test.
        trials: low pain clips, and as many high pain clips, a subject.
        baseline_s: length of the no-pain recording, in seconds.
        fps: of the videos; the real ones have 30.
        size_px: height and width of the frames; an even number.
    """

    train: int = 41
    validation: int = 12
    test: int = 12
    trials: int = 12
    baseline_s: float = 60.0
    fps: float = 30.0
    size_px: int = 192

    def __post_init__(self) -> None:
        check_counts(self.fps, self.size_px, trials=self.trials, subjects=self.train + self.validation + self.test)
        if min(self.train, self.validation, self.test) < 0:
            raise PainseqError(f"A part has fewer than 0 subjects: {self}.")
        if self.baseline_s < CLIP_S:
            raise PainseqError(f"baseline_s is {self.baseline_s}; a no-pain recording lasts at least {CLIP_S:g} s.")


def write_ai4pain(
    root: Path,
    plan: AI4PainPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write an electrical-pain data set in AI4Pain's layout; clips that are already there are kept.

    Below `root` lie `{Train,Validation}/<subject>/<subject>_<label>_<trial>.mp4`, test videos in shuffled order
    as `Test/<subject>/<subject>_<number>.mp4`, and a marker; beside each video `<stem>.faces.safetensors`.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = ai4pain_jobs(root, plan, seed)
    record = {"data_set": "ai4pain", **asdict(plan)}
    scar = partial(_scar, root, *_pick(jobs)) if scars else None
    return write_dataset(root, record, seed, jobs, workers, on_progress, scar=scar)


def ai4pain_jobs(root: Path, plan: AI4PainPlan, seed: int) -> list[ClipJob]:
    """The clips of all three parts."""
    jobs = []
    parts = ("Train",) * plan.train + ("Validation",) * plan.validation + ("Test",) * plan.test
    for subject, part in enumerate(parts):
        name = f"S{subject + 1:02d}"
        clips = [(0, 1)] + [(level, trial) for level in (1, 2) for trial in range(1, plan.trials + 1)]
        numbers = rng_of(seed, DATA_SET, subject, 1 << 30).permutation(len(clips)) + 1
        for clip, (level, trial) in enumerate(clips):
            label = LEVELS[level]
            stem = f"{name}_{numbers[clip]}" if part == "Test" else f"{name}_{label}_{trial}"
            jobs.append(
                ClipJob(
                    root=root,
                    item=f"{part}/{name}/{stem}",
                    clip_id=f"{part}/{name}/{stem}",
                    subject_id=name,
                    label=label,
                    stimulus="electrical",
                    level=level,
                    duration_s=CLIP_S if level else plan.baseline_s,
                    fps=plan.fps,
                    size_px=plan.size_px,
                    seed=seed,
                    data_set=DATA_SET,
                    subject=subject,
                    clip=clip,
                    part=part.lower(),
                )
            )
    return jobs


# ---- scars ----


def _pick(jobs: list[ClipJob]) -> tuple[ClipJob, list[ClipJob]]:
    """The clip to cut, and those of another subject to remove: half of its strongest stimuli."""
    shown = [job for job in jobs if job.part != "test"]
    (cut,) = pick_clips(shown, 1)
    others = [job for job in shown if job.label == "High_Pain" and job.subject != cut.subject]
    if not others:
        raise PainseqError("Scars take two subjects in Train and Validation together; this data set has one.")
    missing = [job for job in others if job.subject == others[0].subject]
    return cut, missing[len(missing) // 2 :]


def _scar(root: Path, cut: ClipJob, missing: list[ClipJob]) -> list[Scar]:
    stray = cut.video.with_name(f"{cut.subject_id}_calibration.mp4")
    return [
        stray_video("stray_file", "a video that is no clip of the data set", cut, stray),
        truncated_video(cut),
        missing_clips(root, missing),
    ]


def missing_clips(root: Path, jobs: list[ClipJob]) -> Scar:
    """Some clips of one subject were not handed over."""
    for job in jobs:
        job.video.unlink()
        job.sidecar.unlink()
    return Scar("missing_clips", "the subject's other clips are there", tuple(below(root, job.video) for job in jobs))
