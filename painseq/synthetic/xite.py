"""Generate heat and electrical pain in X-ITE's layout: phasic and tonic stimuli, frontal and side views."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from painseq.errors import PainseqError
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, Drawing, rng_of
from painseq.synthetic.expression import Stimulus
from painseq.synthetic.scars import Scar, pick_clips
from painseq.synthetic.writing import GeneratedSet, check_counts, read_table, write_dataset, write_table

DATA_SET = 4
LABELS = tuple(range(-6, 7))
"""Above 0 heat, below 0 electrical; 1 to 3 phasic, 4 to 6 tonic."""
SIDE_WIDTH = 0.6
"""Width of the side view, as a fraction of the frontal view's."""
COLUMNS = ["segment", "label"]


@dataclass(frozen=True)
class XITEPlan:
    """A data set of heat and electrical pain, phasic and tonic: subjects x 13 labels x trials segments.

    Args:
        subjects: number of subjects.
        trials: segments per label and subject.
        phasic_s: length of phasic and baseline segments, in seconds.
        tonic_s: length of tonic segments, in seconds.
        fps: frames per second.
        size_px: height of all frames, and width of frontal frames; an even number.
    """

    subjects: int = 12
    trials: int = 1
    phasic_s: float = 5.0
    tonic_s: float = 20.0
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        check_counts(self.fps, self.size_px, subjects=self.subjects, trials=self.trials)
        if min(self.phasic_s, self.tonic_s) <= 0:
            raise PainseqError(f"phasic_s is {self.phasic_s}, tonic_s is {self.tonic_s}; both must be more than 0.")


def write_xite(
    root: Path,
    plan: XITEPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write a data set of heat and electrical pain in X-ITE's layout; existing segments are kept.

    The files are `{fvf,fvs}/<subject>/<segment>.mp4`, `<segment>.faces.safetensors` next to each video, `labels.csv`
    (segment, label) and a marker. Segments are numbered in random order; their names do not contain the label.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = xite_jobs(root, plan, seed)
    dataset = GeneratedSet(
        {"data_set": "xite", **asdict(plan)},
        jobs,
        tables=partial(_write_labels, root, jobs),
        scar=partial(_scar, root, pick_clips([job for job in jobs if job.camera is None], 2)) if scars else None,
    )
    return write_dataset(root, dataset, seed, workers, on_progress)


def xite_jobs(root: Path, plan: XITEPlan, seed: int) -> list[ClipJob]:
    """List two jobs per segment, one per view."""
    jobs = []
    for subject in range(plan.subjects):
        # The original subjects have lower numbers.
        name = f"S{subject + 201}"
        order = rng_of(seed, DATA_SET, subject, 1 << 30).permutation(np.repeat(LABELS, plan.trials))
        for clip, label in enumerate(order.tolist()):
            stimulus: Stimulus = "electrical" if label < 0 else "heat"
            strongest = 4 if stimulus == "heat" else 2
            strength = (abs(label) - 1) % 3 + 1 if label else 0
            jobs += [
                ClipJob(
                    root=root,
                    item=f"{modality}/{name}/{name}_{clip + 1:04d}",
                    clip_id=f"{modality}/{name}/{name}_{clip + 1:04d}",
                    subject_id=name,
                    label=str(label),
                    stimulus=stimulus,
                    level=strength * strongest / 3,
                    duration_s=plan.tonic_s if abs(label) > 3 else plan.phasic_s,
                    fps=plan.fps,
                    size_px=plan.size_px,
                    seed=seed,
                    data_set=DATA_SET,
                    subject=subject,
                    clip=clip,
                    camera=camera,
                )
                for modality, camera in (("fvf", None), ("fvs", side))
            ]
    return jobs


def side(drawing: Drawing, size_px: int) -> Drawing:
    """Imitate a side view by squeezing the frontal view: the generated head cannot turn."""
    width = round(size_px * SIDE_WIDTH / 2) * 2
    scale = np.array([width / size_px, 1.0], np.float32)

    def frame(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).resize((width, size_px), Image.Resampling.BILINEAR))

    return dataclasses.replace(
        drawing,
        landmarks=drawing.landmarks * scale,
        boxes=drawing.boxes * np.tile(scale, 2),
        regions=drawing.regions * np.tile(scale, 2),
        frames=map(frame, drawing.frames),
    )


def _write_labels(root: Path, jobs: list[ClipJob]) -> None:
    rows = [[job.name, job.label] for job in jobs if job.camera is None]
    write_table(root / "labels.csv", COLUMNS, rows)


# ---- scars ----


def _scar(root: Path, picked: list[ClipJob]) -> list[Scar]:
    forgotten, odd = picked
    return [segment_without_label(root, forgotten), unknown_label(root, odd)]


def segment_without_label(root: Path, job: ClipJob) -> Scar:
    """Remove a segment from the table."""
    rows = [row for row in read_table(root / "labels.csv") if row[0] != job.name]
    write_table(root / "labels.csv", COLUMNS, rows)
    return Scar("segment_without_label", f"labels.csv does not list {job.name}", (f"{job.item}.mp4",))


def unknown_label(root: Path, job: ClipJob) -> Scar:
    """Use a label that the data set does not have."""
    rows = [[segment, "9" if segment == job.name else label] for segment, label in read_table(root / "labels.csv")]
    write_table(root / "labels.csv", COLUMNS, rows)
    return Scar("unknown_label", f"labels.csv has the label 9 for {job.name}", ("labels.csv",))
