"""Does an explanation change when the model's weights do? (Adebayo et al. 2018, "Sanity checks for saliency maps")

A map that stays the same without what the model has learned shows the picture: an edge detector would do.
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
from painseq.model.pain_model import PainModel

Kind = Literal["space", "time"]
"""Maps (T, S, S), or curves (T,)."""
Explainer = Callable[[PainModel, Frames, int], Tensor]
"""A model, a clip and a class to (T, S, S) or (T,)."""

HEAD, EXTRACTOR, EVERYTHING = "head", "extractor", "everything"
SURVIVES = 0.8
"""Mean rank correlation from which an explanation survives: nearly two thirds of the ranks' variance are then settled
by the picture and the network's shape. On generated faces it was at most 0.71 for maps of methods that read the model
(saliency's, whose size follows the face's texture whatever the weights), and 1 for an edge detector."""
SSIM_FRAMES = 16
"""Frames, evenly over the clip, in which structural similarity is computed."""


@dataclass(frozen=True)
class Similarity:
    """How alike two explanations of one clip are; 1 for the same one, NaN where either is the same everywhere.

    Args:
        signed: Spearman's rank correlation of the cells' sums, or of the frames.
        absolute: that of their sizes.
        ssim: structural similarity of the sizes as pictures of cells; NaN for curves.
    """

    signed: float
    absolute: float
    ssim: float


@dataclass(frozen=True)
class RandomisationCheck:
    """What became of an explanation when weights were randomised; means over subjects.

    Args:
        similarity: part of the model -> name of a similarity -> its mean, of the model's explanation and that of the
            model with this part randomised.
        between_random: the same for two models that are randomised in everything: how much the picture alone makes
            explanations alike.
        survives: whether everything can be randomised, and the explanation stays about the same: for maps the larger
            of the means of `signed` and `absolute` is at least `SURVIVES`. For curves `signed` alone: how large they
            are over time follows from how a head reads it (an LSTM forgets), whatever its weights. None where no clip
            tells, as the explanations are the same everywhere.
        clips: how many there were.
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
            "similarity": {name: {key: mean.to_dict() for key, mean in of.items()} for name, of in parts.items()},
        }


@dataclass(frozen=True)
class RandomisationOptions:
    """What is randomised, and what is explained then.

    Args:
        parts: what to randomise beside everything, see `randomised`; None: the head, and the extractor if its weights
            play a part.
        seed: of the first random model of a clip; the second has the next one.
        target: class index; None: of each clip the one that the model predicts.
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
    """Explain clips again by the model with parts of it randomised.

    The class stays the same for the random models. Curves over time have few values, and two of them may be alike by
    chance: give several clips, of several people.

    Args:
        explainer: see `explainer_of`; or any function, such as one that is known to be wrong.
        subject_ids: of the clips; None: each is another person's.
        on_progress: called with the share that is done.
    """
    parts, seed = options.parts, options.seed
    if parts is None:
        parts = [HEAD, EXTRACTOR] if clips and clips[0].are_pixels and has_weights(model) else []
    found: dict[str, list[Similarity]] = {name: [] for name in (*parts, EVERYTHING)}
    between: list[Similarity] = []
    of_space = False
    for number, clip in enumerate(clips):
        explained_class = Scorer(model, clip, options.target).target

        def explained(model: PainModel, clip: Frames = clip, target: int = explained_class) -> Tensor:
            return explainer(model, clip, target)

        usual = explained(model)
        of_space = usual.ndim == 3
        for name in parts:
            found[name].append(similarity(usual, explained(randomised(model, name, seed)), clip.present))
        first, second = (explained(randomised(model, EVERYTHING, seed + more)) for more in (0, 1))
        found[EVERYTHING] += [similarity(usual, random, clip.present) for random in (first, second)]
        between.append(similarity(first, second, clip.present))
        if on_progress is not None:
            on_progress((number + 1) / len(clips))
    subjects = [str(number) for number in range(len(clips))] if subject_ids is None else list(subject_ids)
    twice = [subject for subject in subjects for _ in range(2)]
    means = {name: _means(of, twice if name == EVERYTHING else subjects) for name, of in found.items()}
    known = [means[EVERYTHING][key].value for key in (("signed", "absolute") if of_space else ("signed",))]
    largest = max((value for value in known if value is not None), default=None)
    survives = None if largest is None else largest >= SURVIVES
    return RandomisationCheck(means, _means(between, subjects), survives, len(clips))


def explainer_of(method: Method, kind: Kind, most_steps: int) -> Explainer:
    """A method of `explain`, as maps or as a curve over time."""

    def values(model: PainModel, clip: Frames, target: int) -> Tensor:
        found = explain(model, clip, method, target, MethodOptions(most_steps=most_steps))
        return found.maps if kind == "space" else found.over_time

    return values


def cascade(model: PainModel) -> list[str]:
    """Parts for `randomised`, each of which takes one more block from the output towards the input."""
    blocks = [] if model.extractor is None else model.extractor.block_names()
    return [HEAD, *reversed(blocks)]


def has_weights(model: PainModel) -> bool:
    """Whether the model sees pictures through a network, not as they are."""
    return model.extractor is not None and any(True for _ in model.extractor.parameters())


def randomised(model: PainModel, part: str, seed: int) -> PainModel:
    """A copy of a model in which the values of each tensor of weights have changed places at random.

    Each tensor keeps its own values, and so their mean and spread: activations stay of a size, tensors that no
    initialisation is written for (CLS tokens, positions) are treated like all others, and what is destroyed is what
    was learned: which value stands where. Adebayo et al. draw the initialisation anew. Running statistics of batch
    normalisation stay where they are; they fit the shuffled channels no worse than if they were shuffled too.

    Args:
        part: "head"; "extractor"; "everything"; or a block of the extractor (`block_names`), with the head and all
            blocks behind it, as in Adebayo et al.'s cascade.

    Raises:
        PainseqError: the model has no such part.
    """
    # How faces are found is not part of it, and may not be copied.
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
        behind, whole = blocks[blocks.index(part) :], extractor
        _shuffle(extractor.network, lambda name: any(whole.in_block(name, block) for block in behind), generator)
    elif part in (EXTRACTOR, EVERYTHING):
        if extractor is not None:
            _shuffle(extractor.network, lambda _: True, generator)
    else:
        known = ", ".join([*cascade(model), EXTRACTOR, EVERYTHING])
        raise PainseqError(f"No part {part!r} to randomise; there are {known}.")
    return other


def similarity(first: Tensor, second: Tensor, present: Tensor) -> Similarity:
    """Of two explanations, (T, S, S) or (T,), over the real frames."""
    a, b = (values.detach().cpu()[present].double() for values in (first, second))
    if a.ndim == 3:
        a, b = cell_sums(a)[0], cell_sums(b)[0]
    return Similarity(_spearman(a, b), _spearman(a.abs(), b.abs()), _ssim(a.abs(), b.abs()))


def _shuffle(module: nn.Module, wanted: Callable[[str], bool], generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, tensor in module.named_parameters():
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
    found = structural_similarity_index_measure(pictures[0], pictures[1], data_range=1.0)
    assert isinstance(found, Tensor)
    return float(found)


def _means(of: Sequence[Similarity], subjects: Sequence[str]) -> dict[str, SubjectMean]:
    columns: dict[str, NDArray[np.float64]] = {
        key: np.array([getattr(one, key) for one in of], np.float64) for key in ("signed", "absolute", "ssim")
    }
    return {key: subject_mean(values, subjects, (-1.0, 1.0)) for key, values in columns.items()}
