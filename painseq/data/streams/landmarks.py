"""Landmarks of the face track."""

from __future__ import annotations

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
        points: landmarks a frame; None before a store is seen.
    """

    name = "landmarks"

    def __init__(self, points: int | None = None) -> None:
        self.points = points

    @property
    def columns(self) -> tuple[str, ...]:
        """x and y of each point."""
        if self.points is None:
            raise _no_landmarks("videos are read here")
        return tuple(f"{axis}{point}" for point in range(self.points) for axis in "xy")

    @property
    def identity(self) -> Spec:
        """Nothing: the locator is recorded, and compared, with the face crop."""
        return {}

    def seen(self, store: FeatureStore | NpzFolder | None) -> LandmarkStream:
        """The landmarks of this store.

        Raises:
            PainseqError: it has none.
        """
        if store is None:
            return self
        if not store.landmarks:
            raise _no_landmarks(f"{store.path} has none")
        return LandmarkStream(store.landmarks)

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """(T, 2 * points) float32, zero in frames without a face.

        Raises:
            PainseqError: a clip with a face has no landmarks.
        """
        face = bool(stored.present.any())
        if stored.landmarks is None or (face and not torch.isfinite(stored.landmarks[stored.present]).any()):
            raise PainseqError(
                f"Clip {clip.clip_id!r} has no landmarks, and the stream of landmarks is asked for. Choose a locator "
                "that finds them (FaceAlignment, or Sidecar; for a store, extract into a new folder), or leave "
                "landmarks out of streams."
            )
        return landmarks.normalise(stored.landmarks, stored.present)

    def mirror(self, rows: Tensor) -> Tensor:
        """Left and right exchanged; see `painseq.faces.landmarks.mirror`."""
        return landmarks.mirror(rows)


def _no_landmarks(where: str) -> PainseqError:
    return PainseqError(
        f"The stream of landmarks comes from a store, but {where}. Run `painseq extract` into a new folder, with a "
        "locator that finds them (FaceAlignment, Sidecar), and give it to --data.options.store."
    )
