"""One generated clip: what is drawn, and its files on disk.

A clip's frames depend on (seed, data set, subject, clip) alone, not on the other clips or the number of workers.
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
    """A clip ready to be drawn: frames one at a time, and all that is known of them.

    Args:
        landmarks: (N, 68, 2) pixels.
        boxes: (N, 4) xyxy pixels.
        regions: (N, len(REGIONS), 4) xyxy pixels.
        frames: (H, W, 3) uint8; (H, W) uint8 or uint16 of a camera that sees no colour.
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
        root: of the data set.
        item: path below the root, with forward slashes, without suffix.
        clip_id: under which the data set's module knows the clip.
        subject_id: whom it shows.
        label: native; it is written to the truth alone.
        stimulus: what hurts.
        level: how much; see `draw_course`.
        duration_s: length of the clip.
        fps: frames a second.
        size_px: height and width of the frames.
        seed: of the whole data set.
        data_set: a number of its own for each layout: keeps their subjects apart.
        subject: index within the data set.
        clip: index within the subject. Two jobs of one clip show the same scene, through different cameras.
        part: official part of the data set, if it has any.
        images: name of a folder's images, numbered from 1, e.g. "img_{:05d}.jpg"; empty for a video.
        camera: what another camera makes of the drawing, picture and truth; None is the drawing as it is.
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
        """Where the truth lies."""
        return truth_folder(self.root) / f"{self.item}.safetensors"

    @property
    def sidecar(self) -> Path:
        """Where the faces' boxes and landmarks lie: beside the video."""
        return self.root / f"{self.item}.faces.safetensors"

    @property
    def video(self) -> Path:
        """The video, or the folder of images; it comes last into place."""
        return self.root / (self.item if self.images else f"{self.item}.mp4")

    @property
    def is_done(self) -> bool:
        """Whether all of it is in place."""
        return self.truth.is_file() and self.sidecar.is_file() and self.video.exists()


def stage_folder(root: Path) -> Path:
    """Where unfinished files stand, even after a kill: no scan of the data set's videos meets them there."""
    return root / ".unfinished"


def rng_of(*entropy: int) -> np.random.Generator:
    """Random numbers that depend on these numbers alone."""
    return np.random.default_rng(np.random.SeedSequence(entropy))


def draw_subject(seed: int, data_set: int, subject: int) -> tuple[Look, Temper, np.random.Generator]:
    """A subject's look and temper, and the random numbers that go on from there."""
    rng = rng_of(seed, data_set, subject)
    return draw_look(rng), draw_temper(rng), rng


@lru_cache(maxsize=2)
def _painter(seed: int, data_set: int, subject: int, size_px: int) -> tuple[FacePainter, Temper]:
    look, temper, rng = draw_subject(seed, data_set, subject)
    return FacePainter(look, size_px, rng), temper


def draw_clip(job: ClipJob) -> Drawing:
    """Draw one clip; its frames are made as they are asked for."""
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
    """Write truth, sidecar and video of a clip, each complete or not at all; returns the number of frames.

    The truth keeps the video's digest, by which `is_generated` knows it again.
    """
    from painseq.video import video_digest

    drawing = draw_clip(job)
    course = drawing.course
    for place in (job.truth, job.video):
        place.parent.mkdir(parents=True, exist_ok=True)
    stage = stage_folder(job.root) / job.item.replace("/", "+")
    # A process that was killed here may have left files behind.
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
    """Write frames the way the job's layout holds them: as a video, or as a folder of numbered images."""
    from painseq.video import write_video

    if not job.images:
        write_video(path, frames, job.fps)
        return
    path.mkdir()
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / job.images.format(number), quality=92)


def write_start(path: Path, job: ClipJob, duration_s: float) -> None:
    """Write the first `duration_s` of a clip, one frame at least, to another place."""
    if path.is_dir():
        shutil.rmtree(path)
    write_frames(path, itertools.islice(draw_clip(job).frames, frame_count(duration_s, job.fps)), job)
