"""Measures of explanation methods on one clip, and their ranking over many clips."""

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
"""The class whose explanations are not compared with the regions that show pain."""

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
"""Measure -> its bounds."""


@dataclass(frozen=True)
class MethodScores:
    """The measures of one method's explanation of one clip; None where a measure is undefined.

    Args:
        method: name of the method, or `RANDOM`.
        deletion: area under the deletion curve, see `painseq.explain.perturbation`.
        insertion: area under the insertion curve.
        gain: insertion minus deletion.
        infidelity: see `painseq.explain.faithfulness`.
        sensitivity: see `painseq.explain.faithfulness`; None for `RANDOM`.
        truth_mass: see `painseq.explain.truth`; None if the truth is unknown or the explained class is `NO_PAIN`.
        truth_area: as for `truth_mass`.
        truth_pointing: as for `truth_mass`.
        shares: x values of the two curves.
        deletion_curve: model outputs.
        insertion_curve: model outputs.
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
    """A method's measures over clips; means are over subjects.

    Args:
        method: name of the method, or `RANDOM`.
        means: name in `NUMBERS` -> mean.
        above_random: gain minus the gain of the random explanation of the same clip; None for `RANDOM`.
        survives: see `RandomisationCheck`; None for `RANDOM`, or if unknown.
    """

    method: str
    means: dict[str, SubjectMean]
    above_random: SubjectMean | None
    survives: bool | None

    @property
    def beats_random(self) -> bool:
        """Whether the interval of `above_random` is above 0."""
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
    """Measure methods on one clip, and a random explanation as control.

    The random explanation is uniform noise in 0..1 per pixel or frame: its order is random, and its relevance mass
    equals the area.

    Args:
        scorer: scorer of the model, the clip and the class; the clip has crops for maps, and features for curves over
            time, unless the head takes crops.
        kind: maps or curves.
        methods: from `space_methods` or `time_methods`.
        most_steps: for integrated_gradients, the most gradients for the clip and for each noisy copy.
        seed: seed of noise, boxes and random order.
        regions: result of `pain_regions`, for maps.
        on_progress: called with the name of the method and its finished share.
    """
    model, clip, target = scorer.model, scorer.clip, scorer.target
    measured = []
    for method in methods:
        explainer = explainer_of(method, kind, most_steps)

        def values(clip: Frames, explainer: Explainer = explainer) -> Tensor:
            return explainer(model, clip, target)

        def show(share: float, name: str = method) -> None:
            if on_progress is not None:
                on_progress(name, share)

        show(0.0)
        original = values(clip)
        sensitive = sensitivity(scorer, values, original, seed)
        measured.append(_score(scorer, method, original, sensitive, seed, regions, show))
    noise = torch.rand(clip.x[:, 0].shape if kind == "space" else len(clip), generator=_generator(seed))
    present = clip.present.reshape(-1, *[1] * (noise.ndim - 1))
    measured.append(_score(scorer, RANDOM, noise * present, math.nan, seed, regions, None))
    return measured


def _score(
    scorer: Scorer,
    method: str,
    values: Tensor,
    sensitive: float,
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
        sensitivity=_known(sensitive),
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
    """Rank the methods and the random explanation by mean gain; methods that survive randomisation come last.

    Args:
        clips: for each clip, the result of `method_scores`.
        subject_ids: subject of each clip.
        survives: method -> whether it survives, see `randomisation_check`.
    """
    by_method: dict[str, dict[int, MethodScores]] = {}
    for number, of_clip in enumerate(clips):
        for scores in of_clip:
            by_method.setdefault(scores.method, {})[number] = scores
    random = by_method.get(RANDOM, {})
    ranks = []
    for method, by_clip in by_method.items():
        subjects = [subject_ids[number] for number in by_clip]
        means = {
            name: subject_mean([_number(getattr(scores, name)) for scores in by_clip.values()], subjects, bounds)
            for name, bounds in NUMBERS.items()
        }
        above = None
        if method != RANDOM:
            above = subject_mean([scores.gain - random[number].gain for number, scores in by_clip.items()], subjects)
        ranks.append(Rank(method, means, above, survives.get(method)))
    return sorted(ranks, key=lambda ranked: (ranked.survives is True, -(ranked.means["gain"].value or 0.0)))


def verdict(ranks: Sequence[Rank]) -> str:
    """Return which method to use, as sentences."""
    methods = [ranked for ranked in ranks if ranked.method != RANDOM]
    trusted = [ranked for ranked in methods if ranked.survives is not True]
    flagged = [ranked.method for ranked in methods if ranked.survives is True]
    warning = ""
    if flagged:
        warning = f" Do not trust these, which hardly change when the weights are randomised: {', '.join(flagged)}."
    if methods and all(ranked.above_random is None or ranked.above_random.interval.low is None for ranked in methods):
        return f"A single subject has no interval, so no method can be compared with a random explanation.{warning}"
    good = [ranked for ranked in trusted if ranked.beats_random]
    if not good:
        whose = " that changes with the weights" if flagged else ""
        return f"No method{whose} beats a random explanation of this model on these clips: trust none.{warning}"
    best, others = good[0], [ranked.method for ranked in good[1:]]
    assert best.above_random is not None and best.above_random.value is not None
    low, high = best.above_random.interval.low, best.above_random.interval.high
    comparison = (
        f" {', '.join(others)} also {'do' if len(others) > 1 else 'does'}, by less on average."
        if others
        else f" No other {'that changes with the weights ' if flagged else ''}does."
    )
    return (
        f"Use {best.method}: it beats a random explanation by a gain of {best.above_random.value:.3g} "
        f"({low:.3g} to {high:.3g}, 95 % over subjects).{comparison}{warning}"
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value
