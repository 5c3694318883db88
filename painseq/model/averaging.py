"""Average several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.model.checkpoint import load
from painseq.model.pain_model import PainModel
from painseq.spec import Spec, difference


class AveragedModel(PainModel):
    """Average the probabilities or numbers of several models of one pipeline; for frame heads, in each frame.

    Meant for models of several seeds or folds. Crops pass through the shared extractor once.

    Args:
        models: with the same classes, level, extractor, crops, sampling and streams.

    Raises:
        PainseqError: the models differ; lists the differences. Also models with different tuned thresholds: the mean of
            their probabilities has no threshold of its own.
    """

    def __init__(self, models: Sequence[PainModel]) -> None:
        first = models[0]
        for number, other in enumerate(models[1:], start=2):
            if first.threshold != other.threshold:
                raise PainseqError(
                    f"Models 1 and {number} cannot be averaged: their labels follow different thresholds, "
                    f"{_shown(first)} and {_shown(other)}, and the mean of their probabilities has none of its own. "
                    "Use them side by side (omit --average), average models fitted without a tuned threshold, or in "
                    "Python their `without_threshold()`."
                )
            lines = difference(_shared(first), _shared(other))
            if lines:
                raise PainseqError(f"Models 1 and {number} cannot be averaged. They differ in\n  " + "\n  ".join(lines))
        records = [model.record for model in models]
        record = replace(
            first.record,
            fitted_on=tuple(sorted({name for record in records for name in record.fitted_on})),
            extractor_trained_on=tuple(sorted({name for record in records for name in record.extractor_trained_on})),
            fitted_videos=tuple(sorted({video for record in records for video in record.fitted_videos})),
            generated=first.record.generated if len({record.generated for record in records}) == 1 else None,
            calibration=None,
            unknown_people=tuple(dict.fromkeys(name for record in records for name in record.unknown_people)),
        )
        super().__init__(record, first.head, first.extractor, first.face)
        for model in models:
            model.extractor = first.extractor
        self.members = nn.ModuleList(models)

    def classify(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return the log of the mean probabilities, or the mean numbers, from features (B, T, *F)."""
        return self.objective.mean([member.classify(features, mask) for member in self._models()])

    def unadjusted(self, features: Tensor, mask: Tensor) -> Tensor:
        """See `PainModel.unadjusted`."""
        return self.objective.mean([member.unadjusted(features, mask) for member in self._models()])

    @property
    def steps(self) -> bool:
        """False: each model would need a state of its own."""
        return False

    def without_threshold(self) -> PainModel:
        """See `PainModel.without_threshold`."""
        plain = AveragedModel([member.without_threshold() for member in self._models()])
        plain.prior = self.prior
        return plain

    def with_prior(self, mix: Mapping[str, float]) -> PainModel:
        """See `PainModel.with_prior`; each model is adjusted from its own training mix."""
        adjusted = AveragedModel([member.with_prior(mix) for member in self._models()])
        adjusted.prior = dict(mix)
        return adjusted

    def _models(self) -> list[PainModel]:
        return [member for member in self.members if isinstance(member, PainModel)]


def _shown(model: PainModel) -> str:
    return "none" if model.threshold is None else f"{model.threshold:.4f} (tuned)"


def _shared(model: PainModel) -> Spec:
    """The settings that averaged models must share."""
    keys = ("class_names", "loss", "in_shape", "extractor", "sampling", "streams", "baseline_clips", "normalise")
    return {
        **{key: getattr(model.record, key) for key in keys},
        "scale": str(model.scale),
        "face": None if model.face is None else model.face.identity(),
        "level": model.head.level,
    }


def load_averaged(paths: Sequence[str | Path], trust: Sequence[str] = (), device: str = "cpu") -> PainModel:
    """Load several checkpoints as one averaged model; see `load` and `AveragedModel`."""
    models = [load(path, trust, device) for path in paths]
    return models[0] if len(models) == 1 else AveragedModel(models).to(device)
