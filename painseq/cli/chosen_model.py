"""The model that a command line names: one checkpoint or several averaged, for a stated mix of classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.model.pain_model import PainModel

log = logging.getLogger("painseq")

AVERAGE_HELP = "Instead of --checkpoint: several, of other seeds or folds; their probabilities are averaged."
PRIOR_HELP = "The mix of classes among those to be predicted, if another than in training: a share for each class."


def chosen_model(
    checkpoint: Path | None, averaged: Sequence[Path], prior: Sequence[str], trust: Sequence[str], device: str
) -> PainModel:
    """Load what `--checkpoint`, `--average-checkpoints` and `--prior` name, and tell what was done to it.

    Raises:
        PainseqError: neither or both are given; models that cannot be averaged; a mix that does not fit.
    """
    from painseq.model.averaging import load_averaged

    if (checkpoint is None) == (not averaged):
        raise PainseqError("Give a model: --checkpoint best.ckpt, or --average-checkpoints A.ckpt B.ckpt ...")
    paths = list(averaged) if checkpoint is None else [checkpoint]
    model = load_averaged(paths, trust, device)
    if len(paths) > 1:
        log.info("The mean of %d checkpoints.", len(paths))
    if prior:
        model = model.with_prior(parse_prior(prior))
        log.info("Corrected for the stated mix of classes: %s.", ", ".join(prior))
    return model


def parse_prior(pairs: Sequence[str]) -> Mapping[str, float]:
    """`["no_pain=0.1", ...]` as class name -> share.

    Raises:
        PainseqError: not of this form.
    """
    mix: dict[str, float] = {}
    for pair in pairs:
        name, equals, share = pair.partition("=")
        try:
            mix[name] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise PainseqError(f"--prior {pair}: write CLASS=SHARE, such as no_pain=0.04 low_pain=0.48 high_pain=0.48.")
    return mix
