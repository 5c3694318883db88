"""The face locator YuNet, through OpenCV."""

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
from painseq.faces.opencv import errors_only, import_cv2
from painseq.spec import Spec

URL = "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


class YuNet(Locator):
    """Detect face boxes with YuNet, through OpenCV; its five points (eyes, nose, mouth corners) are not used.

    Args:
        model: path of the ONNX file; None downloads the official one (233 kB) into the cache, once.
        min_score: faces with a lower score are dropped, 0 to 1.
        max_side_px: larger images are reduced to this longer side before detection; the smallest face found is then
            about 10 pixels wide.

    The file at `model` is not opened before it is needed, so that a checkpoint that names one can be loaded on another
    machine and used with another locator.
    """

    needs_pixels: ClassVar[bool] = True

    def __init__(self, model: str | None = None, min_score: float = 0.6, max_side_px: int = 320) -> None:
        if not 0 < min_score < 1:
            raise PainseqError(f"YuNet: min_score is {min_score}; it must lie between 0 and 1.")
        if max_side_px < 32:
            raise PainseqError(f"YuNet: max_side_px is {max_side_px}; it must be 32 or more.")
        self.model = model
        self.min_score = min_score
        self.max_side_px = max_side_px
        self._thread_local = threading.local()

    def __getstate__(self) -> dict[str, object]:
        # OpenCV's detector can neither be sent to another process nor shared by threads; each thread creates its own.
        return {name: value for name, value in self.__dict__.items() if name != "_thread_local"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._thread_local = threading.local()

    def identity(self) -> Spec:
        """Return the settings that decide which faces are found; the model by its content, not its path."""
        spec = super().identity()
        args = {"min_score": self.min_score, "max_side_px": self.max_side_px}
        sha256 = SHA256 if self.model is None else sha256_of(self._model_file())
        return {**spec, "init_args": {**args, "model_sha256": sha256}}

    def model_files(self) -> dict[str, Path]:
        """See `Locator.model_files`."""
        return {"model": self._model_file()}

    def _model_file(self) -> Path:
        if self.model is None:
            return fetch(URL, SHA256)
        path = Path(self.model)
        if not path.is_file():
            raise PainseqError(
                f"No YuNet model at {path}. Set model to the path of face_detection_yunet_2023mar.onnx (painseq "
                f"predict: --locator yunet --yunet-model FILE), or to None to download the official file from {URL}."
            )
        return path

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Find faces with a score of at least `min_score`."""
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
        if not hasattr(self._thread_local, "detector"):
            self._thread_local.detector = self._load()
        self._thread_local.detector.setInputSize(size)
        _, rows = self._thread_local.detector.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if rows is None:
            return []
        factors = np.array([width / size[0], height / size[1]] * 2, np.float32)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1).astype(np.float32) * factors
        return [Face(box, float(score)) for box, score in zip(boxes, rows[:, 14], strict=True)]

    def _load(self) -> Any:
        cv2 = import_cv2()
        try:
            path = self._model_file()
        except PainseqError as error:
            raise LocatorUnavailable(str(error)) from error
        try:
            with errors_only(cv2):
                return cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.min_score)
        except cv2.error as error:
            raise LocatorUnavailable(
                f"OpenCV {cv2.__version__} cannot load {path} as a YuNet model: {error}"
            ) from error
