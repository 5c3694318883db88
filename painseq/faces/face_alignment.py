"""The face locator of the `face-alignment` package, with 68 landmarks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from painseq.errors import LocatorUnavailable, PainseqError
from painseq.faces.locator import Face, Locator
from painseq.spec import Spec


class FaceAlignment(Locator):
    """Detect face boxes and 68 landmarks (FAN); requires the extra `painseq[face-alignment]`.

    The package downloads its weights at first use, into `$TORCH_HOME/hub/checkpoints`.

    Args:
        device: "cpu", "cuda", ...
        detector: "sfd", the package's default, or "blazeface", much faster, for large faces only.
    """

    needs_pixels: ClassVar[bool] = True
    needs_torch: ClassVar[bool] = True

    def __init__(self, device: str = "cpu", detector: Literal["sfd", "blazeface"] = "sfd") -> None:
        if detector not in ("sfd", "blazeface"):
            raise PainseqError(f"FaceAlignment: detector is {detector!r}; use sfd or blazeface.")
        self.device = device
        self.detector = detector
        self._aligner: Any = None
        self._loading = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_aligner", "_loading")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._aligner, self._loading = None, threading.Lock()

    def identity(self) -> Spec:
        """Return the settings that decide which faces are found; the device is not one of them."""
        return {**super().identity(), "init_args": {"detector": self.detector}}

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        """Find every face with its landmarks; box and score are the detector's."""
        if images is None:
            raise ValueError("FaceAlignment needs the images.")
        with self._loading:
            if self._aligner is None:
                self._aligner = self._load()
        return [self._faces(image) for image in images]

    def _faces(self, image: NDArray[np.uint8]) -> list[Face]:
        # Frame by frame: the package's batch calls return other shapes when a frame has no face.
        found = self._aligner.face_detector.detect_from_image(image.copy())
        if found is None or not len(found):
            return []
        landmarks = self._aligner.get_landmarks_from_image(image, detected_faces=list(found))
        if landmarks is None:
            return []
        return [
            Face(np.asarray(box[:4], np.float32), float(box[4]), np.asarray(points, np.float32)[:, :2])
            for box, points in zip(found, landmarks, strict=True)
        ]

    def _load(self) -> Any:
        try:
            import face_alignment
        except ImportError as error:
            raise LocatorUnavailable(
                f"The locator FaceAlignment needs the package face-alignment: {error}. "
                "Install it in painseq's folder: pip install -e '.[face-alignment]'."
            ) from error
        try:
            return face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D, device=self.device, face_detector=self.detector, compile=False
            )
        except OSError as error:
            raise LocatorUnavailable(
                f"face-alignment cannot download its weights: {error}. Put them into $TORCH_HOME/hub/checkpoints."
            ) from error
