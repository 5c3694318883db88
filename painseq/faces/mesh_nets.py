"""The two networks of Google's face landmarker, run by OpenCV: 478 points of a face, and 52 movement coefficients.

Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs"; Grishchenko et al. 2020,
"Attention Mesh". The makers' own package is not used: it reports usage, and it replaces OpenCV.
"""

from __future__ import annotations

import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from painseq.download import fetch, sha256_of
from painseq.errors import LocatorUnavailable, PainseqError
from painseq.faces.opencv import errors_only, import_cv2

URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
POINTS = 478
CROP_PX = 256
# Side of the region of interest, as a multiple of the longer side of the box or of the extent of the points.
_REGION_SCALE = 1.5
_RIGHT_EYE, _LEFT_EYE = 33, 263  # outer corners
_POINT_NET, _MOVEMENT_NET = "face_landmarks_detector.tflite", "face_blendshapes.tflite"
_POINT_OUTPUTS = {"Identity": POINTS * 3, "Identity_1": 1}
_MOVEMENT_OUTPUTS = {"StatefulPartitionedCall:0": 52}

# The points that the movement coefficients are computed from, in the order of the network's input.
MOVEMENT_POINTS = np.array(
    [
        *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78),
        *(80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150),
        *(152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197),
        *(234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308),
        *(310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377),
        *(378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466),
        *(468, 469, 470, 471, 472, 473, 474, 475, 476, 477),
    ]
)


@dataclass(frozen=True)
class Region:
    """The turned square that is cut out for the network: centre and side in pixels, angle in radians (clockwise)."""

    x: float
    y: float
    side: float
    angle_rad: float = 0.0

    @classmethod
    def of_box(cls, box: NDArray[np.float32]) -> Region:
        """Return the upright region around a detector's box, (4,) left, top, right, bottom."""
        left, top, right, bottom = (float(value) for value in box)
        return cls((left + right) / 2, (top + bottom) / 2, _REGION_SCALE * max(right - left, bottom - top))

    @classmethod
    def of_points(cls, points: NDArray[np.float32]) -> Region:
        """Return the region around (478, 2 or 3) points of the same face, turned by the line between the eyes."""
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        x, y = (float(value) for value in (low + high) / 2)
        across = points[_LEFT_EYE] - points[_RIGHT_EYE]
        return cls(x, y, _REGION_SCALE * float((high - low).max()), float(np.arctan2(across[1], across[0])))

    def turn(self) -> NDArray[np.float64]:
        """Return (2, 2), which turns a direction in the crop to one in the picture."""
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.array([[cos, -sin], [sin, cos]])


class FaceLandmarkerBundle:
    """The bundle `face_landmarker.task`: where it is, what it must be, and its networks, one set for each thread.

    Args:
        model: path of the bundle; None downloads it (3.8 MB) into the cache, once.
    """

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self._thread_local = threading.local()

    def __getstate__(self) -> dict[str, object]:
        # OpenCV's networks can neither be sent to another process nor shared by threads.
        return {"model": self.model}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.model = state["model"]  # type: ignore[assignment]
        self._thread_local = threading.local()

    def sha256(self) -> str:
        """Return the digest of the bundle in use."""
        return SHA256 if self.model is None else sha256_of(self.file())

    def points(self, image: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.float32], float]:
        """Find the points of the face in a region of a picture.

        Args:
            image: (H, W, 3) RGB uint8.

        Returns:
            (478, 3) float32, x and y in pixels of the picture, z (towards the camera is negative) in the same unit; and
            the probability that the region shows a face.
        """
        cv2 = import_cv2()
        scale = region.side / CROP_PX
        turn = region.turn() * scale
        centre = np.array([region.x, region.y])
        to_picture = np.concatenate([turn, (centre - turn @ [CROP_PX / 2, CROP_PX / 2])[:, None]], axis=1)
        # A constant border moves the points by up to 13 pixels where the region leaves the picture.
        crop = cv2.warpAffine(
            image,
            to_picture,
            (CROP_PX, CROP_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        net = self._net(_POINT_NET, _POINT_OUTPUTS)
        net.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        values, logit = net.forward(list(_POINT_OUTPUTS))
        found = values.reshape(POINTS, 3).astype(np.float64)
        points = np.concatenate([found[:, :2] @ turn.T + to_picture[:, 2], found[:, 2:] * scale], axis=1)
        return points.astype(np.float32), float(1 / (1 + np.exp(-float(logit.reshape(-1)[0]))))

    def movements(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the coefficients of (N, 478, 2 or more) points in pixels: (N, 52) float32, 0 to 1; NaN for NaN."""
        net = self._net(_MOVEMENT_NET, _MOVEMENT_OUTPUTS)
        chosen = points[:, MOVEMENT_POINTS, :2].astype(np.float32)
        coefficients = np.full((len(points), 52), np.nan, np.float32)
        for row in np.flatnonzero(np.isfinite(chosen).all(axis=(1, 2))):
            net.setInput(np.ascontiguousarray(chosen[row : row + 1]))
            coefficients[row] = net.forward(next(iter(_MOVEMENT_OUTPUTS))).reshape(-1)
        return coefficients

    def file(self) -> Path:
        """Return the path of the bundle, downloaded first if needed."""
        if self.model is None:
            return fetch(URL, SHA256)
        path = Path(self.model)
        if not path.is_file():
            raise PainseqError(
                f"No face mesh model at {path}. Set model to the path of face_landmarker.task (command line: "
                f"--face-mesh-model FILE), or to None to download the official file from {URL}."
            )
        return path

    def _net(self, name: str, outputs: dict[str, int]) -> Any:
        nets: dict[str, Any] = self._thread_local.__dict__
        if name not in nets:
            nets[name] = self._load(name, outputs)
        return nets[name]

    def _load(self, name: str, outputs: dict[str, int]) -> Any:
        try:
            path = self.file()
        except PainseqError as error:
            raise LocatorUnavailable(str(error)) from error
        try:
            with zipfile.ZipFile(path) as bundle:
                content = bundle.read(name)
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise LocatorUnavailable(
                f"{path} (sha256 {sha256_of(path)}) cannot be read as the bundle face_landmarker.task: {error}. Its "
                f"sha256 must be {SHA256}; download it from {URL}."
            ) from error
        return _read_net(content, f"{name} of {path}", outputs)


def _read_net(content: bytes, name: str, outputs: dict[str, int]) -> Any:
    """Load a network by OpenCV, and check the sizes of its outputs on an input of zeros."""
    cv2 = import_cv2()
    zeros = (1, 3, CROP_PX, CROP_PX) if POINTS * 3 in outputs.values() else (1, len(MOVEMENT_POINTS), 2)
    try:
        # From a file, as OpenCV 5.0 ignores the engine for a buffer; its new engine gives one output under all names.
        with errors_only(cv2), tempfile.TemporaryDirectory(prefix="painseq-") as folder:
            file = Path(folder) / "net.tflite"
            file.write_bytes(content)
            engine = getattr(cv2.dnn, "ENGINE_CLASSIC", None)
            net = (
                cv2.dnn.readNetFromTFLite(str(file)) if engine is None else cv2.dnn.readNetFromTFLite(str(file), engine)
            )
        net.setInput(np.zeros(zeros, np.float32))
        sizes = {output: int(values.size) for output, values in zip(outputs, net.forward(list(outputs)), strict=True)}
    except (cv2.error, AttributeError) as error:
        raise LocatorUnavailable(
            f"OpenCV {cv2.__version__} cannot read {name}: {error}. Install opencv-python-headless 4.12 or later."
        ) from error
    if sizes != outputs:
        raise LocatorUnavailable(
            f"OpenCV {cv2.__version__} gives {sizes} values for {name}, not {outputs}. Install another version of "
            "opencv-python-headless (4.12, 4.14 and 5.0 are known to work)."
        )
    return net
