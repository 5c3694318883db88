"""`PainClassifier`: extractor, head, loss, optimizer and metrics; the one LightningModule."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassRecall

from painseq import __version__
from painseq.batch import UNKNOWN, Batch
from painseq.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.extractors import Extractor
from painseq.extractors.frames import frame_features
from painseq.features import FeatureStore
from painseq.heads import Head
from painseq.heads.decision import NO_PREDICTION, decide
from painseq.labels import check_same_classes
from painseq.spec import Spec, spec_of
from painseq.splits import check_no_leak, qualified

log = logging.getLogger("painseq")

HeadFactory = Callable[[tuple[int, ...], int], Head]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
FORMAT = 1


class PainClassifier(pl.LightningModule):
    """A head on a (mostly frozen) extractor, trained on clips.

    Frame heads learn every real frame with its clip's label; video heads learn one label a clip. Clips without a
    real frame, and clips whose label is hidden, take no part in the loss.

    Args:
        head: builds the head from `in_shape` and `num_classes`, which the data decide; required to fit.
        extractor: for pixels, what turns crops into features. With a feature store it can be left out: it is
            the store's; if it is given, it must be the one that made the store.
        optimizer: from parameters to an optimizer.
        class_weights: of the cross entropy: "none", or "inverse_frequency" of the classes among the TRAINING
            items. The weighted loss is divided by the sum of the weights in the batch.
    """

    def __init__(
        self,
        head: HeadFactory | None = None,
        extractor: Extractor | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        class_weights: Literal["none", "inverse_frequency"] = "none",
    ) -> None:
        super().__init__()
        self.head_factory = head
        self.extractor = extractor
        self.optimizer_factory = optimizer
        self.class_weights = class_weights
        self.head: Head | None = None
        self.class_names: tuple[str, ...] = ()
        self.record: Spec = {}
        self.loss_weights: Tensor | None = None

    def setup(self, stage: str) -> None:
        """`bind` to the trainer's data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PainDataModule):
            raise PainseqError("PainClassifier is fitted on a PainDataModule (--data BioVid, AI4Pain, ...).")
        self.bind(data)

    def bind(self, data: PainDataModule) -> None:
        """Build the head for these data; with a head, check that they have its classes.

        Raises:
            LeakError: the extractor was fitted on a subject to be scored.
            PainseqError: no head or no extractor, another extractor than the store's, other classes.
        """
        if self.head is not None:
            check_same_classes(self.class_names, data.scheme.class_names)
            return
        if self.head_factory is None:
            raise PainseqError("No head to fit. Add one, e.g. --config configs/head/lstm.yaml.")
        self.extractor = self._extractor_for(data)
        in_shape = data.in_shape if self.extractor is None else tuple(self.extractor.out_shape)
        self.class_names = data.scheme.class_names
        self.head = self.head_factory(in_shape, len(self.class_names))
        known = {*data.extractor_trained_on, *(() if self.extractor is None else self.extractor.trained_on)}
        check_no_leak(known, qualified(data.name, data.split.test), "The extractor")
        stopped_on_seen = sorted(known & qualified(data.name, data.split.validation))
        if stopped_on_seen:
            log.warning(
                "The extractor was fitted on %d of the %d subjects of early stopping, so the validation loss flatters.",
                len(stopped_on_seen),
                len(data.split.validation),
            )
        if self.class_weights == "inverse_frequency":
            counts = torch.tensor(list(data.train_item_counts().values()), dtype=torch.float32)
            self.loss_weights = counts.sum() / (len(counts) * counts)
        recall = MulticlassRecall(len(self.class_names), average="macro")
        self.val_balanced_accuracy = recall
        self.record = {
            "format": FORMAT,
            "painseq": __version__,
            "class_names": list(self.class_names),
            "head": spec_of(self.head),
            "in_shape": list(in_shape),
            "extractor": None if self.extractor is None else self._extractor_record(self.extractor),
            "face": data.pipeline["face"],
            "sampling": data.pipeline["sampling"],
            "data": {
                "name": data.name,
                "labels": data.options.labels,
                "fingerprint": data.manifest.fingerprint(),
                "split": data.split.to_dict(),
                "train_counts": data.train_counts(),
            },
            "fitted_on": sorted(data.subjects_seen()),
            "extractor_trained_on": sorted(known),
            "validation_seen_by_extractor": stopped_on_seen,
        }

    def check_resumes(self, recorded: Spec) -> None:
        """Refuse to go on with a run that was fitted otherwise: its weights have seen other people, or other features.

        Args:
            recorded: the specification in the checkpoint to go on from.

        Raises:
            PainseqError: head, classes, data, split, crops, sampling or extractor differ; names which.
        """
        keys = ["class_names", "head", "in_shape", "face", "sampling", "data", "fitted_on"]
        if self.extractor is None or not self.extractor.trainable:
            keys.append("extractor")
        differing = [key for key in keys if recorded.get(key) != self.record[key]]
        if differing:
            raise PainseqError(
                f"The run to be resumed was fitted with another {', '.join(differing)}. Resume it with its own "
                "configuration (config.yaml in the run folder), or start a new run."
            )

    def _extractor_for(self, data: PainDataModule) -> Extractor | None:
        store = data.store
        if data.options.view == "pixels":
            if self.extractor is None:
                raise PainseqError("Pixels need an extractor: add one, e.g. --config configs/extractor/vgg16.yaml.")
            return self.extractor
        if not isinstance(store, FeatureStore):
            if store is not None and self.extractor is not None:
                raise PainseqError(
                    f"A folder of .npz does not tell which extractor made it ({data.options.store}), so none can be "
                    "recorded with the model. Leave the extractor out, or give the store that `painseq extract` wrote."
                )
            return None
        if self.extractor is None:
            extractor = store.extractor()
            extractor.trainable = ()
            extractor.freeze()
            return extractor
        if self.extractor.trainable:
            raise PainseqError(
                "Features of a store are fixed, so an extractor cannot be trained on them. Leave `trainable` out, or "
                "train on crops: --data.options.view pixels."
            )
        store.check_same({**store.spec, "extractor": self._extractor_record(self.extractor)})
        return self.extractor

    @staticmethod
    def _extractor_record(extractor: Extractor) -> Spec:
        return {**extractor.spec(), "fingerprint": extractor.fingerprint()}

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits of a batch, from crops or from features.

        Args:
            x: (B, T, 3, H, W) crops, uint8 or float 0..255, or (B, T, *F) features.
            mask: (B, T) bool.

        Returns:
            (B, T, K) for a frame head, (B, K) for a video head.
        """
        assert self.head is not None, "the head is built in setup() or by painseq.load()"
        logits: Tensor = self.head(frame_features(self.extractor, x, mask), mask)
        return logits

    def loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """Weighted cross entropy of a batch, and the number of rows that it is a mean over (0: no row)."""
        assert self.head is not None
        if self.head.level == "frame":
            real = batch.mask & (batch.target != UNKNOWN)[:, None]
            rows, target = logits[real], batch.target[:, None].expand_as(batch.mask)[real]
        else:
            real = batch.mask.any(dim=1) & (batch.target != UNKNOWN)
            rows, target = logits[real], batch.target[real]
        weights = None if self.loss_weights is None else self.loss_weights.to(rows.device)
        if len(rows) == 0:
            return logits.sum() * 0.0, 0
        return nn.functional.cross_entropy(rows.float(), target, weights), len(rows)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """One batch; none without a row to learn from."""
        loss, rows = self.loss(self(batch.x, batch.mask), batch)
        if rows == 0:
            return None
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=rows, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and balanced accuracy of the clips of early stopping."""
        assert self.head is not None
        logits = self(batch.x, batch.mask)
        loss, rows = self.loss(logits, batch)
        if rows == 0:
            return
        self.log("val_loss", loss, batch_size=rows, prog_bar=True)
        label = decide(self.head.level, logits, batch.mask).label
        scored = (label != NO_PREDICTION) & (batch.target != UNKNOWN)
        self.val_balanced_accuracy.update(label[scored], batch.target[scored])
        self.log("val_balanced_accuracy", self.val_balanced_accuracy, prog_bar=True, batch_size=rows)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over whatever is not frozen."""
        return self.optimizer_factory([parameter for parameter in self.parameters() if parameter.requires_grad])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what one needs to predict; leave out weights that anybody can fetch and check."""
        checkpoint["painseq"] = dict(self.record)
        if self.extractor is not None and self.extractor.trainable:
            checkpoint["painseq"]["extractor"] = self._extractor_record(self.extractor)
        for key in [key for key in checkpoint["state_dict"] if key.startswith("extractor.")]:
            del checkpoint["state_dict"][key]
        if self.extractor is not None and not self.extractor.is_published():
            checkpoint["extractor"] = dict(self.extractor.network.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the extractor's weights back, so that resuming loads strictly."""
        if self.extractor is not None:
            if "extractor" in checkpoint:
                self.extractor.network.load_state_dict(checkpoint["extractor"])
            for key, value in self.extractor.state_dict().items():
                checkpoint["state_dict"][f"extractor.{key}"] = value
