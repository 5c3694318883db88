"""How the files of a fit are written: complete, or not at all, and never outside the run folder."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined]

from painseq.files import replacing, write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way to checkpoints, but each is written beside its place and renamed.

    Lightning writes to a temporary folder and copies. A kill or a full disk then damages the last checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint file, atomically.

        Raises:
            OSError: the disk is full; the former checkpoint is unchanged.
        """
        if storage_options is not None:
            raise TypeError("storage_options apply to remote checkpoints only; leave them out.")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(path, buffer.getbuffer())


class RunLog(CSVLogger):
    """metrics.csv of a run, like Lightning's, but each time written as a whole, atomically.

    Lightning appends, and rewrites the file in place when a column is added.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(out, name="", version="")
        self._rows: list[dict[str, float]] = []

    @rank_zero_only
    def save(self) -> None:
        """Write all rows so far."""
        new, self.experiment.metrics = self.experiment.metrics, []
        if new:
            self._rows += new
            columns = sorted({name for row in self._rows for name in row})
            path = Path(self.log_dir) / "metrics.csv"
            # Several times an epoch, which may last a few milliseconds.
            with replacing(path, durable=False) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self._rows)
