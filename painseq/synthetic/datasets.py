"""Generated data sets on disk: BioVid's layout for heat, AI4Pain's for electrical pain, and the truth beside them.

A clip's frames depend on (seed, data set, subject, clip) alone, not on the other clips or the number of workers.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from painseq.errors import PainseqError
from painseq.spec import difference
from painseq.synthetic.expression import AUS, REGIONS, Course, Stimulus, Temper, draw_course, draw_temper, frame_count
from painseq.synthetic.face import FacePainter, draw_poses, face_box_of, landmarks_of, regions_of, shape_of
from painseq.synthetic.look import Look, draw_look

MARKER = "painseq_synthetic.json"
VERSION = 1
"""Of the generator: counts up whenever the same plan and seed give other frames."""
HEAT_S = 5.5
ELECTRICAL_S = 10.0
BIOVID_LEVELS = ("BL1", "PA1", "PA2", "PA3", "PA4")
AI4PAIN_LEVELS = ("No_Pain", "Low_Pain", "High_Pain")

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class BioVidPlan:
    """A heat-pain data set: subjects x levels x trials clips of 5.5 s.

    Args:
        trials: clips a class and subject.
        levels: native classes, of BL1 and PA1 to PA4.
        fps: of the videos; the real ones have 25.
        size_px: height and width of the frames; an even number.
    """

    subjects: int = 24
    trials: int = 4
    levels: tuple[str, ...] = BIOVID_LEVELS
    fps: float = 25.0
    size_px: int = 192

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        _check_counts(self.fps, self.size_px, subjects=self.subjects, trials=self.trials)
        wrong = [level for level in self.levels if level not in BIOVID_LEVELS]
        if wrong or not self.levels or len(set(self.levels)) < len(self.levels):
            raise PainseqError(
                f"levels is {', '.join(self.levels) or 'empty'}; give each of the classes you want once, "
                f"of {', '.join(BIOVID_LEVELS)}."
            )
        if self.subjects > 6 * 28 * 12:
            raise PainseqError(f"subjects is {self.subjects}; at most {6 * 28 * 12} can be named as BioVid names them.")


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
        _check_counts(self.fps, self.size_px, trials=self.trials, subjects=self.train + self.validation + self.test)
        if min(self.train, self.validation, self.test) < 0:
            raise PainseqError(f"A part has fewer than 0 subjects: {self}.")
        if self.baseline_s < ELECTRICAL_S:
            raise PainseqError(
                f"baseline_s is {self.baseline_s}; a no-pain recording lasts at least {ELECTRICAL_S:g} s."
            )


def _check_counts(fps: float, size_px: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise PainseqError(f"{name} is {count}; it must be 1 or more.")
    if not 1.0 <= fps <= 120.0:
        raise PainseqError(f"fps is {fps}; give 1 to 120 frames a second.")
    if size_px % 2 or not 64 <= size_px <= 1024:
        raise PainseqError(f"size_px is {size_px}; give an even number from 64 to 1024.")


@dataclass(frozen=True)
class ClipJob:
    """One video to generate.

    Args:
        item: path below the data set's root, with forward slashes, without suffix.
        data_set: 0 for heat, 1 for electrical: keeps their subjects apart.
        subject: index within the data set.
        clip: index within the subject.
        label: native; it is written to the truth alone.
    """

    root: Path
    item: str
    subject_id: str
    label: str
    part: str
    seed: int
    data_set: int
    subject: int
    clip: int
    level: int
    duration_s: float
    fps: float
    size_px: int

    @property
    def stimulus(self) -> Stimulus:
        """What hurts in this data set."""
        return "electrical" if self.data_set else "heat"

    @property
    def frames(self) -> int:
        """Number of frames."""
        return frame_count(self.duration_s, self.fps)

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """Truth, sidecar and video; the video comes last into place."""
        truth = truth_folder(self.root)
        return (
            truth / f"{self.item}.safetensors",
            self.root / f"{self.item}.faces.safetensors",
            self.root / f"{self.item}.mp4",
        )


def truth_folder(root: Path) -> Path:
    """Where the truth of a generated data set lies: beside its root, so that no scan of the root finds it."""
    return root.parent / f"{root.name}_truth"


def is_generated(path: Path) -> bool:
    """Whether a file or folder belongs to a generated data set: its root, or a folder above it, is marked so."""
    path = path.resolve()
    return any((folder / MARKER).is_file() for folder in (path, *path.parents))


def write_biovid(
    root: Path, plan: BioVidPlan, seed: int, workers: int = 1, on_progress: OnProgress | None = None
) -> Path:
    """Write a heat-pain data set in BioVid's layout; clips that are already there are kept.

    Below `root` lie `PartA/video/<subject>/<sample>.mp4`, `samples.csv` and a marker; beside each video
    `<sample>.faces.safetensors` with face boxes and landmarks.

    Args:
        workers: processes that draw at the same time.
        on_progress: called with the number of frames done and of all frames.

    Returns:
        The folder of the truth, beside `root`.

    Raises:
        PainseqError: the folder holds something else, or a generated set of another plan or seed.
    """
    root = Path(root)
    jobs, samples = _biovid_jobs(root, plan, seed)
    return _write(root, {"data_set": "biovid", **dataclasses.asdict(plan)}, seed, jobs, workers, on_progress, samples)


def write_ai4pain(
    root: Path, plan: AI4PainPlan, seed: int, workers: int = 1, on_progress: OnProgress | None = None
) -> Path:
    """Write an electrical-pain data set in AI4Pain's layout; clips that are already there are kept.

    Below `root` lie `{Train,Validation}/<subject>/<subject>_<label>_<trial>.mp4`, test videos in shuffled order
    as `Test/<subject>/<subject>_<number>.mp4`, and a marker; beside each video `<stem>.faces.safetensors`.

    Args, returns and raises as `write_biovid`.
    """
    root = Path(root)
    plan_record = {"data_set": "ai4pain", **dataclasses.asdict(plan)}
    return _write(root, plan_record, seed, _ai4pain_jobs(root, plan, seed), workers, on_progress, [])


def _rng(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy))


def _draw_subject(seed: int, data_set: int, subject: int) -> tuple[Look, Temper, np.random.Generator]:
    rng = _rng(seed, data_set, subject)
    return draw_look(rng), draw_temper(rng), rng


def _biovid_jobs(root: Path, plan: BioVidPlan, seed: int) -> tuple[list[ClipJob], list[list[object]]]:
    """The clips, and the rows of samples.csv."""
    # Month, day, hour: the real names known lie in months 07 to 12, so that no generated subject shares one.
    days = _rng(seed, 0, 1 << 30).permutation(6 * 28 * 12)[: plan.subjects]
    jobs: list[ClipJob] = []
    rows: list[list[object]] = []
    for subject, day in enumerate(days.tolist()):
        look, _, _ = _draw_subject(seed, 0, subject)
        name = f"{day % 6 + 1:02d}{day // 6 % 28 + 1:02d}{day // 168 + 8:02d}_{look.sex}_{look.age}"
        for clip, (label, number) in enumerate(_biovid_samples(plan, _rng(seed, 0, subject, 1 << 30))):
            level, sample = BIOVID_LEVELS.index(label), f"{name}-{label}-{number:03d}"
            item = f"PartA/video/{name}/{sample}"
            jobs.append(
                ClipJob(root, item, name, label, "", seed, 0, subject, clip, level, HEAT_S, plan.fps, plan.size_px)
            )
            rows.append([subject + 1, name, level, label, clip + 1, sample])
    return jobs, rows


def _biovid_samples(plan: BioVidPlan, rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """(label, number): painful stimuli are numbered as they came, in random order; the baselines after them."""
    painful = [level for level in plan.levels if level != "BL1" for _ in range(plan.trials)]
    order = rng.permutation(len(painful)).tolist()
    stimuli = [painful[i] for i in order] + ["BL1"] * (plan.trials if "BL1" in plan.levels else 0)
    return ((label, number) for number, label in enumerate(stimuli, start=1))


def _ai4pain_jobs(root: Path, plan: AI4PainPlan, seed: int) -> list[ClipJob]:
    jobs = []
    parts = ("Train",) * plan.train + ("Validation",) * plan.validation + ("Test",) * plan.test
    for subject, part in enumerate(parts):
        name = f"S{subject + 1:02d}"
        clips = [(0, 1)] + [(level, trial) for level in (1, 2) for trial in range(1, plan.trials + 1)]
        numbers = _rng(seed, 1, subject, 1 << 30).permutation(len(clips)) + 1
        for clip, (level, trial) in enumerate(clips):
            label = AI4PAIN_LEVELS[level]
            stem = f"{name}_{numbers[clip]}" if part == "Test" else f"{name}_{label}_{trial}"
            jobs.append(
                ClipJob(
                    root=root,
                    item=f"{part}/{name}/{stem}",
                    subject_id=name,
                    label=label,
                    part=part.lower(),
                    seed=seed,
                    data_set=1,
                    subject=subject,
                    clip=clip,
                    level=level,
                    duration_s=ELECTRICAL_S if level else plan.baseline_s,
                    fps=plan.fps,
                    size_px=plan.size_px,
                )
            )
    return jobs


# ---- one clip ----


@lru_cache(maxsize=2)
def _painter(seed: int, data_set: int, subject: int, size_px: int) -> tuple[FacePainter, Temper]:
    look, temper, rng = _draw_subject(seed, data_set, subject)
    return FacePainter(look, size_px, rng), temper


@dataclass(frozen=True)
class Drawing:
    """A clip ready to be drawn: frames one at a time, and all that is known of them.

    Args:
        landmarks: (N, 68, 2) pixels.
        boxes: (N, 4) xyxy pixels.
        regions: (N, len(REGIONS), 4) xyxy pixels.
    """

    course: Course
    landmarks: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    regions: npt.NDArray[np.float32]
    frames: Iterator[npt.NDArray[np.uint8]]


def draw_clip(job: ClipJob) -> Drawing:
    """Draw one clip; its frames are made as they are asked for."""
    painter, temper = _painter(job.seed, job.data_set, job.subject, job.size_px)
    rng = _rng(job.seed, job.data_set, job.subject, job.clip)
    course = draw_course(job.stimulus, job.level, job.duration_s, job.fps, temper, rng)
    poses = draw_poses(painter.look, course.times_s, rng)
    shape = shape_of(painter.look, course.au)
    matrix, offset = painter.to_frame(poses)

    def to_pixels(points: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return (points @ np.swapaxes(matrix, 1, 2) + offset[:, None]).astype(np.float32)

    landmarks = landmarks_of(painter.look, shape)
    boxes = regions_of(landmarks)
    corners = to_pixels(boxes[..., [0, 1, 2, 1, 0, 3, 2, 3]].reshape(len(boxes), -1, 2))
    corners = corners.reshape(len(boxes), len(REGIONS), 4, 2)
    regions = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=2)
    pixels = to_pixels(landmarks)
    return Drawing(
        course=course,
        landmarks=pixels,
        boxes=np.clip(face_box_of(pixels), 0, job.size_px),
        regions=np.clip(regions, 0, job.size_px),
        frames=(painter.frame(shape, i, poses, rng) for i in range(len(poses))),
    )


def _write_clip(job: ClipJob) -> int:
    """Write the three files of a clip, each complete or not at all; returns the number of frames."""
    from painseq.video import write_video

    drawing = draw_clip(job)
    course = drawing.course
    truth, sidecar, video = job.files
    for place in (truth, video):
        place.parent.mkdir(parents=True, exist_ok=True)
    # Unfinished files stand where no scan of the data set's videos meets them, even after a kill.
    stage = job.root / ".unfinished" / f"{job.subject}_{job.clip}"
    # A process that was killed here may have left files behind.
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    staged_truth = truth.with_suffix(".unfinished")
    save_file(
        {
            "times_s": course.times_s,
            "au": course.au.astype(np.float32),
            "pspi": course.pspi.astype(np.float32),
            "regions": np.ascontiguousarray(drawing.regions),
            "region_active": course.region_active,
        },
        staged_truth,
        metadata={"au": ",".join(AUS), "regions": ",".join(REGIONS)},
    )
    staged_truth.replace(truth)
    save_file(
        {
            "times_s": course.times_s,
            "boxes": np.ascontiguousarray(drawing.boxes),
            "scores": np.ones(len(course.times_s), np.float32),
            "landmarks": np.ascontiguousarray(drawing.landmarks),
        },
        stage / "faces.safetensors",
    )
    (stage / "faces.safetensors").replace(sidecar)
    write_video(stage / "video.mp4", drawing.frames, job.fps)
    (stage / "video.mp4").replace(video)
    stage.rmdir()
    return job.frames


# ---- all clips ----


def _write(
    root: Path,
    plan: dict[str, object],
    seed: int,
    jobs: list[ClipJob],
    workers: int,
    on_progress: OnProgress | None,
    samples: list[list[object]],
) -> Path:
    if seed < 0:
        raise PainseqError(f"seed is {seed}; it must be 0 or more.")
    if workers < 1:
        raise PainseqError(f"workers is {workers}; it must be 1 or more.")
    _mark(root, plan, seed)
    total = sum(job.frames for job in jobs)
    todo = [job for job in jobs if not all(path.is_file() for path in job.files)]
    done = total - sum(job.frames for job in todo)
    report = on_progress or (lambda done, total: None)
    report(done, total)
    for frames in _each(todo, workers):
        done += frames
        report(done, total)
    shutil.rmtree(root / ".unfinished", ignore_errors=True)
    # The clip ids under which the data modules know these videos.
    names = [PurePosixPath(job.item).name if samples else job.item for job in jobs]
    labels = [[name, job.subject_id, job.label, job.part] for name, job in zip(names, jobs, strict=True)]
    _write_csv(truth_folder(root) / "labels.csv", ["clip_id", "subject_id", "label", "part"], labels, ",")
    if samples:
        columns = ["subject_id", "subject_name", "class_id", "class_name", "sample_id", "sample_name"]
        _write_csv(root / "samples.csv", columns, samples, "\t")
    return truth_folder(root)


def _mark(root: Path, plan: dict[str, object], seed: int) -> None:
    """Claim an empty folder, or find that the same data set was begun in it."""
    marker = root / MARKER
    ours = json.loads(json.dumps({"version": VERSION, "seed": seed, "plan": plan}))
    if marker.is_file():
        try:
            theirs = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PainseqError(f"{marker} is damaged ({error}). Remove {root} and generate it anew.") from error
        theirs.pop("about", None)
        differences = difference(theirs, ours)
        if differences:
            raise PainseqError(
                f"{root} holds another generated data set ({'; '.join(differences)}). Give another folder, or remove "
                f"this one and {truth_folder(root)}."
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PainseqError(f"{root} is not an empty folder. Generated videos go to a folder of their own.")
    root.mkdir(parents=True, exist_ok=True)
    about = "Every face in this folder is generated by painseq; it shows no person and no patient."
    staged = marker.with_suffix(".unfinished")
    staged.write_text(json.dumps({"about": about, **ours}, indent=2) + "\n", encoding="utf-8")
    staged.replace(marker)


def _each(jobs: Sequence[ClipJob], workers: int) -> Iterator[int]:
    """The number of frames of each clip as it is finished."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_write_clip, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_be_a_worker)
    try:
        for future in as_completed([pool.submit(_write_clip, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise PainseqError(
            f"A process that draws clips died ({error}). Memory may have run out: give fewer workers. A script of "
            'your own must start its work below `if __name__ == "__main__":`, or give workers=1. What is finished '
            "is kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _be_a_worker() -> None:
    # The parent stops the work: an interrupt from the keyboard reaches it and the workers alike.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One process a core: threads inside would only compete. Read by libraries that are loaded after this.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _write_csv(path: Path, columns: list[str], rows: list[list[Any]], delimiter: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".unfinished")
    with staged.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([columns, *rows])
    staged.replace(path)
