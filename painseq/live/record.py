"""Record the numbers of a live run, to look at it again; never its pictures."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.files import remove_partials, write_atomically
from painseq.live.predictor import LivePredictor
from painseq.live.reading import STATES, Reading


class NumbersRecorder:
    """Writes the features, landmarks and boxes of the samples into files of a minute each, numbers-00001.npz, ...

    Each holds `time_s` (N,), `state` (N,) as an index into `painseq.live.reading.STATES`, `box` (N, 4), and, where the
    model has them, `rows` (N, D) as the head takes them before they are normalised by person, and `landmarks` (N, L, 2
    or 3); NaN without a face. Crops, which a head may take, are not recorded: pictures never are.

    Args:
        folder: new or empty.
        every_s: seconds of a file.

    Raises:
        PainseqError: the folder holds other files.
        OSError: it cannot be written, or the disk is full; the files before are complete.
    """

    def __init__(self, folder: Path, every_s: float = 60.0) -> None:
        self._folder = folder
        self._every_s = every_s
        self._count = 0
        self._samples: list[dict[str, NDArray[Any]]] = []
        folder.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
        if any(folder.iterdir()):
            raise PainseqError(f"{folder} is not empty. Record into a new folder.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):  # The disk may be full.
            self._write()

    def add(self, reading: Reading, live: LivePredictor) -> None:
        """Add a reading, with what its predictor saw."""
        face, row = live.face, live.row
        sample: dict[str, NDArray[Any]] = {
            "time_s": np.array(reading.time_s),
            "state": np.array(STATES.index(reading.state), np.int8),
            "box": np.array(reading.box or [np.nan] * 4, np.float32),
        }
        there = reading.box is not None
        if not live.model.takes_crops and len(live.model.in_shape) == 1:
            sample["rows"] = row if there and row is not None else np.full(live.model.in_shape, np.nan, np.float32)
        if there and face is not None and face.landmarks is not None:
            sample["landmarks"] = face.landmarks
        self._samples.append(sample)
        if reading.time_s - float(self._samples[0]["time_s"]) >= self._every_s:
            self._write()

    def _write(self) -> None:
        if not self._samples:
            return
        self._count += 1
        columns: dict[str, NDArray[Any]] = {}
        for name in sorted({name for sample in self._samples for name in sample}):
            known = next(sample[name] for sample in self._samples if name in sample)
            nothing = np.full(known.shape, np.nan, np.float32)
            columns[name] = np.stack([sample.get(name, nothing) for sample in self._samples])
        packed = io.BytesIO()
        np.savez_compressed(packed, **columns)  # type: ignore[arg-type]
        write_atomically(self._folder / f"numbers-{self._count:05d}.npz", packed.getvalue())
        self._samples = []
