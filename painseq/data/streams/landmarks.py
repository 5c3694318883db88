"""The stream of face landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from painseq.data.streams.stream import Stream
from painseq.errors import PainseqError
from painseq.faces import landmarks
from painseq.features import ClipFeatures, FeatureStore, NpzFolder
from painseq.records import Clip
from painseq.spec import Spec


class LandmarkStream(Stream):
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

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """Return (T, 2 * points) float32, zero in frames without a face.

        Raises:
            PainseqError: a clip has a face but no landmarks.
        """
        face = bool(stored.present.any())
        if stored.landmarks is None or (face and not torch.isfinite(stored.landmarks[stored.present]).any()):
            raise PainseqError(
                f"Clip {clip.clip_id!r} has no landmarks, but streams lists landmarks. Choose a locator that finds "
                "landmarks (FaceMesh, FaceAlignment or Sidecar; for a store, extract into a new folder), or leave "
                "landmarks out of streams."
            )
        return landmarks.normalise(stored.landmarks[:, : self.points], stored.present)

    def mirror(self, rows: Tensor) -> Tensor:
        """Mirror the landmarks; see `painseq.faces.landmarks.mirror`."""
        return landmarks.mirror(rows)


def _no_landmarks(reason: str) -> PainseqError:
    return PainseqError(
        f"The stream landmarks needs a store with landmarks, but {reason}. Run `painseq extract` into a new folder, "
        "with a locator that finds landmarks (FaceMesh, FaceAlignment, Sidecar), and set --data.options.store to it."
    )
