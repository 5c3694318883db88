"""The common interface of all video readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from painseq.video.container import unreadable

Backend = Literal["decord", "pyav", "images"]


class Video(ABC):
    """An open video; use it as a context manager.

    Attributes:
        path: the file, or the folder of images.
        backend: the decoder: "decord", "pyav" or "images".
        backend_note: why "auto" did not choose decord although it is installed; otherwise empty.
        times_s: (N,) float64, time of each frame shown, in seconds since the first one.
        duration_s: seconds from the start of the first frame to the end of the last.
        size: (width, height) in pixels, upright.
    """

    backend: Backend

    def __init__(self, path: Path, times_s: NDArray[np.float64], duration_s: float, backend_note: str = "") -> None:
        self.path = path
        self.backend_note = backend_note
        self.times_s = times_s
        self.duration_s = duration_s
        self.size: tuple[int, int] = (0, 0)
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Free the decoder."""

    @abstractmethod
    def _decode(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Yield the (H, W, 3) upright RGB frames at strictly increasing indices."""

    def frames(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode frames.

        Args:
            indices: (n,) into `times_s`, non-decreasing; fastest if each call continues where the last one ended.

        Returns:
            (n, H, W, 3) RGB uint8.

        Raises:
            PainseqError: a frame that the container lists cannot be decoded.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (np.any(np.diff(wanted) < 0) or wanted[0] < 0 or wanted[-1] >= len(self)):
            raise ValueError(f"indices must be non-decreasing and lie in 0..{len(self) - 1}.")
        width, height = self.size
        images = np.empty((len(wanted), height, width, 3), np.uint8)
        if not len(wanted):
            return images
        unique, place = np.unique(wanted, return_index=True)
        repeats = np.diff([*place, len(wanted)])
        todo = unique
        if self._last is not None and self._last[0] == unique[0]:
            images[: repeats[0]] = self._last[1]
            todo, place, repeats = unique[1:], place[1:], repeats[1:]
        done = 0
        for image, start, n in zip(self._decode(todo), place, repeats, strict=False):
            if image.shape != images.shape[1:]:
                raise unreadable(self.path, self.backend, f"the frame size changes to {image.shape[1::-1]}")
            images[start : start + n] = image
            done += 1
        if done < len(todo):
            time_s = self.times_s[todo[done]]
            raise unreadable(self.path, self.backend, f"frame {todo[done]} ({time_s:.3f} s) is missing")
        self._last = (int(unique[-1]), images[-1].copy())
        return images
