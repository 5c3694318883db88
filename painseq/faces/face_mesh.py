"""The locator FaceMesh: 478 points of each face, followed from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from painseq.faces.locator import Face, Follow, Locator
from painseq.faces.mesh_nets import FaceLandmarkerBundle, Region
from painseq.faces.yunet import YuNet
from painseq.spec import Spec

_MIN_PRESENCE = 0.5
_SEARCH_S = 0.5
_SAME_FACE = 0.3
# Part of the identity: another rule moves the points by more than another runtime does. Raise it with the rule.
_RULE = "YuNet's box x 1.5, two passes; then the extent of the points x 1.5, turned by the outer eye corners"


class FaceMesh(Locator):
    """Find 478 points (x, y, z) of each face with the networks of Google's face landmarker, through OpenCV.

    A face is found by YuNet's box and two passes of the network, and then followed from its own points, so that every
    frame is looked at. New faces are searched for every 0.5 s, and in every frame after one was lost. A region that
    shows a face with a probability below 0.5 has none. The box of a face is the extent of its points, from chin to
    forehead; its score is that probability. The first 468 points are those of MediaPipe's face mesh, the last ten the
    irises.

    Args:
        model: path of the bundle face_landmarker.task; None downloads it (3.8 MB) into the cache, once.
        yunet_model: path of YuNet's ONNX file; see `YuNet`.
        min_score: see `YuNet`.

    Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs". Deviations: YuNet in
    place of BlazeFace, and no smoothing of the points over time.
    """

    needs_pixels: ClassVar[bool] = True
    every_frame: ClassVar[bool] = True

    def __init__(self, model: str | None = None, yunet_model: str | None = None, min_score: float = 0.6) -> None:
        self.model = model
        self.yunet_model = yunet_model
        self.min_score = min_score
        self.bundle = FaceLandmarkerBundle(model)
        self._detector = YuNet(yunet_model, min_score)

    def identity(self) -> Spec:
        """Return the settings that decide the points: both models by their content, and the rule for the region."""
        args = {"model_sha256": self.bundle.sha256(), "detector": self._detector.identity(), "region": _RULE}
        return {**super().identity(), "init_args": args}

    def model_files(self) -> dict[str, Path]:
        """See `Locator.model_files`."""
        return {"model": self.bundle.file(), "yunet_model": self._detector.model_files()["model"]}

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Find the faces of each image by itself."""
        if images is None:
            raise ValueError("FaceMesh needs the images.")
        return [self._search(image, video, ()) for image in images]

    def follow(self, video: Path) -> Follow:
        """Return what finds the faces of one clip, each from its points in the frame before."""
        followed: list[Face] = []
        searched_s = -math.inf

        def frame(image: NDArray[np.uint8], time_s: float) -> list[Face]:
            nonlocal followed, searched_s
            points = [face.landmarks for face in followed if face.landmarks is not None]
            found = _distinct([face for p in points for face in self._face(image, Region.of_points(p))])
            if not found or len(found) < len(followed) or time_s - searched_s >= _SEARCH_S:
                found += self._search(image, video, found)
                searched_s = time_s
            followed = found
            return found

        def clip(images: NDArray[np.uint8], times_s: NDArray[np.float64]) -> list[list[Face]]:
            return [frame(image, time_s) for image, time_s in zip(images, times_s.tolist(), strict=True)]

        return clip

    def _search(self, image: NDArray[np.uint8], video: Path, known: Sequence[Face]) -> list[Face]:
        """Find the faces of an image other than the known ones."""
        (detected,) = self._detector.locate(image[None], np.zeros(1), video)
        found: list[Face] = []
        for box in (face.box for face in detected):
            if any(_overlap(box, face.box) > _SAME_FACE for face in (*known, *found)):
                continue
            points, _ = self.bundle.points(image, Region.of_box(box))
            found += self._face(image, Region.of_points(points))
        return _distinct(found)

    def _face(self, image: NDArray[np.uint8], region: Region) -> list[Face]:
        """Return the face in a region, or nothing."""
        if not region.side > 1:
            return []
        points, presence = self.bundle.points(image, region)
        if presence < _MIN_PRESENCE:
            return []
        box = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
        return [Face(box, presence, points)]


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Leave out each face that overlaps an earlier one: two regions can run into the same face."""
    kept: list[Face] = []
    for face in faces:
        if not any(_overlap(face.box, other.box) > _SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the intersection of two boxes as a share of their union."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    shared = float(sides.prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)
