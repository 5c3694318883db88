"""The blink check: whether a model takes a blink, which is no sign of pain, for something that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from painseq.explain.attribution import Attribution
from painseq.explain.frames import Frames
from painseq.explain.known_units import KnownUnits, brief
from painseq.explain.region_shares import region_shares
from painseq.explain.regions import POINTS, REGIONS, UNKNOWN, check_landmarks, region_map
from painseq.explain.score import Scorer, score_of
from painseq.explain.subject_means import SubjectMean, subject_mean
from painseq.model.pain_model import PainModel

CLOSED = 0.5
"""Eyes count as closed below this share of the clip's open eyes."""
OPEN_QUANTILE = 0.9


def eye_aspect_ratio(landmarks: Tensor) -> NDArray[np.float64]:
    """Height of the eyes by their width (Soukupova and Cech 2016), the mean of both; about 0.3 open, near 0 closed.

    Args:
        landmarks: (T, 68, 2), in iBUG's order.

    Returns:
        (T,), NaN where landmarks are.
    """
    if landmarks.shape[1:] != (POINTS, 2):
        raise ValueError(f"Landmarks are (T, {POINTS}, 2), not {tuple(landmarks.shape)}.")
    points = landmarks.double().numpy()
    ratios = []
    for first in (36, 42):
        eye = points[:, first : first + 6]
        heights = np.linalg.norm(eye[:, [1, 2]] - eye[:, [5, 4]], axis=2).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(heights / (2 * np.linalg.norm(eye[:, 0] - eye[:, 3], axis=1)))
    mean: NDArray[np.float64] = np.mean(ratios, axis=0)
    return mean


def blinks_from_landmarks(landmarks: Tensor, times_s: Tensor) -> NDArray[np.bool_]:
    """(T,) the frames of blinks: eyes closed for at most `LONGEST_BLINK_S` (`known_units.brief`).

    Closed is an aspect ratio below half of the clip's 90th percentile. Soukupova and Cech 2016 train a classifier on
    13 frames at 30 a second instead; here any frame rate must do, and eyes differ in how wide they open.
    """
    ratio = eye_aspect_ratio(landmarks)
    known = np.isfinite(ratio)
    if not known.any():
        return np.zeros(len(ratio), np.bool_)
    closed = known & (ratio < CLOSED * np.quantile(ratio[known], OPEN_QUANTILE))
    return brief(closed, times_s.double().numpy())


def blink_frames(clip: Frames, known: KnownUnits | None) -> tuple[NDArray[np.bool_], str]:
    """(T,) the frames of blinks, and where that is known from: AU45 where there is any, else the landmarks.

    Args:
        clip: with 68 landmarks in pixels of its crops.

    Raises:
        PainseqError: neither is there.
    """
    if known is not None:
        return known.blinks, f"AU45, {known.source}"
    return blinks_from_landmarks(check_landmarks(clip), clip.times_s), "eye aspect ratio of the landmarks"


def without_eyes(clip: Frames, among: Tensor) -> Tensor:
    """The crops, (T, 3, S, S) float, with the eyes of some frames filled in by the mean colour of the rest of the face.

    The region of the eyes is the one of `region_map`; brows stay. Streams beside the crops (landmarks, action units)
    are not changed.

    Args:
        among: (T,) bool, frames to change; one without landmarks stays as it is.
    """
    x = clip.x.float().clone()
    regions = torch.from_numpy(region_map(check_landmarks(clip), x.shape[-1]))
    outside, eyes = REGIONS.index("outside the face"), REGIONS.index("eyes")
    for frame in torch.nonzero(among & clip.present)[:, 0].tolist():
        hidden = regions[frame] == eyes
        skin = ~hidden & (regions[frame] != outside) & (regions[frame] != UNKNOWN)
        if skin.any():
            x[frame, :, hidden] = x[frame, :, skin].mean(dim=1, keepdim=True)
    return x


@dataclass(frozen=True)
class BlinkClip:
    """The blink check of one clip; frames without face or landmarks take no part.

    Args:
        source: how the blinks are known.
        blink_frames: how many.
        other_frames: all others.
        share_blink: the eyes' share of the attribution in the frames of blinks; NaN where nothing there speaks for the
            class.
        share_other: the same in the other frames.
        area: the eyes' share of the area.
        change_blink: what the explained score (`score_of`) gains when the eyes are hidden in the frames of blinks.
        change_other: the same in as many other frames, evenly spaced.
        change_all: the same in all frames.
        label_changes: whether hiding the eyes in all frames changes the label; None for a model of a scale.
    """

    source: str
    blink_frames: int
    other_frames: int
    share_blink: float
    share_other: float
    area: float
    change_blink: float
    change_other: float
    change_all: float
    label_changes: bool | None


def check_blinks(
    model: PainModel, attribution: Attribution, blinks: NDArray[np.bool_], source: str
) -> BlinkClip | None:
    """The blink check of one clip; None where it has no frame of a blink, or no other.

    Args:
        attribution: with maps, of crops with 68 landmarks; its class is the one whose score is looked at.
        blinks: (T,) bool.
        source: how these are known.

    Raises:
        PainseqError: no maps, or no landmarks.
    """
    clip = attribution.clip
    seen = clip.present & check_landmarks(clip).isfinite().flatten(1).all(dim=1)
    blink, other = seen & torch.from_numpy(blinks), seen & ~torch.from_numpy(blinks)
    if not blink.any() or not other.any():
        return None
    scorer = Scorer(model, clip, attribution.target)
    others = torch.nonzero(other)[:, 0]
    evenly = np.linspace(0, len(others) - 1, min(int(blink.sum()), len(others))).round().astype(int)
    as_many = torch.zeros_like(blink)
    as_many[others[evenly]] = True

    def outputs_without_eyes(among: Tensor) -> Tensor:
        hidden = without_eyes(clip, among)[None].to(scorer.x)
        return scorer.outputs(scorer.features(hidden), scorer.mask)

    def change(outputs: Tensor) -> float:
        return float(score_of(model, outputs, scorer.mask, scorer.target)) - scorer.score

    def label(outputs: Tensor) -> int:
        return int(model.objective.answer(model.head.level, outputs, scorer.mask))

    with torch.no_grad():
        plain = scorer.outputs(scorer.known_features, scorer.mask)
        in_blinks, elsewhere, everywhere = (outputs_without_eyes(among) for among in (blink, as_many, seen))
    eyes = REGIONS.index("eyes")
    here, there = region_shares(attribution, blink), region_shares(attribution, other)
    return BlinkClip(
        source=source,
        blink_frames=int(blink.sum()),
        other_frames=int(other.sum()),
        share_blink=float(here.share[eyes]),
        share_other=float(there.share[eyes]),
        area=float(there.area[eyes]),
        change_blink=change(in_blinks),
        change_other=change(elsewhere),
        change_all=change(everywhere),
        label_changes=None if model.predicts_values else label(plain) != label(everywhere),
    )


@dataclass(frozen=True)
class BlinkCheck:
    """The blink check of many clips: means over subjects, with intervals.

    Put together clips explained for the same class: a blink that counts for one class counts against another.

    Args:
        clips: those with frames of blinks and others.
        without_blinks: clips that have none, and take no part.
        sources: how the blinks are known, and in how many clips.
        share_blink, share_other, area: see `BlinkClip`.
        share_difference: share_blink minus share_other.
        change_blink, change_other, change_all: see `BlinkClip`.
        change_difference: change_blink minus change_other.
        label_changes: share of the clips.
    """

    clips: int
    without_blinks: int
    sources: dict[str, int]
    share_blink: SubjectMean
    share_other: SubjectMean
    area: SubjectMean
    share_difference: SubjectMean
    change_blink: SubjectMean
    change_other: SubjectMean
    change_difference: SubjectMean
    change_all: SubjectMean
    label_changes: SubjectMean

    @property
    def verdict(self) -> str:
        """In words: whether there is reason to worry, and why."""
        if not self.clips:
            return "No clip has a blink, so nothing can be said."
        shares, changes = _side(self.share_difference), _side(self.change_difference)
        if shares is None or changes is None:
            return "Too few subjects have blinks to say anything."
        found = []
        if shares > 0:
            found.append("in a blink more of the attribution falls on the eyes than in other frames")
        if changes:
            found.append(
                f"beside open eyes a blink counts {'for' if changes < 0 else 'against'} the class: with the eyes "
                f"hidden in the frames of blinks the score is {'lower' if changes < 0 else 'higher'} than with those "
                "of as many other frames hidden"
            )
        if found:
            return "A worry: " + "; and ".join(found) + ". A blink is no sign of pain."
        return (
            "No worry found: in blinks the eyes draw no more of the attribution than in other frames, and hiding them "
            "there changes the score no more than elsewhere, as far as the intervals tell."
        )

    @property
    def figures(self) -> str:
        """In words: the means that the verdict is made of."""
        if not self.clips:
            return ""

        def formatted(form: str, *means: SubjectMean) -> list[str]:
            return ["none" if mean.value is None else format(mean.value, form) for mean in means]

        blink, other, area = formatted(".2f", self.share_blink, self.share_other, self.area)
        in_blinks, elsewhere, everywhere = formatted("+z.3f", self.change_blink, self.change_other, self.change_all)
        (labels,) = formatted(".0%", self.label_changes)
        label = "" if labels == "none" else f", and the label in {labels} of the clips"
        return (
            f"The eyes have {blink} of the attribution in blinks and {other} elsewhere, on {area} of the area. With "
            f"the eyes hidden the score changes by {in_blinks} (in blinks), {elsewhere} (in as many other frames), "
            f"{everywhere} (in all frames){label}."
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        means = {key: value.to_dict() for key, value in vars(self).items() if isinstance(value, SubjectMean)}
        counts = {"clips": self.clips, "without_blinks": self.without_blinks, "sources": self.sources}
        return {"verdict": self.verdict, **counts, **means}


def _side(mean: SubjectMean) -> int | None:
    """1 or -1 where the interval lies above or below 0, 0 where it does not tell; None where there is none."""
    low, high = mean.interval.low, mean.interval.high
    return None if low is None or high is None else int(low > 0) - int(high < 0)


def blink_check(clips: Sequence[BlinkClip | None], subject_ids: Sequence[str]) -> BlinkCheck:
    """Put clips together.

    Args:
        clips: N, of `check_blinks`.
        subject_ids: N, whom each shows.
    """
    rows = [(clip, subject) for clip, subject in zip(clips, subject_ids, strict=True) if clip is not None]
    subjects = [subject for _, subject in rows]
    names = [field.name for field in fields(BlinkClip) if field.name != "source"]
    columns = {name: np.array([getattr(clip, name) for clip, _ in rows], np.float64) for name in names}

    def mean(values: NDArray[np.float64], low: float = -np.inf, high: float = np.inf) -> SubjectMean:
        return subject_mean(values, subjects, (low, high))

    return BlinkCheck(
        clips=len(rows),
        without_blinks=len(clips) - len(rows),
        sources=dict(Counter(clip.source for clip, _ in rows)),
        share_blink=mean(columns["share_blink"], 0, 1),
        share_other=mean(columns["share_other"], 0, 1),
        area=mean(columns["area"], 0, 1),
        share_difference=mean(columns["share_blink"] - columns["share_other"], -1, 1),
        change_blink=mean(columns["change_blink"]),
        change_other=mean(columns["change_other"]),
        change_difference=mean(columns["change_blink"] - columns["change_other"]),
        change_all=mean(columns["change_all"]),
        label_changes=mean(columns["label_changes"], 0, 1),
    )
