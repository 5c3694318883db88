"""Tracks on disk: found once, used by every crop of the same faces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from painseq.errors import PainseqError
from painseq.faces.track import FaceTrack
from painseq.files import write_atomically, write_json
from painseq.spec import Spec, difference, digest
from painseq.video import video_digest

FORMAT = 1
_INDEX = "tracks.json"
_AGAIN = "Delete the file and run `painseq faces` again: it writes what is missing."


@dataclass(frozen=True)
class StoredTrack:
    """A track as a file keeps it.

    Args:
        face: its boxes are not smoothed, so that crops of any smoothing use it.
        located: frames at which the locator looked.
    """

    face: FaceTrack
    located: int


class TrackFolder:
    """A folder of tracks that were all found in one way: tracks.json says how, and each clip has a file.

    A clip's file is named by the video's content, the span, the sampling and the tracking, and so is found again
    wherever the videos lie. It appears whole or not at all; several processes may write into one folder.

    Args:
        path: the folder.
        tracking: what decides the tracks, `FaceCrops.tracking()`.
    """

    def __init__(self, path: Path, tracking: Spec) -> None:
        self.path = path
        self.tracking = tracking
        self._digests: dict[tuple[Path, float | None], str] = {}

    def begin(self) -> None:
        """Make the folder, or check that it is of this tracking.

        Raises:
            PainseqError: it holds tracks found otherwise.
        """
        if (self.path / _INDEX).is_file():
            self.check()
            return
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "tracking": self.tracking}
        write_json(self.path / _INDEX, content)

    def check(self) -> None:
        """Compare the folder's tracking with this one.

        Raises:
            PainseqError: no tracks there, or tracks found otherwise; it names what differs.
        """
        index = self.path / _INDEX
        if not index.is_file():
            raise PainseqError(
                f"No tracks at {self.path}: it has no {_INDEX}. Write some (painseq faces --out {self.path}), or give "
                "FaceCrops no `tracks`."
            )
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            found, written = content["tracking"], content["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise PainseqError(
                f"{index} is damaged ({error!r}). Delete the folder and write the tracks anew."
            ) from error
        if written != FORMAT:
            raise PainseqError(f"{index} has format {written!r}; this version reads {FORMAT}. Write the tracks anew.")
        lines = difference(found, self.tracking)
        if lines:
            raise PainseqError(
                f"The tracks in {self.path} were found otherwise:\n  "
                + "\n  ".join(lines)
                + "\nUse another folder, or "
                "set the face crop as it was."
            )

    def place(
        self, video: Path, start_s: float, end_s: float | None, fps: float | None, image_fps: float | None = None
    ) -> Path:
        """Where the track of a span of a video lies, if it is there. A video is looked at once, however many its spans.

        Args:
            image_fps: images a second, where the video is a folder of them.

        Raises:
            PainseqError: no such video.
        """
        span = [float(start_s), None if end_s is None else float(end_s), None if fps is None else float(fps)]
        source = video, image_fps
        if source not in self._digests:
            self._digests[source] = video_digest(*source)
        return self.path / f"{digest([self._digests[source], *span, self.tracking])}.safetensors"

    def write(self, place: Path, track: StoredTrack) -> None:
        """Keep a track.

        Raises:
            OSError: the disk is full or the folder cannot be written; nothing is left behind then.
        """
        face = track.face
        tensors = {"times_s": face.times_s, "boxes": face.boxes, "scores": face.scores, "present": face.present}
        if face.landmarks is not None:
            tensors["landmarks"] = face.landmarks
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        write_atomically(place, save(contiguous, {"format": str(FORMAT), "located": str(track.located)}))

    def read(self, place: Path, times_s: NDArray[np.float64] | None = None) -> StoredTrack:
        """A track written before.

        Args:
            place: its file.
            times_s: (N,) of the frames that it must be of, if they are known.

        Raises:
            PainseqError: the file is damaged, or of other frames.
        """
        try:
            with safe_open(place, "np") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                located = int((file.metadata() or {})["located"])
            count = len(tensors["times_s"])
            face = FaceTrack(
                tensors["times_s"], tensors["boxes"], tensors["present"], tensors["scores"], tensors.get("landmarks")
            )
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise PainseqError(f"The track {place} is damaged: {error}. {_AGAIN}") from error
        shapes = {"times_s": (count,), "boxes": (count, 4), "present": (count,), "scores": (count,)}
        if face.landmarks is not None:
            shapes["landmarks"] = (count, *face.landmarks.shape[1:2], 2)
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                raise PainseqError(
                    f"The track {place} is damaged: {name} is {tensors[name].shape}, not {shape}. {_AGAIN}"
                )
        if times_s is not None and not (count == len(times_s) and np.allclose(times_s, face.times_s, atol=1e-6)):
            raise PainseqError(
                f"The track {place} is of {count} frames, not of the video's {len(times_s)} at their times. {_AGAIN}"
            )
        return StoredTrack(face, located)
