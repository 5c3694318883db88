"""Which explanation to trust: every measure of every method on one clip, and the order of methods over many clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from painseq.explain.attribution import Attribution
from painseq.explain.by_input import MOST_STEPS, Progress
from painseq.explain.faithfulness import infidelity, sensitivity
from painseq.explain.frames import Frames
from painseq.explain.methods import Method
from painseq.explain.perturbation import perturbation_curves
from painseq.explain.randomisation import Explainer, Kind, explainer_of
from painseq.explain.score import Scorer
from painseq.explain.subject_means import SubjectMean, subject_mean
from painseq.explain.truth import truth_scores

RANDOM = "random"
NO_PAIN = "no_pain"
"""The class whose explanations have no business where pain shows."""

NUMBERS = {
    "gain": (-math.inf, math.inf),
    "deletion": (-math.inf, math.inf),
    "insertion": (-math.inf, math.inf),
    "infidelity": (0.0, 1.0),
    "sensitivity": (0.0, math.inf),
    "truth_mass": (0.0, 1.0),
    "truth_area": (0.0, 1.0),
    "truth_pointing": (0.0, 1.0),
}
"""What is measured, and between what bounds it lies."""


@dataclass(frozen=True)
class MethodScores:
    """What one method's explanation of one clip is worth; None where a measure does not tell.

    Args:
        method: its name, or `RANDOM`.
        deletion: area under the curve, see `painseq.explain.perturbation`.
        insertion: likewise.
        gain: insertion minus deletion.
        infidelity: see `painseq.explain.faithfulness`.
        sensitivity: likewise; None for `RANDOM`.
        truth_mass: see `painseq.explain.truth`; None where nothing is known, or the explained class is `NO_PAIN`.
        truth_area: likewise.
        truth_pointing: likewise.
        shares: of the two curves.
        deletion_curve: what the model says.
        insertion_curve: likewise.
    """

    method: str
    deletion: float
    insertion: float
    gain: float
    infidelity: float | None
    sensitivity: float | None
    truth_mass: float | None
    truth_area: float | None
    truth_pointing: float | None
    shares: list[float]
    deletion_curve: list[float]
    insertion_curve: list[float]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rank:
    """A method over clips; means are over subjects.

    Args:
        means: name in `NUMBERS` -> its mean.
        above_random: gain minus that of the random explanation of the same clip; None for `RANDOM`.
        survives: see `RandomisationCheck`; None for `RANDOM`, or where it was not told.
    """

    method: str
    means: dict[str, SubjectMean]
    above_random: SubjectMean | None
    survives: bool | None

    @property
    def beats_random(self) -> bool:
        """Whether the interval of `above_random` lies above 0."""
        low = None if self.above_random is None else self.above_random.interval.low
        return low is not None and low > 0

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {
            "method": self.method,
            "survives": self.survives,
            "beats_random": self.beats_random,
            "above_random": None if self.above_random is None else self.above_random.to_dict(),
            **{name: mean.to_dict() for name, mean in self.means.items()},
        }


def method_scores(
    scorer: Scorer,
    kind: Kind,
    methods: Sequence[Method],
    most_steps: int = MOST_STEPS,
    seed: int = 0,
    regions: Tensor | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> list[MethodScores]:
    """Every measure of some methods on one clip, and of a random explanation beside them.

    The random one is uniform noise in 0..1, a number a pixel, or a frame: its order is random, its relevance mass that
    of the area.

    Args:
        scorer: of the model, the clip and the class; the clip as crops for maps, as features for curves over time, or
            as crops where the head takes these itself.
        methods: of `space_methods`, or of `time_methods`.
        most_steps: for integrated_gradients, gradients at most, for each of the clip and its noisy copies.
        regions: of `pain_regions`, for maps.
        on_progress: called with what is being measured, and its share that is done.
    """
    model, clip, target = scorer.model, scorer.clip, scorer.target
    found = []
    for method in methods:
        explainer = explainer_of(method, kind, most_steps)

        def values(clip: Frames, explainer: Explainer = explainer) -> Tensor:
            return explainer(model, clip, target)

        def show(share: float, name: str = method) -> None:
            if on_progress is not None:
                on_progress(name, share)

        show(0.0)
        usual = values(clip)
        changes = sensitivity(scorer, values, usual, seed)
        found.append(_score(scorer, method, usual, changes, seed, regions, show))
    noise = torch.rand(clip.x[:, 0].shape if kind == "space" else len(clip), generator=_generator(seed))
    there = clip.present.reshape(-1, *[1] * (noise.ndim - 1))
    found.append(_score(scorer, RANDOM, noise * there, math.nan, seed, regions, None))
    return found


def _score(
    scorer: Scorer,
    method: str,
    values: Tensor,
    changes: float,
    seed: int,
    regions: Tensor | None,
    on_progress: Progress | None,
) -> MethodScores:
    curves = perturbation_curves(scorer, values, seed=seed, on_progress=on_progress)
    truth = None
    if regions is not None and scorer.class_name != NO_PAIN:
        clip = scorer.clip
        truth = truth_scores(Attribution(values, clip, method, scorer.target, scorer.class_name, scorer.score), regions)
    return MethodScores(
        method=method,
        deletion=curves.deletion_area,
        insertion=curves.insertion_area,
        gain=curves.gain,
        infidelity=_known(infidelity(scorer, values, seed)),
        sensitivity=_known(changes),
        truth_mass=None if truth is None else truth.mass,
        truth_area=None if truth is None else truth.area,
        truth_pointing=None if truth is None else truth.pointing,
        shares=curves.shares.tolist(),
        deletion_curve=curves.deletion.tolist(),
        insertion_curve=curves.insertion.tolist(),
    )


def rank(
    clips: Sequence[Sequence[MethodScores]], subject_ids: Sequence[str], survives: Mapping[str, bool | None]
) -> list[Rank]:
    """The methods, and the random explanation among them, by their mean gain; those that survive randomising last.

    Args:
        clips: of each, what `method_scores` gave.
        subject_ids: whose clips they are.
        survives: method -> whether it survives, see `randomisation_check`.
    """
    by_method: dict[str, dict[int, MethodScores]] = {}
    for number, found in enumerate(clips):
        for one in found:
            by_method.setdefault(one.method, {})[number] = one
    random = by_method.get(RANDOM, {})
    ranks = []
    for method, of in by_method.items():
        subjects = [subject_ids[number] for number in of]
        means = {
            name: subject_mean([_number(getattr(one, name)) for one in of.values()], subjects, bounds)
            for name, bounds in NUMBERS.items()
        }
        above = None
        if method != RANDOM:
            above = subject_mean([one.gain - random[number].gain for number, one in of.items()], subjects)
        ranks.append(Rank(method, means, above, survives.get(method)))
    return sorted(ranks, key=lambda one: (one.survives is True, -(one.means["gain"].value or 0.0)))


def verdict(ranks: Sequence[Rank]) -> str:
    """Which method to use, in words."""
    methods = [one for one in ranks if one.method != RANDOM]
    trusted = [one for one in methods if one.survives is not True]
    flagged = [one.method for one in methods if one.survives is True]
    warning = ""
    if flagged:
        warning = f" Not to be trusted, as they hardly change when the weights are randomised: {', '.join(flagged)}."
    if methods and all(one.above_random is None or one.above_random.interval.low is None for one in methods):
        return f"One person has no interval, so no method can be told from a random explanation.{warning}"
    good = [one for one in trusted if one.beats_random]
    if not good:
        whose = " that changes with the weights" if flagged else ""
        return f"No method{whose} is told from a random explanation of this model on these clips: trust none.{warning}"
    best, others = good[0], [one.method for one in good[1:]]
    assert best.above_random is not None and best.above_random.value is not None
    low, high = best.above_random.interval.low, best.above_random.interval.high
    beside = (
        f" So {'do' if len(others) > 1 else 'does'} {', '.join(others)}, by less on average."
        if others
        else f" No other {'that changes with the weights ' if flagged else ''}does."
    )
    return (
        f"Use {best.method}: it beats a random explanation by a gain of {best.above_random.value:.3g} "
        f"({low:.3g} to {high:.3g}, 95 % over people).{beside}{warning}"
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
