"""The stream of face landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.clip_rows import ClipRows
from painseq.data.streams.stream import VideoStream
from painseq.errors import PainseqError
from painseq.faces import landmarks, mesh_points
from painseq.records import Clip
from painseq.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from painseq.features import FeatureStore, NpzFolder

# For each of the 68 iBUG points the one on the other side of the face.
_MIRRORED_68 = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46),  # eyes
    *(39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),  # outer lips
    *range(59, 54, -1),
    *range(64, 59, -1),  # inner lips
    *(67, 66, 65),
)
_MIRRORED = {
    len(_MIRRORED_68): list(_MIRRORED_68),
    mesh_points.BARE_POINTS: mesh_points.MIRRORED[: mesh_points.BARE_POINTS].tolist(),
    mesh_points.POINTS: mesh_points.MIRRORED.tolist(),
}


class LandmarkStream(VideoStream):
    """Landmarks of the face track, normalised frame by frame; see `painseq.faces.landmarks.normalise`.

    Args:
        points: landmarks per frame, the first ones of those of the store: 468 leaves out the irises of the 478 points
            of `FaceMesh`. None takes all, which are known once a store is.
    """

    name = "landmarks"
    needs_landmarks = True

    def __init__(self, points: int | None = None) -> None:
        self.points = points
        self._found = points

    @property
    def columns(self) -> tuple[str, ...]:
        """x and y of each point."""
        if self._found is None:
            raise _no_landmarks("videos are read directly")
        return tuple(f"{axis}{point}" for point in range(self._found) for axis in "xy")

    @property
    def identity(self) -> Spec:
        """The number of points, if only some are taken; the locator is recorded and compared with the face crop."""
        return {} if self.points is None else {"points": self.points}

    @classmethod
    def recorded(cls, identity: Mapping[str, object]) -> LandmarkStream:
        """Return the stream that a model was fitted with."""
        points = identity.get("points")
        return cls(points if isinstance(points, int) else None)

    def seen(self, store: FeatureStore | NpzFolder | None) -> LandmarkStream:
        """Return the stream with this store's number of landmarks.

        Raises:
            PainseqError: the store has no landmarks, or fewer than asked for.
        """
        if store is None:
            return self
        if not store.landmarks:
            raise _no_landmarks(f"{store.path} has none")
        if self.points is not None and self.points > store.landmarks:
            raise _no_landmarks(f"{store.path} has {store.landmarks}, not {self.points}")
        seen = copy(self)
        seen._found = self.points or store.landmarks
        return seen

    def rows(self, frames: ClipRows, clip: Clip, root: Path) -> NDArray[np.float32]:
        """Return (T, 2 * points) float32, zero in frames without a face.

        Raises:
            PainseqError: a clip has a face but no landmarks.
        """
        points, present = frames.landmarks, frames.present
        if points is None or (present.any() and not np.isfinite(points[present]).any()):
            raise PainseqError(
                f"Clip {clip.clip_id!r} has no landmarks, but streams lists landmarks. Choose a locator that finds "
                "landmarks (FaceMesh, FaceAlignment or Sidecar; for a store, extract into a new folder), or leave "
                "landmarks out of streams."
            )
        return landmarks.normalise(points[:, : self.points], present)

    def mirror(self, rows: Tensor) -> Tensor:
        """Mirror the landmarks; see `mirror`."""
        return mirror(rows)


def _no_landmarks(reason: str) -> PainseqError:
    return PainseqError(
        f"The stream landmarks needs a store with landmarks, but {reason}. Run `painseq extract` into a new folder, "
        "with a locator that finds landmarks (FaceMesh, FaceAlignment, Sidecar), and set --data.options.store to it."
    )


def mirror(stream: Tensor) -> Tensor:
    """Mirror a stream of landmarks: negate x, and exchange left and right points.

    Args:
        stream: (T, 2 L), of the 68 iBUG points, or of the 468 or 478 points of the face mesh.

    Raises:
        PainseqError: another number of points, for which left and right are unknown.
    """
    import torch

    points = stream.reshape(*stream.shape[:-1], -1, 2)
    if points.shape[-2] not in _MIRRORED:
        raise PainseqError(
            f"A stream of {points.shape[-2]} landmarks cannot be mirrored: left and right are only known for the 68 "
            "iBUG points and the 468 or 478 points of the face mesh. Set the augmentation's flip to 0."
        )
    other_side = points[..., _MIRRORED[points.shape[-2]], :]
    return torch.stack([-other_side[..., 0], other_side[..., 1]], dim=-1).flatten(start_dim=-2)
