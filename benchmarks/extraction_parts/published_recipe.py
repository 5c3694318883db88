"""The recipe that the papers describe, with their tools: what extraction.py measures itself against.

Frame by frame: OpenCV reads, S3FD looks for the face, FAN for its landmarks, the crop goes to disk as a PNG. Then each
PNG is read again and goes through the network by itself. The two networks of face-alignment have random weights, which
cost the same as trained ones, and need no download.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.extractors import Extractor


class PublishedRecipe:
    """A video's features, as published.

    Args:
        extractor: the network behind the crops.

    Raises:
        ImportError: face-alignment is not installed.
    """

    def __init__(self, extractor: Extractor) -> None:
        from face_alignment import FaceAlignment
        from face_alignment.detection.sfd.detect import detect
        from face_alignment.detection.sfd.net_s3fd import s3fd
        from face_alignment.detection.sfd.sfd_detector import SFDDetector
        from face_alignment.models import FAN

        self.extractor = extractor.eval()
        self._detect, self._s3fd = detect, s3fd().eval()
        for name, layer in self._s3fd.named_modules():
            if name.endswith("conf"):
                # Random weights would see a face nearly everywhere, and the package loops over what it sees.
                torch.nn.init.zeros_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
                layer.bias.data[-1] = -20.0
        # Its __init__ would download the weights; what it sets is set here, as its defaults are.
        self._aligner = object.__new__(FaceAlignment)
        self._aligner.face_alignment_net = FAN(4).eval()
        self._aligner.face_detector = object.__new__(SFDDetector)
        self._aligner.device, self._aligner.dtype = "cpu", torch.float32
        self._aligner.flip_input, self._aligner.max_batch_size = True, 1
        self._aligner.landmarks_type = 1
        self._aligner.verbose = False

    @torch.inference_mode()
    def features(self, video: Path, boxes: Sequence[NDArray[np.float32]], folder: Path) -> Tensor:
        """Features of a video's first frames.

        Args:
            boxes: for each frame the area to crop, since networks with random weights find no face.
            folder: for the PNG files.

        Returns:
            (n, D).
        """
        reader = cv2.VideoCapture(str(video))
        size_px = self.extractor.input_size_px
        for number, box in enumerate(boxes):
            _, image = reader.read()
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            self._detect(self._s3fd, rgb, "cpu")
            self._aligner.get_landmarks_from_image(rgb, detected_faces=[np.append(box, 1.0)])
            cv2.imwrite(str(folder / f"{number}.png"), _crop(image, box, size_px))
        reader.release()
        features = []
        for number in range(len(boxes)):
            rgb = cv2.cvtColor(cv2.imread(str(folder / f"{number}.png")), cv2.COLOR_BGR2RGB)
            features.append(self.extractor(torch.from_numpy(rgb).permute(2, 0, 1)[None].contiguous()))
        return torch.cat(features)


def _crop(image: NDArray[np.uint8], box: NDArray[np.float32], size_px: int) -> NDArray[np.uint8]:
    left, top, right, bottom = (round(float(value)) for value in box)
    height, width = image.shape[:2]
    part = image[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    before, after = (max(0, -top), max(0, -left)), (max(0, bottom - height), max(0, right - width))
    part = np.pad(part, [(before[0], after[0]), (before[1], after[1]), (0, 0)])
    return cv2.resize(part, (size_px, size_px), interpolation=cv2.INTER_AREA)
