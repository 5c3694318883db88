"""Generate pain in the layout of a user's own data: class folders of videos, and a manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from painseq.errors import PainseqError
from painseq.records import Clip, Manifest
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, draw_subject
from painseq.synthetic.scars import Scar, pick_clips, stray_files, stray_video
from painseq.synthetic.writing import GeneratedSet, check_counts, write_dataset

DATA_SET = 5
CLASSES = ("no_pain", "low_pain", "high_pain")


@dataclass(frozen=True)
class FolderPlan:
    """A heat-pain data set: subjects x 3 classes x trials clips.

    Args:
        subjects: number of subjects.
        trials: clips per class and subject.
        clip_s: length of a clip, in seconds.
        fps: frames per second.
        size_px: height and width of the frames; an even number.
    """

    subjects: int = 12
    trials: int = 4
    clip_s: float = 4.0
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        check_counts(self.fps, self.size_px, subjects=self.subjects, trials=self.trials)
        if self.clip_s <= 0:
            raise PainseqError(f"clip_s is {self.clip_s}; it must be more than 0.")


def write_folder(
    root: Path,
    plan: FolderPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write videos in class folders; existing clips are kept.

    The files are `<class>/<subject>_<number>.mp4`, `<stem>.faces.safetensors` next to each video, `clips.csv` with the
    same clips as a manifest, and a marker.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = folder_jobs(root, plan, seed)
    dataset = GeneratedSet(
        {"data_set": "folder", **asdict(plan)},
        jobs,
        tables=partial(_write_manifest, root, jobs),
        scar=partial(_scar, root, pick_clips(jobs, 2)) if scars else None,
    )
    return write_dataset(root, dataset, seed, workers, on_progress)


def folder_jobs(root: Path, plan: FolderPlan, seed: int) -> list[ClipJob]:
    """List the clips."""
    return [
        ClipJob(
            root=root,
            item=f"{label}/p{subject + 1:02d}_{number:02d}",
            clip_id=f"{label}/p{subject + 1:02d}_{number:02d}",
            subject_id=f"p{subject + 1:02d}",
            label=label,
            stimulus="heat",
            level=2.0 * level,
            duration_s=plan.clip_s,
            fps=plan.fps,
            size_px=plan.size_px,
            seed=seed,
            data_set=DATA_SET,
            subject=subject,
            clip=level * plan.trials + number - 1,
        )
        for subject in range(plan.subjects)
        for level, label in enumerate(CLASSES)
        for number in range(1, plan.trials + 1)
    ]


def _write_manifest(root: Path, jobs: list[ClipJob]) -> None:
    clips = []
    for job in jobs:
        look, _, _ = draw_subject(job.seed, job.data_set, job.subject)
        clips.append(
            Clip(
                clip_id=job.clip_id,
                subject_id=job.subject_id,
                video=f"{job.item}.mp4",
                label=job.label,
                fps=job.fps,
                stimulus=job.stimulus,
                sex="f" if look.sex == "w" else "m",
                age=look.age,
            )
        )
    Manifest("folder", root, tuple(clips)).write_csv(root / "clips.csv")


# ---- scars ----


def _scar(root: Path, picked: list[ClipJob]) -> list[Scar]:
    unsure, nameless = picked
    return [unknown_class(root, unsure), unnamed_subject(nameless), notes(root, nameless)]


def unknown_class(root: Path, job: ClipJob) -> Scar:
    """Add a folder that is not one of the data set's classes."""
    path = root / "unsure" / f"{job.subject_id}_99.mp4"
    return stray_video("unknown_class", "a video in a folder that is not a class", job, path)


def unnamed_subject(job: ClipJob) -> Scar:
    """Add a video whose name has no subject."""
    path = job.video.with_name("recording.mp4")
    return stray_video("unnamed_subject", "a video whose name has no subject", job, path)


def notes(root: Path, job: ClipJob) -> Scar:
    """Add a file that is not a video."""
    path = job.video.with_name("notes.txt")
    return stray_files("notes", "a file that is not a video", root, b"camera was moved after the first break\n", [path])
