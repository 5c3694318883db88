"""The blink check: whether a model's score depends on blinks, which are not a sign of pain."""

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
from painseq.explain.regions import REGIONS, UNKNOWN, check_landmarks, ibug_points, region_map
from painseq.explain.score import Scorer, score_of
from painseq.explain.subject_means import SubjectMean, subject_mean
from painseq.model.pain_model import PainModel

CLOSED = 0.5
"""Eyes count as closed below this share of the aspect ratio of the clip's open eyes."""
OPEN_QUANTILE = 0.9


def eye_aspect_ratio(landmarks: Tensor) -> NDArray[np.float64]:
    """Return height over width of the eyes (Soukupova and Cech 2016), averaged over both eyes.

    The ratio is about 0.3 for open eyes and near 0 for closed eyes.

    Args:
        landmarks: (T, L, 2), the 68 iBUG points or those of a face mesh.

    Returns:
        (T,), NaN where landmarks are NaN.
    """
    points = ibug_points(landmarks)
    ratios = []
    for first in (36, 42):
        eye = points[:, first : first + 6]
        heights = np.linalg.norm(eye[:, [1, 2]] - eye[:, [5, 4]], axis=2).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(heights / (2 * np.linalg.norm(eye[:, 0] - eye[:, 3], axis=1)))
    mean: NDArray[np.float64] = np.mean(ratios, axis=0)
    return mean


def blinks_from_landmarks(landmarks: Tensor, times_s: Tensor) -> NDArray[np.bool_]:
    """Return the frames of blinks, (T,): eyes closed for at most `LONGEST_BLINK_S` (`known_units.brief`).

    Eyes are closed if their aspect ratio is below half of the clip's 90th percentile. Soukupova and Cech 2016 train a
    classifier on 13 frames at 30 frames per second; the threshold works for any frame rate, and for eyes of any width.
    """
    ratio = eye_aspect_ratio(landmarks)
    known = np.isfinite(ratio)
    if not known.any():
        return np.zeros(len(ratio), np.bool_)
    closed = known & (ratio < CLOSED * np.quantile(ratio[known], OPEN_QUANTILE))
    return brief(closed, times_s.double().numpy())


def blink_frames(clip: Frames, known: KnownUnits | None) -> tuple[NDArray[np.bool_], str]:
    """Return the frames of blinks, (T,), and their source: AU45 if it is known, otherwise the landmarks.

    Args:
        clip: has landmarks (`check_landmarks`) in pixels of its crops, unless `known` is given.

    Raises:
        PainseqError: neither AU45 nor such landmarks are known.
    """
    if known is not None:
        return known.blinks, f"AU45, {known.source}"
    return blinks_from_landmarks(check_landmarks(clip), clip.times_s), "eye aspect ratio of the landmarks"


def without_eyes(clip: Frames, among: Tensor) -> Tensor:
    """Return the crops, (T, 3, S, S) float, with the eyes of some frames hidden by the mean colour of the face.

    The eyes are the region of `region_map`; brows are kept. Other streams (landmarks, action units) are not changed.

    Args:
        among: (T,) bool, frames to change; frames without landmarks are not changed.
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
    """The blink check of one clip; frames without a face or landmarks are ignored.

    Args:
        source: source of the blinks.
        blink_frames: number of frames of blinks.
        other_frames: number of other frames.
        share_blink: the eyes' share of the attribution in frames of blinks; NaN if nothing there is positive.
        share_other: the same in the other frames.
        area: the eyes' share of the area.
        change_blink: change of the explained score (`score_of`) when the eyes are hidden in frames of blinks.
        change_other: the same for as many other frames, evenly spaced.
        change_all: the same for all frames.
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
    """Run the blink check on one clip; returns None if it has no frame of a blink, or no other frame.

    Args:
        attribution: has maps, of crops with landmarks (`check_landmarks`); its class is the explained one.
        blinks: (T,) bool, frames of blinks.
        source: source of the blinks.

    Raises:
        PainseqError: no maps, or no landmarks.
    """
    clip = attribution.clip
    usable = clip.present & check_landmarks(clip).isfinite().flatten(1).all(dim=1)
    blink, other = usable & torch.from_numpy(blinks), usable & ~torch.from_numpy(blinks)
    if not blink.any() or not other.any():
        return None
    scorer = Scorer(model, clip, attribution.target)
    others = torch.nonzero(other)[:, 0]
    spaced = np.linspace(0, len(others) - 1, min(int(blink.sum()), len(others))).round().astype(int)
    control = torch.zeros_like(blink)
    control[others[spaced]] = True

    def outputs_without_eyes(among: Tensor) -> Tensor:
        hidden = without_eyes(clip, among)[None].to(scorer.x)
        return scorer.outputs(scorer.features(hidden), scorer.mask)

    def change(outputs: Tensor) -> float:
        return float(score_of(model, outputs, scorer.mask, scorer.target)) - scorer.score

    def label(outputs: Tensor) -> int:
        return int(model.objective.answer(model.head.level, outputs, scorer.mask))

    with torch.no_grad():
        unchanged = scorer.outputs(scorer.known_features, scorer.mask)
        in_blinks, in_others, in_all = (outputs_without_eyes(among) for among in (blink, control, usable))
    eyes = REGIONS.index("eyes")
    blink_shares, other_shares = region_shares(attribution, blink), region_shares(attribution, other)
    return BlinkClip(
        source=source,
        blink_frames=int(blink.sum()),
        other_frames=int(other.sum()),
        share_blink=float(blink_shares.share[eyes]),
        share_other=float(other_shares.share[eyes]),
        area=float(other_shares.area[eyes]),
        change_blink=change(in_blinks),
        change_other=change(in_others),
        change_all=change(in_all),
        label_changes=None if model.predicts_values else label(unchanged) != label(in_all),
    )


@dataclass(frozen=True)
class BlinkCheck:
    """The blink check of many clips: means over subjects, with intervals.

    Only combine clips explained for the same class: a blink that counts for one class counts against another.

    Args:
        clips: number of clips with frames of blinks and other frames.
        without_blinks: number of clips without, which are ignored.
        sources: source of the blinks -> number of clips.
        share_blink, share_other, area: see `BlinkClip`.
        share_difference: share_blink minus share_other.
        change_blink, change_other, change_all: see `BlinkClip`.
        change_difference: change_blink minus change_other.
        label_changes: share of clips whose label changes.
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
        """Whether the model depends on blinks, and how, as a sentence."""
        if not self.clips:
            return "No clip has a blink, so the check has no result."
        shares, changes = _side(self.share_difference), _side(self.change_difference)
        if shares is None or changes is None:
            return "Too few subjects have blinks for a result."
        reasons = []
        if shares > 0:
            reasons.append("during blinks, more of the attribution is on the eyes than in other frames")
        if changes:
            reasons.append(
                f"compared with open eyes, a blink counts {'for' if changes < 0 else 'against'} the class: hiding the "
                f"eyes during blinks gives a {'lower' if changes < 0 else 'higher'} score than hiding them in as many "
                "other frames"
            )
        if reasons:
            return "Warning: " + "; and ".join(reasons) + ". A blink is not a sign of pain."
        return (
            "No problem found: within the intervals, the eyes have no more of the attribution during blinks than in "
            "other frames, and hiding them during blinks changes the score no more than in other frames."
        )

    @property
    def figures(self) -> str:
        """The means that the verdict is based on, as sentences."""
        if not self.clips:
            return ""

        def formatted(form: str, *means: SubjectMean) -> list[str]:
            return ["none" if mean.value is None else format(mean.value, form) for mean in means]

        blink, other, area = formatted(".2f", self.share_blink, self.share_other, self.area)
        in_blinks, in_others, in_all = formatted("+z.3f", self.change_blink, self.change_other, self.change_all)
        (labels,) = formatted(".0%", self.label_changes)
        label = "" if labels == "none" else f", and the label in {labels} of the clips"
        return (
            f"The eyes have {blink} of the attribution during blinks and {other} in other frames, on {area} of the "
            f"area. Hiding the eyes changes the score by {in_blinks} (during blinks), {in_others} (in as many other "
            f"frames), {in_all} (in all frames){label}."
        )

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        means = {key: value.to_dict() for key, value in vars(self).items() if isinstance(value, SubjectMean)}
        counts = {"clips": self.clips, "without_blinks": self.without_blinks, "sources": self.sources}
        return {"verdict": self.verdict, **counts, **means}


def _side(mean: SubjectMean) -> int | None:
    """1 or -1 if the interval is above or below 0, 0 if it contains 0; None without an interval."""
    low, high = mean.interval.low, mean.interval.high
    return None if low is None or high is None else int(low > 0) - int(high < 0)


def blink_check(clips: Sequence[BlinkClip | None], subject_ids: Sequence[str]) -> BlinkCheck:
    """Combine the blink checks of many clips.

    Args:
        clips: N results of `check_blinks`.
        subject_ids: N, the subject of each clip.
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
