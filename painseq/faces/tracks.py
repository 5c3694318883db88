"""Face tracks on disk: computed once, reused by all crops of the same faces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from painseq.errors import PainseqError
from painseq.faces.fixed_point import from_fixed_point, to_fixed_point
from painseq.faces.track import FaceTrack, switched_in
from painseq.files import parse_json, write_atomically, write_json
from painseq.spec import Spec, difference, digest
from painseq.video import video_digest

FORMAT = 1
_INDEX = "tracks.json"
_FIXED_POINT = ("landmark_steps", "landmark_low", "landmark_step")
_RERUN_HINT = "Delete the file and rerun `painseq faces`: it writes the missing tracks."


@dataclass(frozen=True)
class StoredTrack:
    """A track as stored in a file.

    Args:
        face: the track; its boxes are not smoothed, so that crops with any smoothing can use it.
        located: number of frames on which the locator ran.
    """

    face: FaceTrack
    located: int


class TrackFolder:
    """A folder of tracks found with the same settings: tracks.json records them, and each clip has a file.

    A clip's file name is a digest of the video's content, the span, the sampling and the tracking, independent of the
    video's path. Files are written atomically; several processes may write into one folder.

    Args:
        path: the folder.
        tracking: the settings that decide the tracks, `FaceCrops.tracking()`.
    """

    def __init__(self, path: Path, tracking: Spec) -> None:
        self.path = path
        self.tracking = tracking
        self._digests: dict[tuple[Path, float | None], str] = {}

    def exists(self) -> bool:
        """Whether the folder was begun."""
        return (self.path / _INDEX).is_file()

    def begin(self) -> None:
        """Create the folder, or check that it was written with the same tracking.

        Raises:
            PainseqError: its tracks were found with other settings.
        """
        if self.exists():
            self.check()
            return
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "tracking": self.tracking}
        write_json(self.path / _INDEX, content)

    def check(self) -> None:
        """Check that the folder was written with the same tracking.

        Raises:
            PainseqError: no tracks there, or tracks found with other settings; it names the differences.
        """
        index = self.path / _INDEX
        if not index.is_file():
            raise PainseqError(
                f"No tracks at {self.path}: it has no {_INDEX}. Write them (painseq faces --out {self.path}), or leave "
                "out the argument `tracks` of FaceCrops."
            )
        try:
            content = parse_json(index.read_bytes())
            found, format_number = dict(content["tracking"]), content["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise PainseqError(
                f"{index} is damaged ({error!r}). Delete the folder and write the tracks again."
            ) from error
        if format_number != FORMAT:
            raise PainseqError(
                f"{index} has format {format_number!r}; this version reads {FORMAT}. Write the tracks again."
            )
        lines = difference(found, self.tracking)
        if lines:
            raise PainseqError(
                f"The tracks in {self.path} were found with other settings:\n  "
                + "\n  ".join(lines)
                + "\nwhere the second value is the requested one. Use another folder, or the settings of these tracks."
            )

    def place(
        self, video: Path, start_s: float, end_s: float | None, fps: float | None, image_fps: float | None = None
    ) -> Path:
        """Return the path of the track file of a span of a video. The video's digest is computed only once.

        Args:
            video: path of the video.
            start_s: start of the span, in seconds.
            end_s: end of the span, exclusive; None is the end of the video.
            fps: samples per second; None takes every frame.
            image_fps: images per second, if the video is a folder of images.

        Raises:
            PainseqError: there is no such video.
        """
        span = [float(start_s), None if end_s is None else float(end_s), None if fps is None else float(fps)]
        source = video, image_fps
        if source not in self._digests:
            self._digests[source] = video_digest(*source)
        return self.path / f"{digest([self._digests[source], *span, self.tracking])}.safetensors"

    def write(self, place: Path, track: StoredTrack) -> None:
        """Write a track, atomically.

        Raises:
            OSError: the disk is full or the folder cannot be written; no partial file remains.
        """
        face = track.face
        tensors = {"times_s": face.times_s, "boxes": face.boxes, "scores": face.scores, "present": face.present}
        if face.landmarks is not None and face.landmarks.shape[2] == 3:
            tensors |= dict(zip(_FIXED_POINT, to_fixed_point(face.landmarks), strict=True))
        elif face.landmarks is not None:
            tensors["landmarks"] = face.landmarks
        if face.switched.any():
            tensors["switched"] = face.switched
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        write_atomically(place, save(contiguous, {"format": str(FORMAT), "located": str(track.located)}))

    def read(self, place: Path, times_s: NDArray[np.float64] | None = None) -> StoredTrack:
        """Read a stored track.

        Args:
            place: path of its file.
            times_s: (N,) expected times of its frames, if known.

        Raises:
            PainseqError: the file is damaged, or holds other frames.
        """
        try:
            with safe_open(place, "np") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                located = int((file.metadata() or {})["located"])
            count = len(tensors["times_s"])
            if _FIXED_POINT[0] in tensors:
                tensors["landmarks"] = from_fixed_point(*(tensors[name] for name in _FIXED_POINT))
            face = FaceTrack(
                tensors["times_s"],
                tensors["boxes"],
                tensors["present"],
                tensors["scores"],
                tensors.get("landmarks"),
                tensors.get("switched", np.zeros(count, np.bool_)),
            )
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise PainseqError(f"The track {place} is damaged: {error}. {_RERUN_HINT}") from error
        shapes = {"times_s": (count,), "boxes": (count, 4), "present": (count,), "scores": (count,)}
        if "switched" in tensors:
            shapes["switched"] = (count,)
        if face.landmarks is not None:
            shapes["landmarks"] = (count, *face.landmarks.shape[1:2], 3 if face.landmarks.shape[-1] == 3 else 2)
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                raise PainseqError(
                    f"The track {place} is damaged: {name} is {tensors[name].shape}, not {shape}. {_RERUN_HINT}"
                )
        if times_s is not None and not (count == len(times_s) and np.allclose(times_s, face.times_s, atol=1e-6)):
            raise PainseqError(
                f"The track {place} has {count} frames, which do not match the video's {len(times_s)}. {_RERUN_HINT}"
            )
        if "switched" not in tensors:
            # Written by an earlier version, or none.
            face = replace(face, switched=switched_in(face.boxes, face.present))
        return StoredTrack(face, located)
