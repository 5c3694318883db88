"""Generate electrical pain in MIntPAIN's layout: short sweeps with a colour, a depth and a thermal camera."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from painseq.errors import PainseqError
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, Drawing, rng_of
from painseq.synthetic.scars import Scar, below, pick_clips
from painseq.synthetic.writing import GeneratedSet, check_counts, write_dataset

DATA_SET = 3


@dataclass(frozen=True)
class MIntPAINPlan:
    """An electrical-pain data set: each sweep has one stimulus of level 1 to 4, and one clip without pain.

    Args:
        subjects: number of subjects.
        trials: trials per subject.
        sweeps: sweeps per trial; each gives two clips, so that half of all clips are of class 0.
        clip_s: length of a clip, in seconds; the default is 20 frames, the average of the original data set.
        fps: frames per second; not recorded in the files.
        size_px: height and width of the frames; an even number.
    """

    subjects: int = 20
    trials: int = 2
    sweeps: int = 8
    clip_s: float = 0.8
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        check_counts(self.fps, self.size_px, subjects=self.subjects, trials=self.trials, sweeps=self.sweeps)
        if self.clip_s <= 0:
            raise PainseqError(f"clip_s is {self.clip_s}; it must be more than 0.")


def write_mintpain(
    root: Path,
    plan: MIntPAINPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write an electrical-pain data set in MIntPAIN's layout; existing clips are kept.

    The files are `Sub01/Trial01/Sub01_Trial01_Sweep01_Label0/{RGB,D,T}`, with JPEG frames (RGB), 16-bit PNG in
    millimetres (D) and grey JPEG (T), `<folder>.faces.safetensors` next to each folder, and a marker.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = mintpain_jobs(root, plan, seed)
    record = {"data_set": "mintpain", **asdict(plan)}
    picked = pick_clips([job for job in jobs if job.camera is None], 3) if scars else []
    scar = partial(_scar, root, picked) if scars else None
    return write_dataset(root, GeneratedSet(record, jobs, scar=scar), seed, workers, on_progress)


def mintpain_jobs(root: Path, plan: MIntPAINPlan, seed: int) -> list[ClipJob]:
    """List three jobs per clip, one per camera."""
    cameras = (("RGB", "frame_{:03d}.jpg", None), ("D", "frame_{:03d}.png", depth), ("T", "frame_{:03d}.jpg", thermal))
    jobs = []
    for subject in range(plan.subjects):
        rng = rng_of(seed, DATA_SET, subject, 1 << 30)
        stimuli = [rng.permutation(np.arange(plan.sweeps) % 4 + 1).tolist() for _ in range(plan.trials)]
        labels = [
            (trial, sweep, level)
            for trial, levels in enumerate(stimuli, start=1)
            for sweep, stimulus in enumerate(levels, start=1)
            for level in (0, stimulus)
        ]
        for clip, (trial, sweep, level) in enumerate(labels):
            person, block = f"Sub{subject + 1:02d}", f"Trial{trial:02d}"
            place = f"{person}/{block}/{person}_{block}_Sweep{sweep:02d}_Label{level}"
            jobs += [
                ClipJob(
                    root=root,
                    item=f"{place}/{folder}",
                    clip_id=f"{place}/{folder}",
                    subject_id=person,
                    label=str(level),
                    stimulus="electrical",
                    level=level / 2,
                    duration_s=plan.clip_s,
                    fps=plan.fps,
                    size_px=plan.size_px,
                    seed=seed,
                    data_set=DATA_SET,
                    subject=subject,
                    clip=clip,
                    images=images,
                    camera=camera,
                )
                for folder, images, camera in cameras
            ]
    return jobs


# ---- depth and thermal cameras ----


def depth(drawing: Drawing, size_px: int) -> Drawing:
    """Draw the image of a depth camera, in millimetres, uint16: an ellipsoid with a nose in front of a wall."""

    def frame(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
        radius = _radius(landmarks, size_px)
        head_mm = 800.0 - 120.0 * np.sqrt(np.maximum(1.0 - radius**2, 0.0))
        nose_mm = 30.0 * _spot(landmarks[30], landmarks, size_px)
        return np.where(radius < 1.0, head_mm - nose_mm, 1800.0).round().astype(np.uint16)

    return dataclasses.replace(drawing, frames=map(frame, drawing.landmarks))


def thermal(drawing: Drawing, size_px: int) -> Drawing:
    """Draw the image of a thermal camera, grey uint8: a warm face with a cooler nose in front of a cold wall."""

    def frame(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        radius = _radius(landmarks, size_px)
        face = 205.0 - 30.0 * radius**2 - 45.0 * _spot(landmarks[30], landmarks, size_px)
        return np.where(radius < 1.0, face, 55.0).round().astype(np.uint8)

    return dataclasses.replace(drawing, frames=map(frame, drawing.landmarks))


def _radius(landmarks: npt.NDArray[np.float32], size_px: int) -> npt.NDArray[np.float64]:
    """Return the (H, W) distance from the centre of the head, 1 at its edge."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float64)
    jaw = landmarks[:17]
    width, chin, eyes = np.ptp(jaw[:, 0]), jaw[:, 1].max(), landmarks[36:48].mean(axis=0)
    radius: npt.NDArray[np.float64] = np.hypot(
        (x - eyes[0]) / (0.55 * width), (y - eyes[1]) / (1.05 * (chin - eyes[1]))
    )
    return radius


def _spot(middle: npt.NDArray[np.float32], landmarks: npt.NDArray[np.float32], size_px: int) -> npt.NDArray[np.float64]:
    """Return an (H, W) soft spot of the width of a nose, 1 in its centre."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float64)
    width = 0.12 * np.ptp(landmarks[:17, 0])
    spot: npt.NDArray[np.float64] = np.exp(-((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (2 * width**2))
    return spot


# ---- scars ----


def _scar(root: Path, picked: list[ClipJob]) -> list[Scar]:
    empty, wrong, other = picked
    return [empty_folder(empty), label_out_of_range(root, wrong), other_prefix(root, other)]


def empty_folder(job: ClipJob) -> Scar:
    """Empty a folder of images, as after an incomplete copy."""
    for path in job.video.iterdir():
        path.unlink()
    return Scar("empty_folder", "holds no image", (below(job.root, job.video),))


def label_out_of_range(root: Path, job: ClipJob) -> Scar:
    """Use a label that the data set does not have."""
    return _renamed("label_out_of_range", root, job, lambda name: f"{name.removesuffix(job.label)}7")


def other_prefix(root: Path, job: ClipJob) -> Scar:
    """Remove leading zeros from numbers."""
    return _renamed("other_prefix", root, job, lambda name: re.sub(r"(?<=[a-z])0+(?=\d)", "", name))


def _renamed(name: str, root: Path, job: ClipJob, rename: Callable[[str], str]) -> Scar:
    sequence = job.video.parent
    place = sequence.with_name(rename(sequence.name))
    sequence.rename(place)
    return Scar(name, f"was named {sequence.name}", (below(root, place),))
