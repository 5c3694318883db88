"""The stream of a second store's features."""

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

SAME_TIME_S = 1e-6
_MAX_LISTED = 3


class StoreStream(Stream):
    """Features of a second feature store, joined with the frames of the first by clip and time.

    Both stores must have the same clips, with frames at the same times (to 1e-6 s). Rows of frames in which the second
    store has no face are zero; the first store decides which frames are valid.

    Args:
        folder: a store written by `painseq extract`, or a folder of .npz (`painseq.features.NpzFolder`).
        name: name of the stream; must be unique in a list of streams.

    Raises:
        PainseqError: on first use: the folder is not a store, or holds crops or feature maps.

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
        """The second store, opened on first use."""
        if self._opened is None:
            store = open_features(self.folder)
            if store.dtype == "uint8" or len(store.out_shape) != 1:
                raise PainseqError(
                    f"The stream {self.name!r} takes one vector per frame, but {self.folder} holds {store.dtype} of "
                    f"shape {store.out_shape} per frame. Extract into a new folder with an extractor that pools."
                )
            self._opened = store
        return self._opened

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbered columns."""
        return tuple(f"{self.name} {number}" for number in range(self.store.out_shape[0]))

    @property
    def identity(self) -> Spec:
        """The store's fingerprint."""
        return {"fingerprint": self.store.fingerprint}

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Subjects that the second store's extractor was trained on, as "data set/subject"."""
        return tuple(self.store.trained_on)

    @property
    def people_known(self) -> bool:
        """Whether the second store names everybody that its extractor was fitted on."""
        return self.store.people_known

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:
        """Check that the second store has these clips, with frames at the same times.

        Raises:
            PainseqError: clips are missing or have other frame times; lists some.
        """
        unchecked = [clip.clip_id for clip in clips if clip.clip_id not in self._joined]
        problems = {clip_id: why for clip_id in unchecked if (why := self._difference(clip_id, store))}
        if problems:
            listed = "; ".join(f"{clip_id!r} ({why})" for clip_id, why in list(problems.items())[:_MAX_LISTED])
            raise PainseqError(
                f"{self.folder}, of the stream {self.name!r}, does not match {len(problems)} of {len(clips)} clips: "
                f"{listed}{', ...' if len(problems) > _MAX_LISTED else ''}. Extract all clips into both stores, "
                "with the same frames per second (fps)."
            )
        if store is not None:
            self._joined.update(unchecked)

    def _difference(self, clip_id: str, store: FeatureStore | NpzFolder | None) -> str:
        """Describe how the two stores differ in a clip; empty if they do not."""
        if clip_id in self.store.failed:
            return "its extraction failed"
        if clip_id not in self.store:
            return "missing"
        if store is None:
            return ""
        times_s, expected_s = self.store.times_s(clip_id), store.times_s(clip_id)
        if len(times_s) != len(expected_s):
            return f"{len(times_s)} frames, not {len(expected_s)}"
        return "" if _same_times(times_s, expected_s) else "frames at other times"

    def of(self, stored: ClipFeatures, clip: Clip, root: Path) -> Tensor:
        """Return (T, D) float32 features of the frames at the same times, zero where the second store has no face.

        Raises:
            PainseqError: the second store lacks the clip, or a frame at one of these times.
        """
        other = self.store[clip.clip_id]
        rows = torch.searchsorted(other.times_s, stored.times_s - SAME_TIME_S).clamp(max=max(0, len(other) - 1))
        if len(stored) and (not len(other) or not _same_times(other.times_s[rows], stored.times_s)):
            raise PainseqError(
                f"{self.folder}, of the stream {self.name!r}, has frames of clip {clip.clip_id!r} at other times. "
                "Extract into both stores with the same frames per second (fps)."
            )
        return torch.where(other.present[rows, None], other.features[rows].float(), 0.0)

    def mirror(self, rows: Tensor) -> Tensor:
        """Not supported: the store has no features of mirrored crops.

        Raises:
            PainseqError: always.
        """
        raise PainseqError(
            f"The stream {self.name!r} of {self.folder} cannot be mirrored. Set the augmentation's flip to 0."
        )


def _same_times(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= SAME_TIME_S).all())
