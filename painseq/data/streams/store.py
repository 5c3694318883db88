"""Features of a second store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from painseq.data.streams.stream import Stream
from painseq.errors import PainseqError
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, open_features
from painseq.records import Clip
from painseq.spec import Spec

SAME_MOMENT_S = 1e-6
_NAMED = 3


class StoreStream(Stream):
    """Features of a second feature store, joined with the frames of the first by clip and time.

    Both stores must have the same clips, with frames at the same moments (to 1e-6 s). Rows of frames in which the
    second store has no face are zero; which frames count is decided by the first.

    Args:
        folder: what `painseq extract` wrote, or a folder of .npz (`painseq.features.NpzFolder`).
        name: what the stream is called; each store of a list needs its own.

    Raises:
        PainseqError: when it is first read: no store there, or one of crops or of feature maps.

    Example:
        >>> DataOptions(store=Path("stores/vgg"), streams=("cnn", StoreStream(Path("stores/clip"))))
    """

    can_mirror: ClassVar[bool] = False

    def __init__(self, folder: Path, name: str = "store") -> None:
        self.folder = Path(folder)
        self.name = name
        self._opened: FeatureStore | NpzFolder | None = None
        self._joined: set[str] = set()

    @property
    def store(self) -> FeatureStore | NpzFolder:
        """The second store, opened when first asked for."""
        if self._opened is None:
            store = open_features(self.folder)
            if store.dtype == "uint8" or len(store.out_shape) != 1:
                raise PainseqError(
                    f"The stream {self.name!r} takes one vector a frame, but {self.folder} holds {store.dtype} of "
                    f"shape {store.out_shape} a frame. Extract into a new folder with an extractor that pools."
                )
            self._opened = store
        return self._opened

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbered."""
        return tuple(f"{self.name} {number}" for number in range(self.store.out_shape[0]))

    @property
    def identity(self) -> Spec:
        """The store's fingerprint."""
        return {"fingerprint": self.store.fingerprint}

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Whom the second store's extractor was fitted on."""
        return tuple(self.store.trained_on)

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:
        """Raise a PainseqError that names clips which the second store lacks, or has at other moments."""
        asked = [clip.clip_id for clip in clips if clip.clip_id not in self._joined]
        wrong = {clip_id: why for clip_id in asked if (why := self._difference(clip_id, store))}
        if wrong:
            named = "; ".join(f"{clip_id!r} ({why})" for clip_id, why in list(wrong.items())[:_NAMED])
            raise PainseqError(
                f"{self.folder}, of the stream {self.name!r}, does not match {len(wrong)} of {len(clips)} clips: "
                f"{named}{', ...' if len(wrong) > _NAMED else ''}. Extract all clips into both stores, "
                "with the same frames a second."
            )
        if store is not None:
            self._joined.update(asked)

    def _difference(self, clip_id: str, store: FeatureStore | NpzFolder | None) -> str:
        """How the two stores disagree about a clip; empty where they do not."""
        if clip_id in self.store.failed:
            return "its extraction failed"
        if clip_id not in self.store:
            return "missing"
        if store is None:
            return ""
        here, there = self.store.times_s(clip_id), store.times_s(clip_id)
        if len(here) != len(there):
            return f"{len(here)} frames, not {len(there)}"
        return "" if _same(here, there) else "frames at other times"

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """(T, D) float32 features of the frames at the same moments, zero where the second store has no face.

        Raises:
            PainseqError: it lacks the clip, or a frame at one of these moments.
        """
        other = self.store[clip.clip_id]
        rows = torch.searchsorted(other.times_s, stored.times_s - SAME_MOMENT_S).clamp(max=max(0, len(other) - 1))
        if len(stored) and (not len(other) or not _same(other.times_s[rows], stored.times_s)):
            raise PainseqError(
                f"{self.folder}, of the stream {self.name!r}, has frames of clip {clip.clip_id!r} at other times. "
                "Extract into both stores with the same frames a second."
            )
        return torch.where(other.present[rows, None], other.features[rows].float(), 0.0)

    def mirror(self, rows: Tensor) -> Tensor:
        """Refused: the store does not tell what its extractor makes of other crops."""
        raise PainseqError(
            f"The stream {self.name!r} of {self.folder} cannot be mirrored. Set the augmentation's flip to 0."
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= SAME_MOMENT_S).all())
