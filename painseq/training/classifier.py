"""`PainClassifier`, the LightningModule: extractor, head, loss, optimizer and metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import Metric

from painseq.batch import Batch
from painseq.data.datamodule import PainDataModule
from painseq.data.labels import Scale, check_same_targets
from painseq.data.splits import qualified
from painseq.errors import PainseqError, first_few
from painseq.extractors import Extractor
from painseq.extractors.frames import batch_features
from painseq.heads import Head
from painseq.heads.standardised import Standardised
from painseq.model.checkpoint import contents, restore_extractor
from painseq.model.objective import Objective, kind_of, objective_of
from painseq.model.record import DataRecord, Loss, ModelRecord, SplitRecord, StreamRecord
from painseq.moments import Moments
from painseq.records import UNKNOWN, Seen, shared_people
from painseq.spec import Spec, is_default, plain, spec_of, spec_of_factory, with_public_paths
from painseq.training.binding import (
    check_length,
    check_seen,
    check_streams,
    extractor_for,
    seen_by_extractor,
    shape_for_head,
    standardised,
    start_from,
)

HeadFactory = Callable[[tuple[int, ...], int], Head]
OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

RESUMED = (
    "class_names", "scale", "head", "loss", "in_shape", "face", "sampling", "streams", "baseline_clips", "normalise",
    "data", "fitted_on", "extractor_trained_on",
)  # fmt: skip
"""Entries of a model's record that must be unchanged when a run is resumed."""


class MeanLoss(Metric):
    """Mean of a loss over all rows of an epoch and of all processes, independent of the division into batches."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, total: Tensor, weight: Tensor) -> None:
        """Add the weighted sum of a batch, and its weight."""
        self.total += total.detach()
        self.weight += weight.detach()

    def compute(self) -> Tensor:
        """Return the weighted mean."""
        return self.total / self.weight


class PainClassifier(pl.LightningModule):
    """A head on a (mostly frozen) extractor, trained on clips.

    Frame heads learn every frame with a face with its clip's label; video heads learn one label per clip. Clips without
    a face, and clips whose label is hidden, are excluded from the loss. A step on several processes equals one on a
    single process: the batch is divided among them, and the loss is divided by the weight of the whole batch.

    The random numbers of each epoch depend on the seed and the epoch's number alone, so a resumed run ends with the
    same weights as an uninterrupted one.

    Args:
        head: builds the head from `in_shape` and its number of outputs, which depend on the data; required to fit.
        extractor: turns crops into features. With a feature store it can be left out; if it is given, it must be the
            extractor that made the store.
        optimizer: builds an optimizer from parameters.
        scheduler: builds a learning rate schedule from the optimizer; it takes a step after each epoch.
        extractor_lr: learning rate of the extractor's trainable blocks; None uses the optimizer's.
        loss: "cross_entropy", "corn" for ordered levels, or "mse" for labels that are numbers on a scale; see
            `painseq.model.objective`.
        class_weights: class weights of the loss: "none", or "inverse_frequency" of the classes among the TRAINING
            items. The weighted loss is divided by the sum of the weights in the batch.
        label_smoothing: share of a target that is spread over the classes in proportion to the training items
            (uniformly with class weights or balanced sampling); in the training loss only.
        start_from: weights that the head is initialised from; see `painseq.model.start`. Later weights overwrite
            earlier ones.
        normalise: "train" standardises each column by mean and standard deviation over the training subjects' frames,
            which become part of the model; for vectors of fixed features. See also `DataOptions`' normalise, by person,
            which comes first.
    """

    loss_weights: Tensor
    smooth: Tensor
    objective: Objective
    record: ModelRecord

    def __init__(
        self,
        head: HeadFactory | None = None,
        extractor: Extractor | None = None,
        optimizer: OptimizerFactory = torch.optim.Adam,
        scheduler: SchedulerFactory | None = None,
        extractor_lr: float | None = None,
        loss: Loss = "cross_entropy",
        class_weights: Literal["none", "inverse_frequency"] = "none",
        label_smoothing: float = 0.0,
        start_from: list[str] | str | None = None,
        normalise: Literal["none", "train"] = "none",
    ) -> None:
        super().__init__()
        trains_extractor = extractor is not None and bool(extractor.trainable)
        if extractor_lr is not None and not trains_extractor:
            raise PainseqError(
                "extractor_lr is given, but no block of the extractor is trained. List blocks in the extractor's "
                "`trainable`, or leave extractor_lr out."
            )
        if not 0 <= label_smoothing < 1:
            raise PainseqError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1.")
        if label_smoothing and not kind_of(loss).smooths:
            raise PainseqError(
                f"label_smoothing spreads a target over classes, which the loss {loss} does not support. Leave it out."
            )
        if class_weights != "none" and kind_of(loss).predicts_values:
            raise PainseqError(
                f"class_weights apply to classes, but the loss {loss} has none. Leave them out; --data.options.balance "
                "true samples rare values as often as frequent ones."
            )
        if normalise not in ("none", "train"):
            raise PainseqError(
                f"normalise is {normalise!r}; of the model it is none or train. By each person's own frames it is an "
                'option of the data: DataOptions(normalise="subject") (command line: --data.options.normalise subject).'
            )
        self.head_factory = head
        self.extractor = extractor
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.extractor_lr = extractor_lr
        self.loss_name: Loss = loss
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.start_from = [start_from] if isinstance(start_from, str) else list(start_from or [])
        self.normalise = normalise
        self.head: Head | None = None
        self.class_names: tuple[str, ...] = ()
        self.scale: Scale | None = None
        self.seed = torch.initial_seed()
        self.train_loss, self.val_loss = MeanLoss(), MeanLoss()

    def renewed(self, head: HeadFactory | None = None) -> PainClassifier:
        """Return a new classifier with the same arguments, before this one is bound or fitted.

        Args:
            head: factory of another head.
        """
        assert self.head is None
        trains_extractor = self.extractor is not None and bool(self.extractor.trainable)
        return PainClassifier(
            head or self.head_factory,
            copy.deepcopy(self.extractor) if trains_extractor else self.extractor,
            self.optimizer_factory,
            self.scheduler_factory,
            self.extractor_lr,
            self.loss_name,
            self.class_weights,
            self.label_smoothing,
            self.start_from,
            self.normalise,
        )

    def setup(self, stage: str) -> None:
        """Bind the model to the trainer's data."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PainDataModule):
            raise PainseqError(
                f"PainClassifier is fitted on a PainDataModule, not on a {type(data).__name__}. Choose one, e.g. "
                "--data BioVid."
            )
        self.bind(data)

    def bind(self, data: PainDataModule) -> None:
        """Build the head for these data; if it is built already, check that the classes match.

        Raises:
            LeakError: the extractor, or a model that the head starts from, was fitted on a test subject.
            PainseqError: no head or no extractor, not the store's extractor, other classes, clips longer than the head
                takes, initial weights that do not fit, or normalise "train" of crops or with a trained extractor.
        """
        if self.head is not None:
            check_same_targets(self.class_names, self.scale, data.scheme)
            return
        if self.head_factory is None:
            raise PainseqError("No head to fit. Add one, e.g. --config configs/head/lstm.yaml.")
        self.extractor = extractor_for(data, self.extractor)
        in_shape = shape_for_head(data, self.extractor)
        self.class_names, self.scale = data.scheme.class_names, data.scheme.scale
        self.objective = objective_of(self.loss_name, self.class_names, self.scale)
        head = self.head_factory(in_shape, self.objective.num_outputs)
        check_streams(data, head)
        check_length(data, head)
        recorded = spec_of(head)
        if self.normalise == "train":
            head = standardised(head, self.extractor)
        extractor_seen = seen_by_extractor(data, self.extractor)
        check_seen(data, extractor_seen, "The extractor")
        start_seen = start_from(head, self.start_from)
        check_seen(data, start_seen, "A model that the head starts from")
        self._weigh_classes(data)
        self.val_score = self.objective.metric()
        self.record = self._make_record(data, recorded, in_shape, extractor_seen, start_seen)
        # Set last: a classifier with a head counts as bound.
        self.head = head

    def _make_record(
        self, data: PainDataModule, head: Spec, in_shape: tuple[int, ...], extractor_seen: Seen, start_seen: Seen
    ) -> ModelRecord:
        """Make the record for the checkpoints of this fit.

        Args:
            head: the head's specification.
            in_shape: shape of one frame, as the head takes it.
            extractor_seen: subjects that the extractor was trained on.
            start_seen: subjects that the models which the head started from were fitted on.
        """
        face, sampling = data.pipeline["face"], data.pipeline["sampling"]
        fps = sampling.get("fps") if isinstance(sampling, Mapping) else None
        validation = qualified(data.name, data.split.validation)
        return ModelRecord(
            class_names=self.class_names,
            scale=self.scale,
            head=head,
            loss=self.loss_name,
            in_shape=in_shape,
            extractor=None if self.extractor is None else self.extractor.record(),
            face=with_public_paths(face) if isinstance(face, Mapping) else None,
            fps=float(fps) if isinstance(fps, int | float) else None,
            streams=tuple(StreamRecord(stream.name, stream.identity) for stream in data.streams),
            baseline_clips=data.options.set_aside,
            normalise=tuple(step for step in (data.options.normalise, self.normalise) if step != "none"),
            train_prior=tuple(self.train_prior.tolist()),
            data=DataRecord(
                name=data.name,
                labels=plain(data.options.labels),
                fingerprint=data.manifest.fingerprint(),
                split=SplitRecord(data.split.protocol, data.split.train, data.split.validation, data.split.test),
                train_counts=data.train_counts(),
                shuffled_labels=data.shuffled_labels,
            ),
            started_from=tuple(self.start_from),
            fitted_on=tuple(sorted(data.subjects_seen() | start_seen.people)),
            extractor_trained_on=tuple(sorted(extractor_seen.people)),
            validation_seen_by_extractor=tuple(shared_people(validation, extractor_seen.people)),
            validation_seen_by_start=tuple(shared_people(validation, start_seen.people)),
            generated=None if self.start_from else data.generated,
            unknown_people=(extractor_seen | start_seen).unknown,
            fitted_videos=tuple(sorted(data.videos_seen() | start_seen.videos)),
        )

    def _weigh_classes(self, data: PainDataModule) -> None:
        """Set the class weights of the loss, and the class distribution that the loss sees."""
        if self.objective.predicts_values:
            self.train_prior = torch.zeros(0)
            self.register_buffer("loss_weights", torch.ones(1), persistent=False)
            self.register_buffer("smooth", torch.zeros(1), persistent=False)
            return
        # A class without any usable clip counts as one clip: its weight would be infinite.
        counts = torch.tensor(list(data.train_item_counts().values()), dtype=torch.float32).clamp(min=1)
        weighted = self.class_weights == "inverse_frequency"
        if weighted and data.options.balance:
            raise PainseqError(
                "Balanced sampling already equalises the classes, and class_weights would do it twice. Leave balance "
                "out, or set --model.class_weights none."
            )
        equalised = weighted or data.options.balance
        self.train_prior = torch.ones_like(counts) / len(counts) if equalised else counts / counts.sum()
        weights = counts.sum() / (len(counts) * counts) if weighted else torch.ones_like(counts)
        # Buffers, to move to the device with the model; prediction needs only train_prior, which the record holds.
        self.register_buffer("loss_weights", weights, persistent=False)
        self.register_buffer("smooth", self.label_smoothing * self.train_prior, persistent=False)

    def gradient_settings(self) -> list[str]:
        """Return the names of given arguments that apply only to a head fitted by gradients."""
        given = {
            "optimizer": not is_default(self.optimizer_factory, torch.optim.Adam),
            "scheduler": self.scheduler_factory is not None,
            "extractor_lr": self.extractor_lr is not None,
            "label_smoothing": self.label_smoothing > 0,
            "start_from": bool(self.start_from),
            "extractor.trainable": self.extractor is not None and bool(self.extractor.trainable),
        }
        return [name for name, is_given in given.items() if is_given]

    def config(self) -> Spec:
        """Return the arguments in plain values, as far as these can describe them; the head's only once bound."""
        return {
            "head": self.record.head if self.head is not None else None,
            "extractor": None if self.extractor is None else self.extractor.spec(),
            "optimizer": spec_of_factory(self.optimizer_factory),
            "scheduler": None if self.scheduler_factory is None else spec_of_factory(self.scheduler_factory),
            "extractor_lr": self.extractor_lr,
            "loss": self.loss_name,
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
            "start_from": list(self.start_from),
            "normalise": self.normalise,
        }

    @property
    def fitted_on(self) -> tuple[str, ...]:
        """Subjects that the head, and models that it started from, were fitted on, as "data set/subject"."""
        return self.record.fitted_on

    def check_resumes(self, recorded: ModelRecord) -> None:
        """Check that a run to be resumed was fitted with the same settings, subjects and features.

        Args:
            recorded: the model's record in the checkpoint to resume from.

        Raises:
            PainseqError: head, classes, data, split, crops, sampling or extractor differ; names which.
        """
        keys = [*RESUMED]
        if self.extractor is None or not self.extractor.trainable:
            keys.append("extractor")
        differing = [key for key in keys if getattr(recorded, key) != getattr(self.record, key)]
        if differing:
            raise PainseqError(
                f"The run to be resumed was fitted with a different {', '.join(differing)}. Resume it with its "
                "original configuration (config.yaml in the run folder), or start a new run."
            )

    def forward(self, batch: Batch) -> Tensor:
        """Return the head's outputs for a batch of crops or of features.

        Returns:
            (B, T, K) for a frame head, (B, K) for a video head; K - 1 with the loss "corn", 1 with "mse".
        """
        assert self.head is not None, "the head is built in setup() or by painseq.load()"
        outputs: Tensor = self.head(batch_features(self.extractor, batch), batch.mask)
        return outputs

    def loss(self, outputs: Tensor, batch: Batch, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of the losses of a batch's rows, and their weight (0: no row counts).

        Args:
            smooth: see `Objective.loss_sums`.
        """
        assert self.head is not None
        target, valid = batch.target, batch.mask.any(dim=1)
        if self.head.level == "frame":
            target, valid = target[:, None].expand_as(batch.mask), batch.mask
        valid = (valid & (target != UNKNOWN)).flatten()
        target = target.flatten().clamp(min=0)
        rows = torch.where(valid[:, None], outputs.flatten(end_dim=-2).float(), 0.0)
        weight = self.objective.row_weights(target, self.loss_weights) * valid
        return self.objective.loss_sums(rows, target, weight, smooth)

    @torch.no_grad()
    def measure(self, data: PainDataModule) -> None:
        """Measure mean and standard deviation of the training subjects' frames, once, for a head that needs them."""
        if not isinstance(self.head, Standardised) or self.head.measured:
            return
        was_training = self.training
        self.eval()
        batches = (batch.to(self.device) for batch in data.loader("train"))
        rows = (batch_features(self.extractor, batch)[batch.mask].cpu().numpy() for batch in batches)
        moments = reduce(add, map(Moments.of, rows))
        if not np.isfinite(moments.mean).all():
            columns = np.flatnonzero(~np.isfinite(moments.mean)).tolist()
            raise PainseqError(
                f"Columns {first_few([str(column) for column in columns])} of the training features are not finite. "
                "Find the clips with `painseq data check`."
            )
        self.head.measure(moments)
        self.train(was_training)

    def on_fit_start(self) -> None:
        """Measure what the features are standardised by, on the device of the fit."""
        self.measure(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_epoch_start(self) -> None:
        """Seed the random numbers of this epoch."""
        state = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        outputs = self(batch)
        total, weight = self.loss(outputs, batch, self.smooth if self.label_smoothing else None)
        self.train_loss.update(total, weight)
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, batch_size=len(batch))
        processes = self.trainer.world_size
        if processes > 1:
            # Gradients are averaged over processes; dividing by the mean weight gives the gradient of the whole batch.
            weight = weight.detach().clone()
            torch.distributed.all_reduce(weight)
            weight /= processes
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the loss, and balanced accuracy or squared error, of a batch of validation clips."""
        assert self.head is not None
        outputs = self(batch)
        total, weight = self.loss(outputs, batch)
        self.val_loss.update(total, weight)
        answer = self.objective.answer(self.head.level, self.objective.predictions(outputs), batch.mask)
        scored = batch.mask.any(dim=1) & (batch.target != UNKNOWN)
        # torchmetrics rejects an empty batch.
        if scored.any():
            self.val_score.update(answer[scored], batch.target[scored])

    def on_validation_epoch_end(self) -> None:
        """Log loss and score over all batches and processes."""
        loss = self.val_loss.compute()
        if torch.isfinite(loss):
            scores = {"val_loss": loss, self.objective.metric_name: self.val_score.compute()}
            self.log_dict(scores, prog_bar=True, sync_dist=True)
        self.val_loss.reset()
        self.val_score.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of all parameters that are not frozen, and its schedule."""
        assert self.head is not None
        groups: list[dict[str, Any]] = [{"params": [p for p in self.head.parameters() if p.requires_grad]}]
        trainable = [] if self.extractor is None else [p for p in self.extractor.parameters() if p.requires_grad]
        if trainable:
            extractor_lr = {} if self.extractor_lr is None else {"lr": self.extractor_lr}
            groups.append({"params": trainable, **extractor_lr})
        optimizer = self.optimizer_factory(groups)
        if self.scheduler_factory is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler_factory(optimizer)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add painseq's entries; see `painseq.model.checkpoint.contents`."""
        assert self.head is not None
        checkpoint.update(contents(self.record, self.head, self.extractor))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the extractor's weights, so that strict loading works when resuming."""
        if self.extractor is not None:
            restore_extractor(checkpoint, self.extractor)
