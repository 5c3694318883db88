"""Draw one generated clip, and write its files.

A clip's frames depend only on (seed, data set, subject, clip), not on other clips or the number of workers.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import save_file

from painseq.synthetic.expression import AUS, REGIONS, Course, Stimulus, Temper, draw_course, draw_temper, frame_count
from painseq.synthetic.face import FacePainter, draw_poses, face_box_of, landmarks_of, regions_of, shape_of
from painseq.synthetic.look import Look, draw_look
from painseq.video.generated import truth_folder


@dataclass(frozen=True)
class Drawing:
    """A clip that is drawn frame by frame, and its truth.

    Args:
        course: action units over time.
        landmarks: (N, 68, 2) pixels.
        boxes: (N, 4) xyxy pixels.
        regions: (N, len(REGIONS), 4) xyxy pixels.
        frames: (H, W, 3) uint8; (H, W) uint8 or uint16 for a depth or thermal camera.
    """

    course: Course
    landmarks: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    regions: npt.NDArray[np.float32]
    frames: Iterator[npt.NDArray[Any]]


@dataclass(frozen=True)
class ClipJob:
    """One video, or one folder of images, to generate.

    Args:
        root: folder of the data set.
        item: path relative to the root, with forward slashes, without suffix.
        clip_id: id of the clip in the data module.
        subject_id: id of the subject.
        label: native label; written only to the truth.
        stimulus: kind of pain.
        level: pain level, see `draw_course`.
        duration_s: length of the clip, in seconds.
        fps: frames per second.
        size_px: height and width of the frames.
        seed: seed of the data set.
        data_set: unique number of the layout, so that its subjects differ from those of other layouts.
        subject: index within the data set.
        clip: index within the subject. Jobs with the same index show the same scene through different cameras.
        part: official part of the data set, if it has any.
        images: name pattern of a folder's images, numbered from 1, e.g. "img_{:05d}.jpg"; empty for a video.
        camera: converts the drawing, frames and truth, to another camera; None keeps it.
    """

    root: Path
    item: str
    clip_id: str
    subject_id: str
    label: str
    stimulus: Stimulus
    level: float
    duration_s: float
    fps: float
    size_px: int
    seed: int
    data_set: int
    subject: int
    clip: int
    part: str = ""
    images: str = ""
    camera: Callable[[Drawing, int], Drawing] | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return frame_count(self.duration_s, self.fps)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.item.rpartition("/")[2]

    @property
    def truth(self) -> Path:
        """Path of the truth."""
        return truth_folder(self.root) / f"{self.item}.safetensors"

    @property
    def sidecar(self) -> Path:
        """Path of the face boxes and landmarks, next to the video."""
        return self.root / f"{self.item}.faces.safetensors"

    @property
    def video(self) -> Path:
        """Path of the video, or the folder of images; written last."""
        return self.root / (self.item if self.images else f"{self.item}.mp4")

    @property
    def is_done(self) -> bool:
        """Whether all files exist."""
        return self.truth.is_file() and self.sidecar.is_file() and self.video.exists()


def stage_folder(root: Path) -> Path:
    """Return the folder of unfinished files, which scans of the data set skip."""
    return root / ".unfinished"


def rng_of(*entropy: int) -> np.random.Generator:
    """Return a random generator seeded with these numbers."""
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_subject(seed: int, data_set: int, subject: int) -> tuple[Look, Temper, np.random.Generator]:
    """Draw a subject's look and temper; return also the generator, for further draws."""
    rng = rng_of(seed, data_set, subject)
    return draw_look(rng), draw_temper(rng), rng


@lru_cache(maxsize=2)
def _painter(seed: int, data_set: int, subject: int, size_px: int) -> tuple[FacePainter, Temper]:
    look, temper, rng = draw_subject(seed, data_set, subject)
    return FacePainter(look, size_px, rng), temper


def draw_clip(job: ClipJob) -> Drawing:
    """Draw one clip; its frames are drawn lazily."""
    painter, temper = _painter(job.seed, job.data_set, job.subject, job.size_px)
    rng = rng_of(job.seed, job.data_set, job.subject, job.clip)
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
    drawing = Drawing(
        course=course,
        landmarks=pixels,
        boxes=np.clip(face_box_of(pixels), 0, job.size_px),
        regions=np.clip(regions, 0, job.size_px),
        frames=(painter.frame(shape, i, poses, rng) for i in range(len(poses))),
    )
    return drawing if job.camera is None else job.camera(drawing, job.size_px)


def write_clip(job: ClipJob) -> int:
    """Write truth, sidecar and video of a clip, each atomically; return the number of frames.

    The truth records the video's digest, by which `is_generated` recognises it.
    """
    from painseq.video import video_digest

    drawing = draw_clip(job)
    course = drawing.course
    for place in (job.truth, job.video):
        place.parent.mkdir(parents=True, exist_ok=True)
    stage = stage_folder(job.root) / job.item.replace("/", "+")
    # A killed process may have left files here.
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    staged_video = stage / ("images" if job.images else "video.mp4")
    write_frames(staged_video, drawing.frames, job)
    staged_truth = job.truth.with_suffix(".unfinished")
    save_file(
        {
            "times_s": course.times_s,
            "au": course.au.astype(np.float32),
            "pspi": course.pspi.astype(np.float32),
            "regions": np.ascontiguousarray(drawing.regions),
            "region_active": course.region_active,
        },
        staged_truth,
        metadata={"au": ",".join(AUS), "regions": ",".join(REGIONS), "video": video_digest(staged_video)},
    )
    staged_truth.replace(job.truth)
    save_file(
        {
            "times_s": course.times_s,
            "boxes": np.ascontiguousarray(drawing.boxes),
            "scores": np.ones(len(course.times_s), np.float32),
            "landmarks": np.ascontiguousarray(drawing.landmarks),
        },
        stage / "faces.safetensors",
    )
    (stage / "faces.safetensors").replace(job.sidecar)
    if job.video.is_dir():
        shutil.rmtree(job.video)
    staged_video.replace(job.video)
    stage.rmdir()
    return job.frames


def write_frames(path: Path, frames: Iterable[npt.NDArray[Any]], job: ClipJob) -> None:
    """Write frames in the job's layout: as a video, or as a folder of numbered images."""
    from painseq.video import write_video

    if not job.images:
        write_video(path, frames, job.fps)
        return
    path.mkdir()
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / job.images.format(number), quality=92)


def write_start(path: Path, job: ClipJob, duration_s: float) -> None:
    """Write the first `duration_s` seconds of a clip, at least one frame, to another path."""
    if path.is_dir():
        shutil.rmtree(path)
    write_frames(path, itertools.islice(draw_clip(job).frames, frame_count(duration_s, job.fps)), job)
