"""The randomisation check: an explanation must change with the model's weights (Adebayo et al. 2018).

A map that stays the same with random weights shows the image, as an edge detector does, not what the model has learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from painseq.errors import PainseqError
from painseq.explain.by_input import Progress
from painseq.explain.frames import Frames
from painseq.explain.methods import Method, MethodOptions, explain
from painseq.explain.perturbation import cell_sums
from painseq.explain.score import Scorer, heads_of
from painseq.explain.subject_means import SubjectMean, subject_mean
from painseq.heads import Head
from painseq.model.pain_model import PainModel

Kind = Literal["space", "time"]
"""Maps (T, S, S) or curves (T,)."""
Explainer = Callable[[PainModel, Frames, int], Tensor]
"""Maps a model, a clip and a class to (T, S, S) or (T,)."""

HEAD, EXTRACTOR, EVERYTHING = "head", "extractor", "everything"
SURVIVES = 0.8
"""Mean rank correlation from which an explanation survives: nearly two thirds of the variance of ranks then come from
the image and the architecture. On generated faces it was at most 0.71 for maps of methods that depend on the model
(saliency, whose size follows the texture of the face for any weights), and 1 for an edge detector."""
SSIM_FRAMES = 16
"""Number of frames, evenly spaced, for structural similarity."""


@dataclass(frozen=True)
class Similarity:
    """Similarity of two explanations of one clip; 1 if they are equal, NaN if either is constant.

    Args:
        signed: Spearman's rank correlation of the values of cells, or of frames.
        absolute: the same for absolute values.
        ssim: structural similarity of absolute values as images of cells; NaN for curves.
    """

    signed: float
    absolute: float
    ssim: float


@dataclass(frozen=True)
class RandomisationCheck:
    """How an explanation changes when weights are randomised; means over subjects.

    Args:
        similarity: part of the model -> name in `Similarity` -> mean similarity of the explanations by the model and by
            the model with this part randomised.
        between_random: the same for two fully randomised models: similarity due to the image alone.
        survives: whether the explanation stays about the same when everything is randomised. For maps: the larger mean
            of `signed` and `absolute` is at least `SURVIVES`. For curves: that of `signed`, since their size over time
            depends on the architecture (an LSTM forgets). None if all explanations are constant.
        clips: number of clips.
    """

    similarity: dict[str, dict[str, SubjectMean]]
    between_random: dict[str, SubjectMean]
    survives: bool | None
    clips: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        parts = {**self.similarity, "between two random models": self.between_random}
        return {
            "survives": self.survives,
            "clips": self.clips,
            "similarity": {name: {key: mean.to_dict() for key, mean in means.items()} for name, means in parts.items()},
        }


@dataclass(frozen=True)
class RandomisationOptions:
    """Which weights to randomise, and what to explain.

    Args:
        parts: parts to randomise besides everything, see `randomised`; None: the head, and the extractor if it has
            weights that affect the score.
        seed: seed of the first random model of a clip; the second has the next seed.
        target: class index; None: the predicted class of each clip.
    """

    parts: Sequence[str] | None = None
    seed: int = 0
    target: int | None = None


USUAL = RandomisationOptions()


def randomisation_check(
    model: PainModel,
    clips: Sequence[Frames],
    explainer: Explainer,
    subject_ids: Sequence[str] | None = None,
    options: RandomisationOptions = USUAL,
    on_progress: Progress | None = None,
) -> RandomisationCheck:
    """Explain clips again with parts of the model randomised, and compare.

    The class is kept for the random models. Curves over time have few values, and may be similar by chance: give
    several clips of several subjects.

    Args:
        explainer: see `explainer_of`; or any other function, such as one known to be wrong.
        subject_ids: subject of each clip; None: each clip is of a different subject.
        on_progress: called with the finished share.
    """
    parts, seed = options.parts, options.seed
    if parts is None:
        parts = [HEAD, EXTRACTOR] if clips and clips[0].are_pixels and has_weights(model) else []
    similarities: dict[str, list[Similarity]] = {name: [] for name in (*parts, EVERYTHING)}
    between: list[Similarity] = []
    of_space = False
    for number, clip in enumerate(clips):
        explained_class = Scorer(model, clip, options.target).target

        def explained(model: PainModel, clip: Frames = clip, target: int = explained_class) -> Tensor:
            return explainer(model, clip, target)

        original = explained(model)
        of_space = original.ndim == 3
        for name in parts:
            similarities[name].append(similarity(original, explained(randomised(model, name, seed)), clip.present))
        first, second = (explained(randomised(model, EVERYTHING, seed + offset)) for offset in (0, 1))
        similarities[EVERYTHING] += [similarity(original, random, clip.present) for random in (first, second)]
        between.append(similarity(first, second, clip.present))
        if on_progress is not None:
            on_progress((number + 1) / len(clips))
    subjects = [str(number) for number in range(len(clips))] if subject_ids is None else list(subject_ids)
    twice = [subject for subject in subjects for _ in range(2)]
    means = {name: _means(of_part, twice if name == EVERYTHING else subjects) for name, of_part in similarities.items()}
    known = [means[EVERYTHING][key].value for key in (("signed", "absolute") if of_space else ("signed",))]
    largest = max((value for value in known if value is not None), default=None)
    survives = None if largest is None else largest >= SURVIVES
    return RandomisationCheck(means, _means(between, subjects), survives, len(clips))


def explainer_of(method: Method, kind: Kind, most_steps: int) -> Explainer:
    """Return an explainer for a method of `explain`, with maps or curves over time."""

    def values(model: PainModel, clip: Frames, target: int) -> Tensor:
        attribution = explain(model, clip, method, target, MethodOptions(most_steps=most_steps))
        return attribution.maps if kind == "space" else attribution.over_time

    return values


def cascade(model: PainModel) -> list[str]:
    """Return the parts for `randomised` that include one more block each, from output to input."""
    blocks = [] if model.extractor is None else model.extractor.block_names()
    return [HEAD, *reversed(blocks)]


def has_weights(model: PainModel) -> bool:
    """Whether the model has an extractor with weights."""
    return model.extractor is not None and any(True for _ in model.extractor.parameters())


def randomised(model: PainModel, part: str, seed: int) -> PainModel:
    """Return a copy of a model in which the values of each weight tensor are shuffled.

    Each tensor keeps its values, and so their mean and spread: activations keep their size, and tensors without an
    initialisation (CLS tokens, positions) are treated like all others; only the learned order is destroyed. Of a head
    that is not fitted by gradients, such as trees, all numbers are shuffled (thresholds, leaves). Adebayo et al. draw a
    new initialisation instead. Running statistics of batch normalisation are kept; they fit the shuffled channels no
    worse than if they were shuffled too.

    Args:
        part: "head"; "extractor"; "everything"; or a block of the extractor (`block_names`) together with the head
            and all later blocks, as in Adebayo et al.'s cascade.
        seed: seed of the shuffles.

    Raises:
        PainseqError: the model has no such part.
    """
    # The face crops have no weights, and cannot always be copied.
    other = copy.deepcopy(model, {id(model.face): model.face})
    generator = torch.Generator().manual_seed(seed)
    if part != EXTRACTOR:
        for head in heads_of(other):
            _shuffle(head, lambda _: True, generator)
    if part == HEAD:
        return other
    extractor = other.extractor
    blocks = [] if extractor is None else extractor.block_names()
    if part in blocks:
        assert extractor is not None
        later, whole = blocks[blocks.index(part) :], extractor
        _shuffle(extractor.network, lambda name: any(whole.in_block(name, block) for block in later), generator)
    elif part in (EXTRACTOR, EVERYTHING):
        if extractor is not None:
            _shuffle(extractor.network, lambda _: True, generator)
    else:
        known = ", ".join([*cascade(model), EXTRACTOR, EVERYTHING])
        raise PainseqError(f"No part {part!r} to randomise; parts: {known}.")
    return other


def similarity(first: Tensor, second: Tensor, present: Tensor) -> Similarity:
    """Compare two explanations, (T, S, S) or (T,), over the frames with a face."""
    a, b = (values.detach().cpu()[present].double() for values in (first, second))
    if a.ndim == 3:
        a, b = cell_sums(a)[0], cell_sums(b)[0]
    return Similarity(_spearman(a, b), _spearman(a.abs(), b.abs()), _ssim(a.abs(), b.abs()))


def _shuffle(module: nn.Module, wanted: Callable[[str], bool], generator: torch.Generator) -> None:
    with torch.no_grad():
        tensors: dict[str, Tensor] = dict(module.named_parameters())
        if isinstance(module, Head) and not module.fitted_by_gradients:
            tensors |= {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        for name, tensor in tensors.items():
            if wanted(name):
                places = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.copy_(tensor.flatten()[places].reshape(tensor.shape))


def _spearman(a: Tensor, b: Tensor) -> float:
    x, y = a.flatten().numpy(), b.flatten().numpy()
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def _ssim(a: Tensor, b: Tensor) -> float:
    if a.ndim != 3 or not a.any() or not b.any():
        return math.nan
    frames = torch.linspace(0, len(a) - 1, min(SSIM_FRAMES, len(a))).round().long()
    pictures = [(part / part.max())[frames, None].float() for part in (a, b)]
    ssim = structural_similarity_index_measure(pictures[0], pictures[1], data_range=1.0)
    assert isinstance(ssim, Tensor)
    return float(ssim)


def _means(similarities: Sequence[Similarity], subjects: Sequence[str]) -> dict[str, SubjectMean]:
    keys = ("signed", "absolute", "ssim")
    columns: dict[str, NDArray[np.float64]] = {
        key: np.array([getattr(each, key) for each in similarities], np.float64) for key in keys
    }
    return {key: subject_mean(values, subjects, (-1.0, 1.0)) for key, values in columns.items()}
