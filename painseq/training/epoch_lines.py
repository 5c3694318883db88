"""Progress of a fit where there is no terminal: a line an epoch."""

from __future__ import annotations

import logging
import time

from pytorch_lightning import Callback, LightningModule, Trainer

log = logging.getLogger("painseq")


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
