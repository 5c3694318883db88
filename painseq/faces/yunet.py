"""OpenCV's YuNet."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from painseq.download import fetch, sha256_of
from painseq.errors import LocatorUnavailable, PainseqError
from painseq.faces.locator import Face, Locator
from painseq.spec import Spec

URL = "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


class YuNet(Locator):
    """Boxes and five points (eyes, nose, corners of the mouth; not used as landmarks) by YuNet, through OpenCV.

    Args:
        model: path of the ONNX file; None fetches the official one (233 kB) into the cache, once.
        min_score: faces below it are dropped, 0 to 1.
        max_side_px: larger pictures are reduced to this longer side before the search; the smallest face that
            it finds is about 10 pixels wide then.

    Whether there is a file at `model` shows when it is first needed, so that a checkpoint that names one can be loaded
    elsewhere, and another locator used with it.
    """

    needs_pixels: ClassVar[bool] = True

    def __init__(self, model: str | None = None, min_score: float = 0.6, max_side_px: int = 320) -> None:
        if not 0 < min_score < 1:
            raise PainseqError(f"YuNet's min_score is {min_score}; it must lie between 0 and 1.")
        if max_side_px < 32:
            raise PainseqError(f"YuNet's max_side_px is {max_side_px}; it must be 32 or more.")
        self.model = model
        self.min_score = min_score
        self.max_side_px = max_side_px
        self._own = threading.local()

    def __getstate__(self) -> dict[str, object]:
        # An OpenCV object can neither go to another process nor serve two threads at once; each makes its own.
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._own = threading.local()

    def identity(self) -> Spec:
        """The model counts by its content, wherever its file lies."""
        spec = super().identity()
        args = {"min_score": self.min_score, "max_side_px": self.max_side_px}
        sha256 = SHA256 if self.model is None else sha256_of(self._given())
        return {**spec, "init_args": {**args, "model_sha256": sha256}}

    def _given(self) -> Path:
        path = Path(str(self.model))
        if not path.is_file():
            raise PainseqError(
                f"No YuNet model at {path}. Give the place of face_detection_yunet_2023mar.onnx (painseq predict: "
                f"--locator yunet --yunet-model FILE), or none: then the official file is fetched from {URL}."
            )
        return path

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Faces with a score of at least `min_score`."""
        if images is None:
            raise ValueError("YuNet needs the images.")
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, self.max_side_px / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if scale < 1:
            small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
            image = np.asarray(small)
        if not hasattr(self._own, "detector"):
            self._own.detector = self._load()
        self._own.detector.setInputSize(size)
        _, rows = self._own.detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if rows is None:
            return []
        factors = np.array([width / size[0], height / size[1]] * 2, np.float32)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1).astype(np.float32) * factors
        return [Face(box, float(score)) for box, score in zip(boxes, rows[:, 14], strict=True)]

    def _load(self) -> Any:
        try:
            import cv2
        except ImportError as error:
            raise LocatorUnavailable(
                f"OpenCV cannot be imported: {error}. Where a shared library such as libGL is missing, install it "
                "(Debian: apt install libgl1 libglib2.0-0) or replace opencv-python by opencv-python-headless."
            ) from error
        try:
            path = fetch(URL, SHA256) if self.model is None else self._given()
        except PainseqError as error:
            raise LocatorUnavailable(str(error)) from error
        level = cv2.utils.logging.getLogLevel()
        # OpenCV 5 warns at each load that its new engine has no targets to choose from; nobody chose one.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            return cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.min_score)
        except cv2.error as error:
            raise LocatorUnavailable(
                f"OpenCV {cv2.__version__} cannot load {path} as a YuNet model: {error}"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(level)
