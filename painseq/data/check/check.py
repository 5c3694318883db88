"""Check of a data set on disk against published counts, and for consistency."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from painseq.data.check.features import CheckedFeatures, check_features, features_alone
from painseq.data.check.published import SAME_RATE, compared
from painseq.data.check.report import (
    TOPICS,
    Comparison,
    DataCheck,
    FeatureSummary,
    Finding,
    LabelSummary,
    Topic,
    findings_of,
    spread_of,
)
from painseq.data.check.videos import VideoFacts, available_s, below, read_videos
from painseq.data.datamodule import PainDataModule
from painseq.data.labels import LabelScheme, ordered_labels
from painseq.errors import PainseqError, first_few
from painseq.records import Clip, Manifest, doubtful_subjects
from painseq.video.generated import is_generated

SPAN_TOLERANCE_S = 0.05
"""A clip may be shorter than its span by this, or by one frame, as containers round durations."""
UNBALANCED = 1.5
"""A warning is issued if the most frequent class has more than this times the clips of the rarest class."""
FACELESS_MORE = 0.05
"""A warning is issued if a label's share of faceless frames is this far above the share of all frames."""
FACELESS_SUBJECT = 0.2
"""A warning is issued if a subject's share of faceless frames is larger than this."""

Key = TypeVar("Key")
Faceless = Mapping[str, tuple[int, int] | str]
"""Clip id -> (frames, faceless frames), or the reason of a failure."""

MAX_LISTED = 5
"""Largest number of copies of a video that are listed by name."""


def check_data(
    data: PainDataModule,
    tracks: Path | None = None,
    deep: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataCheck:
    """Open every video of a data set, and check labels, videos, lengths, classes and faces.

    If the options give a store and none of the videos exists, the features in the store are checked instead.

    Args:
        data: the data set; clips that the label scheme leaves out are checked too.
        tracks: folder written by `painseq faces`, to report missing faces; None for no check of faces.
        deep: decode every frame instead of only the first and the last frame of each video.
        workers: number of threads that open videos.
        on_progress: called with the number of videos done, and the number of all videos; or of clips, for features.

    Raises:
        PainseqError: no data set at its root, an unknown label scheme, or no tracks.
    """
    if workers < 1:
        raise PainseqError(f"--workers is {workers}; it must be 1 or more.")
    tracked = None if tracks is None else read_faceless(tracks)
    labels = _label_problem_findings(data.root, data.label_problems())
    try:
        manifest, scheme = data.whole_manifest, data.scheme
    except PainseqError as error:
        if not labels:
            raise
        stopped = Finding("labels", "error", f"nothing else was checked, because: {below(data.root, error)}")
        return DataCheck(data.name, is_generated(data.root), 0, 0, 0, (), (), {}, (*labels, stopped))
    if features_alone(data, manifest):
        read = _of_features(data, manifest, check_features(data, manifest, scheme, workers, on_progress))
    else:
        read = _of_videos(data, manifest, deep, workers, on_progress)
    faceless = read.faceless if tracked is None else tracked
    rows = _label_rows(read.clips, scheme, read.videos, read.seconds, faceless)
    findings = [
        *_published_findings(read.comparisons),
        *labels,
        *_subject_and_label_findings(scheme, manifest),
        *read.findings,
        *_length_findings(read, rows),
        *_class_findings(manifest, scheme, data.classes),
        *([] if faceless is None else _face_findings(manifest, scheme, rows, faceless, tracks)),
    ]
    return DataCheck(
        data_set=data.name,
        generated=is_generated(data.root),
        clips=len(manifest),
        subjects=len(manifest.subjects),
        videos=len({clip.video for clip in manifest}),
        comparisons=read.comparisons,
        labels=tuple(rows),
        faceless_by_subject={} if faceless is None else _shares(manifest, faceless, lambda clip: clip.subject_id),
        findings=tuple(sorted(findings, key=lambda finding: TOPICS.index(finding.topic))),
        features=read.summary,
    )


@dataclass(frozen=True)
class _Read:
    """What was read of a data set: videos, or features in their place.

    Args:
        clips: the manifest; for features, with each clip's id as its video.
        videos: video -> its properties.
        seconds: clip id -> available seconds; NaN if they are not known.
        comparisons: found against published figures.
        findings: problems of the files.
        faceless: frames without a face, for features.
        summary: what the store holds, for features.
    """

    clips: Manifest
    videos: Mapping[str, VideoFacts]
    seconds: Mapping[str, float]
    comparisons: tuple[Comparison, ...]
    findings: Sequence[Finding]
    faceless: Faceless | None = None
    summary: FeatureSummary | None = None


def _of_videos(
    data: PainDataModule, manifest: Manifest, deep: bool, workers: int, on_progress: Callable[[int, int], None]
) -> _Read:
    by_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in manifest:
        by_video[clip.video].append(clip)
    videos = read_videos(manifest.root, by_video, deep, workers, on_progress)
    seconds = {clip.clip_id: available_s(clip, videos[clip.video]) for clip in manifest}
    comparisons = compared(data.facts.expected, manifest, videos, seconds)
    findings = [*_unreadable(videos.values()), *_duplicates(by_video, videos.values(), "files", "video")]
    return _Read(manifest, videos, seconds, tuple(comparisons), findings)


def _of_features(data: PainDataModule, manifest: Manifest, checked: CheckedFeatures) -> _Read:
    clips = Manifest(manifest.name, manifest.root, tuple(replace(clip, video=clip.clip_id) for clip in manifest))
    missing = VideoFacts("", "no features", duration_s=math.nan)
    videos = {
        clip.clip_id: checked.clips[clip.clip_id].as_video if clip.clip_id in checked.clips else missing
        for clip in manifest
    }
    seconds = {clip_id: math.nan if facts.problem else facts.duration_s for clip_id, facts in videos.items()}
    # Videos, and their rates and frames, are not known: features may be of fewer frames.
    expected = replace(data.facts.expected, videos=None, frames=None, fps=None)
    comparisons = compared(expected, manifest, {}, seconds)
    faceless: Faceless = {
        name: (facts.frames, facts.faceless) for name, facts in checked.clips.items() if not facts.problem
    }
    same = _duplicates({clip.clip_id: [clip] for clip in manifest}, videos.values(), "features", "clip")
    findings = [*checked.findings, *same]
    return _Read(clips, videos, seconds, tuple(comparisons), findings, faceless, checked.summary)


def read_faceless(tracks: Path) -> dict[str, tuple[int, int] | str]:
    """Read faces.csv in a folder of tracks: clip id -> (frames, faceless frames), or the reason of a failure.

    Raises:
        PainseqError: no faces.csv, or it is damaged.
    """
    found: dict[str, tuple[int, int] | str] = {}
    for path, row in _rows_of_tracks(tracks):
        try:
            counts = (int(row["frames"]), int(row["faceless"])) if row["frames"] != "" else None
            found[row["clip_id"]] = row["reason"] if counts is None else counts
        except (KeyError, ValueError, TypeError) as error:
            raise PainseqError(f"{path} is damaged ({error!r}). Run `painseq faces` again.") from error
    return found


def _switched(tracks: Path) -> list[str]:
    """Return the clips in which another person may be followed, with the times."""
    # Earlier versions do not have the column.
    times_s = {row["clip_id"]: row.get("switched_s") for _, row in _rows_of_tracks(tracks)}
    return [f"{clip_id}: from {times} s on" for clip_id, times in times_s.items() if times]


def _rows_of_tracks(tracks: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    # Files of single processes first: a later run with one process writes all clips into faces.csv.
    files = [*sorted(tracks.glob("faces-*.csv")), *tracks.glob("faces.csv")]
    if not files:
        raise PainseqError(f"No faces.csv at {tracks}. Write the tracks first: painseq faces --out {tracks}.")
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            yield from ((path, row) for row in csv.DictReader(file))


def _published_findings(comparisons: Sequence[Comparison]) -> list[Finding]:
    different = [f"{row.what}: {row.found}, published: {row.published}" for row in comparisons if not row.same]
    return findings_of("published", [("warning", "figures that differ from the published data set", different)])


# ---- files ----


def _unreadable(videos: Iterable[VideoFacts]) -> list[Finding]:
    broken = [f"{facts.video}: {facts.problem}" for facts in videos if facts.problem]
    return findings_of("files", [("error", "videos that cannot be read", broken)])


def _duplicates(
    by_video: Mapping[str, Sequence[Clip]], videos: Iterable[VideoFacts], topic: Topic, what: str
) -> list[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for facts in videos:
        if facts.digest:
            same[facts.digest].append(facts.video)
    subjects, parts, labels, harmless = [], [], [], []
    for group in same.values():
        clips = [clip for video in group for clip in by_video[video]]
        names = " = ".join(group[:MAX_LISTED])
        if len(group) > MAX_LISTED:
            names += f" = {len(group) - MAX_LISTED} more"
        of_subjects = sorted({clip.subject_id for clip in clips})
        of_parts = sorted({clip.part or "no part" for clip in clips})
        of_labels = sorted({", ".join(sorted({clip.label or "hidden" for clip in by_video[video]})) for video in group})
        if len(of_subjects) > 1:
            subjects.append(f"{names} (subjects {', '.join(of_subjects)})")
        elif len(of_parts) > 1:
            parts.append(f"{names} (parts {', '.join(of_parts)})")
        elif len(of_labels) > 1:
            labels.append(f"{names} (labels {' and '.join(of_labels)})")
        elif len(group) > 1:
            harmless.append(names)
    return findings_of(
        topic,
        [
            ("error", f"the same {what} for several subjects, so it may be trained on and scored", subjects),
            ("error", f"the same {what} in several parts, so it may be trained on and scored", parts),
            ("error", f"the same {what} under several labels", labels),
            ("warning", f"the same {what} several times", harmless),
        ],
    )


# ---- lengths ----


def _length_findings(read: _Read, rows: Sequence[LabelSummary]) -> list[Finding]:
    videos = read.videos
    files, source = ("videos", "video ends") if read.summary is None else ("clips", "features end")
    median_s = {row.label: row.duration_s.median for row in rows if row.duration_s is not None}
    empty, cut, short = [], [], []
    for clip in read.clips:
        length_s, facts = read.seconds[clip.clip_id], videos[clip.video]
        if math.isnan(length_s):
            continue
        span_s = math.inf if clip.end_s is None else clip.end_s - clip.start_s
        tolerance_s = max(SPAN_TOLERANCE_S, 1 / facts.fps if facts.fps else 0.0)
        if length_s == 0:
            empty.append(f"{clip.clip_id}: starts at {clip.start_s:g} s of {facts.duration_s:.2f} s")
        elif clip.end_s is not None and length_s < span_s - tolerance_s:
            cut.append(f"{clip.clip_id}: {length_s:.2f} s of {span_s:.2f} s")
        elif length_s < median_s[clip.label] / 2:
            short.append(
                f"{clip.clip_id}: {length_s:.2f} s; median of {_shown(clip.label)}: {median_s[clip.label]:.2f} s"
            )
    rates = {video: facts.fps for video, facts in videos.items() if facts.fps is not None}
    median_fps = float(np.median(list(rates.values()))) if rates else 0.0
    different = [
        f"{video}: {fps:.4g} fps"
        for video, fps in rates.items()
        if not math.isclose(fps, median_fps, rel_tol=SAME_RATE)
    ]
    return findings_of(
        "lengths",
        [
            ("error", "clips that start after the end of their video", empty),
            ("warning", f"clips whose {source} before the clip", cut),
            ("warning", "clips shorter than half the median of their label", short),
            ("warning", f"{files} with a different frame rate than the median, {median_fps:.4g} fps", different),
        ],
    )


def _label_rows(
    manifest: Manifest,
    scheme: LabelScheme,
    videos: Mapping[str, VideoFacts],
    seconds: Mapping[str, float],
    faceless: Faceless | None,
) -> list[LabelSummary]:
    by_label: dict[str | None, list[Clip]] = defaultdict(list)
    for clip in manifest:
        by_label[clip.label].append(clip)
    shares = {} if faceless is None else _shares(manifest, faceless, lambda clip: clip.label)
    rows = []
    for label in _by_pain(by_label, scheme):
        clips = by_label[label]
        files = {clip.video for clip in clips}
        rows.append(
            LabelSummary(
                label=label,
                class_name=scheme.group(label),
                clips=len(clips),
                subjects=len({clip.subject_id for clip in clips}),
                fps=spread_of(fps for fps in (videos[video].fps for video in files) if fps is not None),
                duration_s=spread_of(seconds[clip.clip_id] for clip in clips),
                faceless_share=shares.get(label),
            )
        )
    return rows


def _by_pain(labels: Collection[str | None], scheme: LabelScheme) -> list[str | None]:
    """Sort labels by class, then labels that the scheme leaves out, then hidden labels (None)."""

    def sort_key(label: str | None) -> float:
        target = scheme.target(label)
        return math.inf if target is None else target

    known = [label for label in labels if label is not None]
    return [*sorted(ordered_labels(known), key=sort_key), *([None] if None in labels else [])]


# ---- labels and classes ----


def _label_problem_findings(root: Path, problems: Sequence[str]) -> list[Finding]:
    relative = [below(root, problem) for problem in problems]
    return findings_of("labels", [("error", "labels that are missing or contradictory", relative)])


def _subject_and_label_findings(scheme: LabelScheme, manifest: Manifest) -> list[Finding]:
    one_person = findings_of("subjects", [("warning", "subjects who may be one person", doubtful_subjects(manifest))])
    return [*_unknown_labels(scheme, manifest), *_unknown_order(scheme), *one_person]


def _unknown_labels(scheme: LabelScheme, manifest: Manifest) -> list[Finding]:
    try:
        scheme.apply(manifest)
    except PainseqError as error:
        return [Finding("labels", "error", str(error))]
    return []


def _unknown_order(scheme: LabelScheme) -> list[Finding]:
    """Report classes of native labels without a known order of pain."""
    if scheme.ordered:
        return []
    return [
        Finding(
            "labels",
            "warning",
            "the order of pain is not known, so labels are sorted alphabetically, starting with no pain: "
            f"{first_few(scheme.class_names)}. List the labels in --data.classes, in order of pain",
        )
    ]


def _class_findings(manifest: Manifest, scheme: LabelScheme, listed: Sequence[str]) -> list[Finding]:
    counts = scheme.counts(manifest)
    if not sum(counts.values()):
        return []
    findings = []
    missing = [name for name, count in counts.items() if not count]
    if scheme.name == "native":
        missing += [label for label in listed if ".." not in label and label not in counts]
    if missing:
        findings.append(Finding("classes", "warning", f"no clip of class {', '.join(missing)}"))
    present = {name: count for name, count in counts.items() if count}
    rarest, commonest = min(present, key=present.__getitem__), max(present, key=present.__getitem__)
    if present[commonest] > UNBALANCED * present[rarest]:
        findings.append(
            Finding(
                "classes",
                "warning",
                f"{present[commonest]} clips of {commonest}, {present[rarest]} of {rarest}: train with "
                "--model.class_weights inverse_frequency or --data.options.balance true, and read balanced accuracy",
            )
        )
    groups_of: dict[str, set[str]] = defaultdict(set)
    for clip in manifest:
        group = scheme.group(clip.label)
        if group is not None:
            groups_of[clip.subject_id].add(group)
    lacking = []
    for subject, groups in sorted(groups_of.items()):
        names = [name for name in scheme.groups if name in present and name not in groups]
        if names:
            lacking.append(f"{subject}: no {first_few(names)}")
    return [*findings, *findings_of("classes", [("warning", "subjects without clips of every class", lacking)])]


# ---- faces ----


def _face_findings(
    manifest: Manifest,
    scheme: LabelScheme,
    rows: Sequence[LabelSummary],
    faceless: Faceless,
    tracks: Path | None,
) -> list[Finding]:
    missing, failed, without_face = [], [], []
    for clip in manifest:
        counts = faceless.get(clip.clip_id)
        if isinstance(counts, str):
            failed.append(f"{clip.clip_id}: {counts}")
        elif counts is not None and counts[0] == counts[1]:
            without_face.append(clip.clip_id)
        elif counts is None and tracks is not None and scheme.target(clip.label) is not None:
            missing.append(clip.clip_id)
    overall = _shares(manifest, faceless, lambda clip: "all").get("all", 0.0)
    labels = [
        f"{_shown(row.label)}: {row.faceless_share:.1%}, all labels: {overall:.1%}"
        for row in rows
        if row.faceless_share is not None and row.faceless_share > overall + FACELESS_MORE
    ]
    shares = _shares(manifest, faceless, lambda clip: clip.subject_id)
    subjects = [f"{subject}: {share:.1%}" for subject, share in shares.items() if share > FACELESS_SUBJECT]
    return findings_of(
        "faces",
        [
            ("warning", "clips without a row in faces.csv; run `painseq faces` again", missing),
            ("warning", "clips that could not be tracked", failed),
            ("warning", "clips without any face", without_face),
            ("warning", "clips in which another person may be followed", [] if tracks is None else _switched(tracks)),
            ("warning", "labels with a higher share of frames without a face", labels),
            ("warning", f"subjects with more than {FACELESS_SUBJECT:.0%} of frames without a face", subjects),
        ],
    )


def _shares(manifest: Manifest, faceless: Faceless, key: Callable[[Clip], Key]) -> dict[Key, float]:
    """Share of faceless frames by a key of clips, such as label or subject, for tracked clips."""
    frames: Counter[Key] = Counter()
    without: Counter[Key] = Counter()
    for clip in manifest:
        counts = faceless.get(clip.clip_id)
        if isinstance(counts, tuple):
            frames[key(clip)] += counts[0]
            without[key(clip)] += counts[1]
    return {name: without[name] / count for name, count in frames.items() if count}


def _shown(label: str | None) -> str:
    return "hidden" if label is None else label
