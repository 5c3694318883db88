"""Trainer callbacks of a fit: checkpoints of a run, the best weights of a fold, a log line per epoch."""

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
    """`ModelCheckpoint` that keeps its best score when the run folder was moved, and ends a run where it had ended."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if the resumed run had stopped early, and was killed before its end was recorded."""
        super().on_train_start(trainer, pl_module)
        if any(stopping.wait_count >= stopping.patience for stopping in trainer.early_stopping_callbacks):
            trainer.should_stop = True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state with its paths changed to the current folder."""

        def relocated(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {key: relocated(state_dict[key]) for key in state_dict if key.endswith("_path")}
        best = {relocated(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


class BestWeights(Callback):
    """Keep the weights of the epoch with the smallest validation loss in memory.

    A checkpoint also holds the extractor, so writing it can take longer than a short epoch.
    """

    def __init__(self) -> None:
        self.loss = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the trained weights and buffers if they are the best so far."""
        loss = float(trainer.callback_metrics.get("val_loss", float("inf")))
        if loss < self.loss:
            self.loss = loss
            self.weights = {
                key: value.clone() for key, value in pl_module.state_dict().items() if self._is_trained(pl_module, key)
            }

    @staticmethod
    def _is_trained(module: LightningModule, key: str) -> bool:
        extractor = module.extractor
        return not key.startswith("extractor.") or (isinstance(extractor, Extractor) and bool(extractor.trainable))


class EpochLines(Callback):
    """Log each epoch's metrics, its duration, and the longest time that the remaining epochs can take."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch, including validation, on one process."""
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self.start
        metrics = ", ".join(
            f"{name} {float(trainer.callback_metrics[name]):.4f}"
            for name in ("train_loss", "val_loss", "val_balanced_accuracy", "val_mse")
            if name in trainer.callback_metrics
        )
        done, max_epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
        left = f" of at most {max_epochs}, {seconds * (max_epochs - done):.0f} s left at most" if max_epochs > 0 else ""
        log.info("epoch %d%s: %s (%.1f s)", done, left, metrics, seconds)
