"""What Lightning's trainer calls during a fit: checkpoints of a run, the best weights of a fold, a line an epoch."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from painseq.extractors import Extractor

log = logging.getLogger("painseq")


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run folder, which may have been moved since: Lightning's would forget its best score then."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state up where the folder is now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {key: here(state_dict[key]) for key in state_dict if key.endswith("_path")}
        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


class BestWeights(Callback):
    """Keeps the weights of the epoch with the smallest validation loss, in memory.

    A checkpoint holds the extractor too, and takes longer to write than a short epoch.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights that are trained, and the statistics beside them, if they are the best so far."""
        loss = float(trainer.callback_metrics.get("val_loss", float("inf")))
        if loss < self.loss:
            self.loss = loss
            self.weights = {
                key: value.clone() for key, value in pl_module.state_dict().items() if self._moves(pl_module, key)
            }

    @staticmethod
    def _moves(module: LightningModule, key: str) -> bool:
        extractor = module.extractor
        return not key.startswith("extractor.") or (isinstance(extractor, Extractor) and bool(extractor.trainable))


class EpochLines(Callback):
    """Logs each epoch's figures, its duration, and how long the remaining epochs would take at most."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch, once for all processes; validation is in it."""
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self.start
        figures = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.4f}"
            for name in ("train_loss", "val_loss", "val_balanced_accuracy", "val_mse")
            if name in trainer.callback_metrics
        )
        done, most = trainer.current_epoch + 1, trainer.max_epochs or -1
        left = f" of at most {most}, {seconds * (most - done):.0f} s left at most" if most > 0 else ""
        log.info("epoch %d%s: %s (%.1f s)", done, left, figures, seconds)
