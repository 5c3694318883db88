"""Generate shoulder pain in UNBC-McMaster's layout: PNG sequences with labels per frame and per sequence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from painseq.errors import PainseqError
from painseq.faces.pspi import pspi
from painseq.runs import OnProgress
from painseq.synthetic.clips import ClipJob, rng_of
from painseq.synthetic.expression import AU43_CLOSED, AUS, by_unit
from painseq.synthetic.scars import Scar, below, pick_clips, stray_files
from painseq.synthetic.writing import GeneratedSet, check_counts, write_dataset

DATA_SET = 2
MOVEMENTS = tuple(
    f"t{test}{movement}{arm}" for movement, test, arm in product(("aa", "ab", "ae", "ai"), (1, 2), ("aff", "unaff"))
)
FIRST_SUBJECT = 201
"""The original subjects have lower numbers."""
MAX_SUBJECTS = 1000 - FIRST_SUBJECT
MAX_VAS = 10


@dataclass(frozen=True)
class UNBCPlan:
    """A clinical data set: subjects x sequences of shoulder movements; most frames show no pain.

    Args:
        subjects: number of subjects.
        sequences: sequences per subject; their pain is equally spaced from none to the worst (VAS 0 to 10), in random
            order.
        frames: frames per sequence.
        fps: frame rate of the camera; not recorded in the files.
        size_px: height and width of the frames; an even number.
    """

    subjects: int = 25
    sequences: int = 4
    frames: int = 60
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        check_counts(self.fps, self.size_px, subjects=self.subjects, sequences=self.sequences, frames=self.frames)
        if self.subjects > MAX_SUBJECTS:
            raise PainseqError(f"subjects is {self.subjects}; UNBC's naming scheme allows at most {MAX_SUBJECTS}.")
        if self.sequences > len(MOVEMENTS):
            raise PainseqError(f"sequences is {self.sequences}; a subject has at most {len(MOVEMENTS)} movements.")
        if self.frames > 999:
            raise PainseqError(f"frames is {self.frames}; UNBC's naming scheme allows at most 999.")


def write_unbc(
    root: Path,
    plan: UNBCPlan,
    seed: int,
    workers: int = 1,
    on_progress: OnProgress | None = None,
    scars: bool = False,
) -> Path:
    """Write a clinical data set in UNBC-McMaster's layout; existing sequences are kept.

    The files are `Images/<subject>/<sequence>/<sequence>001.png`,
    `Frame_Labels/{PSPI,FACS}/<subject>/<sequence>/<sequence>001_facs.txt`,
    `Sequence_Labels/{AFF,OPR,SEN,VAS}/<subject>/<sequence>.txt`, `<sequence>.faces.safetensors` next to each folder of
    images, and a marker. FACS files of frames without action units are empty.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    jobs = unbc_jobs(root, plan, seed)
    dataset = GeneratedSet(
        {"data_set": "unbc", **asdict(plan)},
        jobs,
        tables=partial(_write_labels, root, jobs),
        scar=partial(_scar, root, pick_clips(jobs, 2)) if scars else None,
    )
    return write_dataset(root, dataset, seed, workers, on_progress)


def unbc_jobs(root: Path, plan: UNBCPlan, seed: int) -> list[ClipJob]:
    """List the sequences; a sequence's label in the truth is its VAS."""
    jobs = []
    for subject in range(plan.subjects):
        rng = rng_of(seed, DATA_SET, subject, 1 << 30)
        code = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 2)) + str(FIRST_SUBJECT + subject)
        subject_id = f"{FIRST_SUBJECT + subject}-{code}"
        for clip, vas in enumerate(rng.permutation(np.linspace(0, MAX_VAS, plan.sequences).round()).tolist()):
            sequence = f"{code}{MOVEMENTS[clip]}"
            jobs.append(
                ClipJob(
                    root=root,
                    item=f"Images/{subject_id}/{sequence}",
                    clip_id=f"{subject_id}/{sequence}",
                    subject_id=subject_id,
                    label=f"{vas:g}",
                    stimulus="clinical",
                    level=vas / MAX_VAS,
                    duration_s=plan.frames / plan.fps,
                    fps=plan.fps,
                    size_px=plan.size_px,
                    seed=seed,
                    data_set=DATA_SET,
                    subject=subject,
                    clip=clip,
                    images=f"{sequence}{{:03d}}.png",
                )
            )
    return jobs


def facs_of(au: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Convert (N, len(AUS)) intensities to a coder's FACS labels: whole numbers, AU43 0 or 1, and no blinks."""
    facs = np.rint(au.astype(np.float64))
    facs[:, AUS.index("AU43")] = au[:, AUS.index("AU43")] >= AU43_CLOSED
    facs[:, AUS.index("AU45")] = 0.0
    return facs


def _write_labels(root: Path, jobs: list[ClipJob]) -> None:
    for job in jobs:
        folders = [root / "Frame_Labels" / kind / job.clip_id for kind in ("PSPI", "FACS")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        facs = facs_of(load_file(job.truth)["au"])
        for number, (score, intensities) in enumerate(zip(pspi(by_unit(facs)), facs, strict=True), start=1):
            name = f"{job.name}{number:03d}_facs.txt"
            rows = [
                _row(float(au.removeprefix("AU")), intensity, 0.0, 0.0)
                for au, intensity in zip(AUS, intensities.tolist(), strict=True)
                if intensity
            ]
            (folders[0] / name).write_text(_row(score))
            (folders[1] / name).write_text("".join(rows))
        for kind, score in _sequence_scores(job).items():
            path = root / "Sequence_Labels" / kind / f"{job.clip_id}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_row(score))


def _sequence_scores(job: ClipJob) -> dict[str, float]:
    """Draw the ratings of a sequence: AFF, SEN and VAS by the patient, OPR by an observer."""
    vas = float(job.label)
    affective, sensory, seen = rng_of(job.seed, DATA_SET, job.subject, job.clip, 1 << 30).normal(0.0, 1.0, 3)

    def whole(score: float, most: int) -> float:
        return float(np.clip(round(score), 0, most)) if vas else 0.0

    return {"AFF": whole(1.3 * vas + affective, 15), "OPR": whole(vas / 2 + seen / 2, 5),
            "SEN": whole(1.4 * vas + sensory, 15), "VAS": vas}  # fmt: skip


def _row(*values: float) -> str:
    """Format a row like the original files, which were written by MATLAB."""
    return "".join(f"   {value:.7e}" for value in values) + "\n"


# ---- scars ----


def _scar(root: Path, picked: list[ClipJob]) -> list[Scar]:
    unlabelled, littered = picked
    return [missing_frame_label(root, unlabelled), finder_files(root, littered), doubled_folders(root)]


def missing_frame_label(root: Path, job: ClipJob) -> Scar:
    """Remove the PSPI file of a sequence's middle frame."""
    path = root / "Frame_Labels" / "PSPI" / job.clip_id / f"{job.name}{job.frames // 2 + 1:03d}_facs.txt"
    path.unlink()
    return Scar("missing_frame_label", "the frame's PSPI file is missing", (_doubled(below(root, path)),))


def finder_files(root: Path, job: ClipJob) -> Scar:
    """Add the files that the macOS Finder leaves in folders."""
    folders = (root, root / "Images", job.video.parent, job.video, root / "Frame_Labels" / "PSPI" / job.clip_id)
    paths = [folder / ".DS_Store" for folder in (*folders, root / "Sequence_Labels" / "VAS")]
    scar = stray_files("finder_files", "files of the macOS Finder", root, b"\x00\x00\x00\x01Bud1", paths)
    return Scar(scar.name, scar.what, tuple(_doubled(where) for where in scar.where))


def doubled_folders(root: Path) -> Scar:
    """Nest folders, as archives unpacked into folders of the same name."""
    for name in ("Images", "Frame_Labels"):
        (root / name).rename(root / f"{name}.unfinished")
        (root / name).mkdir()
        (root / f"{name}.unfinished").rename(root / name / name)
    what = "the folder is inside another one of the same name"
    return Scar("doubled_folders", what, ("Images/Images", "Frame_Labels/Frame_Labels"))


def _doubled(path: str) -> str:
    """Return the path of a file after its folder is nested, which happens last."""
    top = path.partition("/")[0]
    return f"{top}/{path}" if top in ("Images", "Frame_Labels") else path
