"""Generate electrical pain in AI4Pain's layout, with unlabelled test file names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from painseq.errors import PainseqError
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, rng_of
from painseq.synthetic.scars import Scar, below, pick_clips, stray_video, truncated_video
from painseq.synthetic.writing import GeneratedSet, check_counts, write_dataset

DATA_SET = 1
CLIP_S = 10.0
LEVELS = ("No_Pain", "Low_Pain", "High_Pain")


@dataclass(frozen=True)
class AI4PainPlan:
    """An electrical-pain data set: per subject one long no-pain recording, and low and high pain clips of 10 s.

    Args:
        train: subjects in Train.
        validation: subjects in Validation.
        test: subjects in Test.
        trials: low pain clips per subject, and the same number of high pain clips.
        baseline_s: length of the no-pain recording, in seconds.
        fps: frame rate of the videos; 30 in the original data set.
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
            raise PainseqError(
                f"train is {self.train}, validation {self.validation}, test {self.test}; each must be 0 or more."
            )
        if self.baseline_s < CLIP_S:
            raise PainseqError(f"baseline_s is {self.baseline_s}; it must be at least {CLIP_S:g} s.")


def write_ai4pain(
    root: Path,
    plan: AI4PainPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write an electrical-pain data set in AI4Pain's layout; existing clips are kept.

    The files are `{Train,Validation}/<subject>/<subject>_<label>_<trial>.mp4`, shuffled test videos
    `Test/<subject>/<subject>_<number>.mp4`, `<stem>.faces.safetensors` next to each video, and a marker.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = ai4pain_jobs(root, plan, seed)
    record = {"data_set": "ai4pain", **asdict(plan)}
    scar = partial(_scar, root, *_pick(jobs)) if scars else None
    return write_dataset(root, GeneratedSet(record, jobs, scar=scar), seed, workers, on_progress)


def ai4pain_jobs(root: Path, plan: AI4PainPlan, seed: int) -> list[ClipJob]:
    """List the clips of all three parts."""
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
    """Choose the clip to truncate, and the clips of another subject to remove: half of its strongest stimuli."""
    shown = [job for job in jobs if job.part != "test"]
    (cut,) = pick_clips(shown, 1)
    others = [job for job in shown if job.label == "High_Pain" and job.subject != cut.subject]
    if not others:
        raise PainseqError("Scars need two subjects in train and validation together; this data set has one.")
    missing = [job for job in others if job.subject == others[0].subject]
    return cut, missing[len(missing) // 2 :]


def _scar(root: Path, cut: ClipJob, missing: list[ClipJob]) -> list[Scar]:
    stray = cut.video.with_name(f"{cut.subject_id}_calibration.mp4")
    return [
        stray_video("stray_file", "a video that is not a clip of the data set", cut, stray),
        truncated_video(cut),
        missing_clips(root, missing),
    ]


def missing_clips(root: Path, jobs: list[ClipJob]) -> Scar:
    """Remove some clips of one subject."""
    for job in jobs:
        job.video.unlink()
        job.sidecar.unlink()
    return Scar("missing_clips", "the subject's other clips exist", tuple(below(root, job.video) for job in jobs))
