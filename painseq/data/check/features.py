"""Check of the features of a data set of which no video is there."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from painseq.data.check.report import FeatureSummary, Finding, findings_of
from painseq.data.check.videos import VideoFacts, below
from painseq.data.datamodule import PainDataModule
from painseq.data.labels import LabelScheme
from painseq.errors import PainseqError
from painseq.features import ClipFeatures, FeatureStore, NpzFolder, open_features
from painseq.features.export import not_finite, not_increasing
from painseq.features.spans import differing_spans
from painseq.records import Manifest
from painseq.video.ahead import read_ahead

Kind = tuple[tuple[int, ...], str, int]
"""Shape and type of a frame's features, and number of its landmarks."""
OVER_S = 0.05
"""A frame may lie beyond the end of its clip by this, as times are rounded."""


@dataclass(frozen=True)
class ClipFacts:
    """Properties of the features of one clip.

    Args:
        clip_id: id of the clip.
        problem: why they cannot be read; other properties are then empty.
        kind: shape, type and landmarks.
        frames: number of frames.
        faceless: number of frames without a face.
        not_finite, times: what is wrong with the values, and with the times; "" for nothing.
        first_s, last_s: times of the first and the last frame; NaN without frames.
        step_s: median time between frames; NaN for a single frame, or wrong times.
        digest: digest of the frames with a face; "" without any.
        low, high: smallest and largest value of each column in frames with a face; None if they are not compared.
    """

    clip_id: str
    problem: str = ""
    kind: Kind = ((), "", 0)
    frames: int = 0
    faceless: int = 0
    not_finite: str = ""
    times: str = ""
    first_s: float = math.nan
    last_s: float = math.nan
    step_s: float = math.nan
    digest: str = ""
    low: NDArray[np.generic] | None = None
    high: NDArray[np.generic] | None = None

    @property
    def as_video(self) -> VideoFacts:
        """Rate and length, as of a video that holds just this clip."""
        known = math.isfinite(self.step_s)
        return VideoFacts(
            self.clip_id,
            self.problem or self.times,
            self.frames,
            1 / self.step_s if known else None,
            self.last_s + self.step_s if known else math.nan,
            self.digest,
        )


@dataclass(frozen=True)
class CheckedFeatures:
    """The features of a data set, and what was found.

    Args:
        clips: clip id -> properties, for clips of the manifest in the store.
        summary: what the store holds; empty if it cannot be opened.
        findings: problems of the features, of their lengths, and of missing clips.
    """

    clips: Mapping[str, ClipFacts]
    summary: FeatureSummary
    findings: tuple[Finding, ...]


def features_alone(data: PainDataModule, manifest: Manifest) -> bool:
    """Whether a data set consists of features: a store is given, and none of the manifest's videos exists."""
    places = {clip.video: manifest.path(clip) for clip in manifest}
    return data.options.store is not None and not any(path.exists() for path in places.values())


def check_features(
    data: PainDataModule,
    manifest: Manifest,
    scheme: LabelScheme,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> CheckedFeatures:
    """Read the features of every clip, and check them.

    Args:
        data: the data set, with a store.
        manifest: all of its clips.
        scheme: tells which clips are needed.
        workers: number of threads.
        on_progress: called with the number of clips done, and the number of all clips.
    """
    assert data.options.store is not None
    try:
        store = open_features(data.options.store)
    except PainseqError as error:
        unopened = Finding("features", "error", below(data.options.store, error))
        return CheckedFeatures({}, FeatureSummary(0, 0, (), ""), (unopened,))
    held = [clip.clip_id for clip in manifest if clip.clip_id in store]
    read = _read_all(store, held, workers, on_progress)
    readable = [facts for facts in read.values() if not facts.problem]
    kinds = Counter(facts.kind for facts in readable)
    usual: Kind = kinds.most_common(1)[0][0] if kinds else ((), "", 0)
    alike = [facts for facts in readable if facts.kind == usual]
    summary = FeatureSummary(len(read), sum(facts.frames for facts in readable), usual[0], usual[1])
    wrong = [
        *_missing(manifest, scheme, store),
        *_content(read.values(), usual, data.options.view),
        *findings_of("features", [("warning", "columns that never change in frames with a face", _constant(alike))]),
        *_spans(manifest, store, read),
    ]
    return CheckedFeatures(read, summary, tuple(wrong))


def _read_all(
    store: FeatureStore | NpzFolder, clip_ids: Sequence[str], workers: int, on_progress: Callable[[int, int], None]
) -> dict[str, ClipFacts]:
    found: dict[str, ClipFacts] = {}
    on_progress(0, len(clip_ids))
    with closing(read_ahead(clip_ids, lambda clip_id: [_read(store, clip_id)], workers, 2 * workers)) as read:
        for facts in read:
            found[facts.clip_id] = facts
            on_progress(len(found), len(clip_ids))
    return {clip_id: found[clip_id] for clip_id in clip_ids}


def _read(store: FeatureStore | NpzFolder, clip_id: str) -> ClipFacts:
    try:
        clip = store.alone(clip_id) if isinstance(store, NpzFolder) else store.frames(clip_id)
    except PainseqError as error:
        return ClipFacts(clip_id, problem=below(store.path, error))
    features, times_s = clip.features, clip.times_s.numpy()
    times, kind = not_increasing(clip), str(features.dtype).removeprefix("torch.")
    landmarks = 0 if clip.landmarks is None else clip.landmarks.shape[1]
    facts = ClipFacts(
        clip_id,
        kind=(tuple(features.shape[1:]), kind, landmarks),
        frames=len(clip),
        faceless=int((~clip.present).sum()),
        not_finite=not_finite(clip),
        times=times,
    )
    if len(clip) and not times:
        step_s = float(np.median(np.diff(times_s))) if len(clip) > 1 else math.nan
        facts = replace(facts, first_s=float(times_s[0]), last_s=float(times_s[-1]), step_s=step_s)
    return facts if facts.not_finite or facts.faceless == facts.frames else _with_values(facts, clip)


def _with_values(facts: ClipFacts, clip: ClipFeatures) -> ClipFacts:
    """Add the digest and, unless the columns are pixels of crops, the range of each column."""
    rows = clip.features[clip.present].flatten(1)
    facts = replace(facts, digest=hashlib.sha256(rows.numpy().tobytes()).hexdigest())
    if clip.are_crops:
        return facts
    return replace(facts, low=rows.amin(dim=0).numpy(), high=rows.amax(dim=0).numpy())


# ---- findings ----


def _missing(manifest: Manifest, scheme: LabelScheme, store: FeatureStore | NpzFolder) -> list[Finding]:
    needed = [clip.clip_id for clip in manifest if scheme.target(clip.label) is not None]
    known = {clip.clip_id for clip in manifest}
    absent = [clip_id for clip_id in needed if clip_id not in store and clip_id not in store.failed]
    return findings_of(
        "features",
        [
            ("error", "clips without features", absent),
            ("warning", "clips whose extraction failed", [f"{name}: {why}" for name, why in store.failed.items()]),
            (
                "warning",
                "features of clips that the data set does not list",
                [clip_id for clip_id in store if clip_id not in known],
            ),
        ],
    )


def _content(read: Collection[ClipFacts], usual: Kind, view: str) -> list[Finding]:
    readable = [facts for facts in read if not facts.problem]
    fitting = "pixels" if usual[1] == "uint8" else "features"
    other_view = [f"they are {usual[1]}; set --data.options.view {fitting}"] if readable and fitting != view else []
    return findings_of(
        "features",
        [
            (
                "error",
                "features that cannot be read",
                [f"{facts.clip_id}: {facts.problem}" for facts in read if facts.problem],
            ),
            ("error", f"features that do not fit the view {view}", other_view),
            (
                "error",
                f"clips that differ from the others, which have {_shown(usual)}",
                [f"{facts.clip_id}: {_shown(facts.kind)}" for facts in readable if facts.kind != usual],
            ),
            (
                "error",
                "features that are NaN or infinite in frames with a face",
                [f"{facts.clip_id}: {facts.not_finite}" for facts in readable if facts.not_finite],
            ),
            (
                "error",
                "times that do not increase",
                [f"{facts.clip_id}: {facts.times}" for facts in readable if facts.times],
            ),
        ],
    )


def _constant(alike: Sequence[ClipFacts]) -> list[str]:
    """Name the columns with the same value in every frame with a face, and that value."""
    lows = [facts.low for facts in alike if facts.low is not None]
    highs = [facts.high for facts in alike if facts.high is not None]
    if not lows:
        return []
    low, high = np.minimum.reduce(lows), np.maximum.reduce(highs)
    return [f"column {column}: {low[column]:g}" for column in np.flatnonzero(low == high)]


def _spans(manifest: Manifest, store: FeatureStore | NpzFolder, read: Mapping[str, ClipFacts]) -> list[Finding]:
    outside = []
    for clip in manifest:
        facts = read.get(clip.clip_id)
        span_s = math.inf if clip.end_s is None else clip.end_s - clip.start_s
        if facts is not None and (facts.first_s < 0 or facts.last_s > span_s + OVER_S):
            of = "" if clip.end_s is None else f" of {span_s:.2f} s"
            outside.append(f"{clip.clip_id}: frames from {facts.first_s:.2f} s to {facts.last_s:.2f} s{of}")
    return findings_of(
        "lengths",
        [
            ("error", "features of other spans than the clips'", differing_spans(store.spans, store, manifest)),
            ("warning", "frames outside of their clip; times count from its start", outside),
        ],
    )


def _shown(kind: Kind) -> str:
    shape, dtype, landmarks = kind
    return f"shape {shape}, {dtype}" + (f", {landmarks} landmarks" if landmarks else "")
