"""Checking a data set on disk: against what was published of it, and against itself."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from painseq.data.check.published import SAME_RATE, compared
from painseq.data.check.report import Comparison, DataCheck, Finding, LabelSummary, findings_of, spread_of
from painseq.data.check.videos import VideoFacts, available_s, below, read_videos
from painseq.data.datamodule import PainDataModule
from painseq.data.labels import LabelScheme, ordered_labels
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest
from painseq.video.generated import is_generated

SPAN_TOLERANCE_S = 0.05
"""Containers round their lengths; a clip that lacks less than this, or less than a frame, is whole."""
UNBALANCED = 1.5
"""More clips than this times those of the rarest class are told."""
FACELESS_MORE = 0.05
"""A label whose share of faceless frames lies this far above that of all frames is told."""
FACELESS_SUBJECT = 0.2
"""A subject with a larger share of faceless frames is told."""

Key = TypeVar("Key")

NAMED = 5


def check_data(
    data: PainDataModule,
    tracks: Path | None = None,
    deep: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataCheck:
    """Open every video of a data set, and compare.

    Args:
        data: all its clips are looked at, also those that the label scheme leaves out.
        tracks: folder that `painseq faces` wrote, to tell where faces are missing.
        deep: decode every frame, rather than the first and the last one of each video.
        workers: threads that open videos.
        on_progress: called with the number of videos done, and of all.

    Raises:
        PainseqError: no data set at its root, an unknown label scheme, no tracks where they should be.
    """
    if workers < 1:
        raise PainseqError(f"--workers is {workers}; it must be 1 or more.")
    faceless = None if tracks is None else read_faceless(tracks)
    disagreeing = data.label_problems()
    try:
        manifest, scheme = data.whole_manifest, data.scheme
    except PainseqError as error:
        if not disagreeing:
            raise
        listed = Finding("labels", "error", f"so nothing else was looked at: {below(data.root, error)}")
        problems = (*_disagreeing(data.root, disagreeing), listed)
        return DataCheck(data.name, is_generated(data.root), 0, 0, 0, (), (), {}, problems)
    by_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in manifest:
        by_video[clip.video].append(clip)
    videos = read_videos(manifest.root, by_video, deep, workers, on_progress)
    seconds = {clip.clip_id: available_s(clip, videos[clip.video]) for clip in manifest}
    rows = _label_rows(manifest, scheme, videos, seconds, faceless)
    comparisons = compared(data.facts.expected, manifest, videos, seconds)
    findings = [
        *_published_findings(comparisons),
        *_disagreeing(data.root, disagreeing),
        *_unknown_labels(scheme, manifest),
        *_unknown_order(scheme),
        *_unreadable(videos.values()),
        *_duplicates(by_video, videos.values()),
        *_length_findings(manifest, videos, seconds, rows),
        *_class_findings(manifest, scheme, data.classes),
        *([] if faceless is None else _face_findings(manifest, scheme, rows, faceless)),
    ]
    return DataCheck(
        data_set=data.name,
        generated=is_generated(data.root),
        clips=len(manifest),
        subjects=len(manifest.subjects),
        videos=len(videos),
        comparisons=tuple(comparisons),
        labels=tuple(rows),
        faceless_by_subject={} if faceless is None else _shares(manifest, faceless, lambda clip: clip.subject_id),
        findings=tuple(findings),
    )


def read_faceless(tracks: Path) -> dict[str, tuple[int, int] | str]:
    """What faces.csv in a folder of tracks tells: clip id -> frames and faceless ones, or why it failed.

    Raises:
        PainseqError: there is none, or it is damaged.
    """
    # Those of other processes first: a later run of one process alone writes them all into faces.csv.
    files = [*sorted(tracks.glob("faces-*.csv")), *tracks.glob("faces.csv")]
    if not files:
        raise PainseqError(f"No faces.csv at {tracks}. Write the tracks first: painseq faces --out {tracks}.")
    found: dict[str, tuple[int, int] | str] = {}
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            try:
                for row in csv.DictReader(file):
                    counted = row["frames"] != ""
                    counts = (int(row["frames"]), int(row["faceless"])) if counted else None
                    found[row["clip_id"]] = row["reason"] if counts is None else counts
            except (KeyError, ValueError, TypeError) as error:
                raise PainseqError(f"{path} is damaged ({error!r}). Run `painseq faces` again.") from error
    return found


def _published_findings(comparisons: Sequence[Comparison]) -> list[Finding]:
    different = [f"{row.what}: {row.found}, published: {row.published}" for row in comparisons if not row.same]
    return findings_of("published", [("warning", "figures that are not those of the published data set", different)])


# ---- files ----


def _unreadable(videos: Iterable[VideoFacts]) -> list[Finding]:
    broken = [f"{facts.video}: {facts.problem}" for facts in videos if facts.problem]
    return findings_of("files", [("error", "videos that cannot be read", broken)])


def _duplicates(by_video: Mapping[str, Sequence[Clip]], videos: Iterable[VideoFacts]) -> list[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for facts in videos:
        if not facts.problem:
            same[facts.digest].append(facts.video)
    subjects, parts, labels, harmless = [], [], [], []
    for group in same.values():
        clips = [clip for video in group for clip in by_video[video]]
        names = " = ".join(group[:NAMED]) + (f" = {len(group) - NAMED} more" if len(group) > NAMED else "")
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
        "files",
        [
            ("error", "the same video for several subjects, so one of them may be learned and scored", subjects),
            ("error", "the same video in several parts, so it may be learned and scored", parts),
            ("error", "the same video under several labels", labels),
            ("warning", "the same video several times", harmless),
        ],
    )


# ---- lengths ----


def _length_findings(
    manifest: Manifest, videos: Mapping[str, VideoFacts], seconds: Mapping[str, float], rows: Sequence[LabelSummary]
) -> list[Finding]:
    median_s = {row.label: row.duration_s.median for row in rows if row.duration_s is not None}
    empty, cut, short = [], [], []
    for clip in manifest:
        length_s, facts = seconds[clip.clip_id], videos[clip.video]
        if facts.problem:
            continue
        asked_s = math.inf if clip.end_s is None else clip.end_s - clip.start_s
        tolerance_s = max(SPAN_TOLERANCE_S, 1 / facts.fps if facts.fps else 0.0)
        if length_s == 0:
            empty.append(f"{clip.clip_id}: begins at {clip.start_s:g} s of {facts.duration_s:.2f} s")
        elif clip.end_s is not None and length_s < asked_s - tolerance_s:
            cut.append(f"{clip.clip_id}: {length_s:.2f} s of {asked_s:.2f} s")
        elif length_s < median_s[clip.label] / 2:
            short.append(
                f"{clip.clip_id}: {length_s:.2f} s; median of {_shown(clip.label)}: {median_s[clip.label]:.2f} s"
            )
    rates = {video: facts.fps for video, facts in videos.items() if facts.fps is not None}
    usual = float(np.median(list(rates.values()))) if rates else 0.0
    other = [
        f"{video}: {fps:.4g} fps" for video, fps in rates.items() if not math.isclose(fps, usual, rel_tol=SAME_RATE)
    ]
    return findings_of(
        "lengths",
        [
            ("error", "clips that begin after the end of their video", empty),
            ("warning", "clips whose video ends before they do", cut),
            ("warning", "clips shorter than half the median of their label", short),
            ("warning", f"videos at another frame rate than the median, {usual:.4g} fps", other),
        ],
    )


def _label_rows(
    manifest: Manifest,
    scheme: LabelScheme,
    videos: Mapping[str, VideoFacts],
    seconds: Mapping[str, float],
    faceless: Mapping[str, tuple[int, int] | str] | None,
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
    """Classes in their order, then what the scheme leaves out, then the hidden ones."""

    def place(label: str | None) -> float:
        target = scheme.target(label)
        return math.inf if target is None else target

    known = [label for label in labels if label is not None]
    return [*sorted(ordered_labels(known), key=place), *([None] if None in labels else [])]


# ---- labels and classes ----


def _disagreeing(root: Path, problems: Sequence[str]) -> list[Finding]:
    relative = [below(root, problem) for problem in problems]
    return findings_of("labels", [("error", "labels that are missing or disagree", relative)])


def _unknown_labels(scheme: LabelScheme, manifest: Manifest) -> list[Finding]:
    try:
        scheme.apply(manifest)
    except PainseqError as error:
        return [Finding("labels", "error", str(error))]
    return []


def _unknown_order(scheme: LabelScheme) -> list[Finding]:
    """Classes made of whatever labels are found: words do not tell which of them is more pain."""
    if scheme.ordered:
        return []
    return [
        Finding(
            "labels",
            "warning",
            "no order of pain is known, so the alphabet's stands for it, from no pain on: "
            f"{', '.join(scheme.class_names)}. List the labels in --data.classes, in order of pain",
        )
    ]


def _class_findings(manifest: Manifest, scheme: LabelScheme, promised: Sequence[str]) -> list[Finding]:
    counts = scheme.counts(manifest)
    if not sum(counts.values()):
        return []
    findings = []
    absent = [name for name, count in counts.items() if not count]
    if scheme.name == "native":
        absent += [label for label in promised if ".." not in label and label not in counts]
    if absent:
        findings.append(Finding("classes", "warning", f"no clip of class {', '.join(absent)}"))
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
    held: dict[str, set[str]] = defaultdict(set)
    for clip in manifest:
        group = scheme.group(clip.label)
        if group is not None:
            held[clip.subject_id].add(group)
    lacking = []
    for subject, groups in sorted(held.items()):
        names = [name for name in scheme.groups if name in present and name not in groups]
        if names:
            lacking.append(f"{subject}: no {', '.join(names)}")
    return [*findings, *findings_of("classes", [("warning", "subjects without clips of every class", lacking)])]


# ---- faces ----


def _face_findings(
    manifest: Manifest,
    scheme: LabelScheme,
    rows: Sequence[LabelSummary],
    faceless: Mapping[str, tuple[int, int] | str],
) -> list[Finding]:
    absent, failed, none = [], [], []
    for clip in manifest:
        counts = faceless.get(clip.clip_id)
        if isinstance(counts, str):
            failed.append(f"{clip.clip_id}: {counts}")
        elif counts is not None and counts[0] == counts[1]:
            none.append(clip.clip_id)
        elif counts is None and scheme.target(clip.label) is not None:
            absent.append(clip.clip_id)
    overall = _shares(manifest, faceless, lambda clip: "all").get("all", 0.0)
    more = [
        f"{_shown(row.label)}: {row.faceless_share:.1%}, all labels: {overall:.1%}"
        for row in rows
        if row.faceless_share is not None and row.faceless_share > overall + FACELESS_MORE
    ]
    subjects = _shares(manifest, faceless, lambda clip: clip.subject_id)
    many = [f"{subject}: {share:.1%}" for subject, share in subjects.items() if share > FACELESS_SUBJECT]
    return findings_of(
        "faces",
        [
            ("warning", "clips without a row in faces.csv; run `painseq faces` again", absent),
            ("warning", "clips that could not be tracked", failed),
            ("warning", "clips without any face", none),
            ("warning", "labels under which faces are missing more often", more),
            ("warning", f"subjects with more than {FACELESS_SUBJECT:.0%} of frames without a face", many),
        ],
    )


def _shares(
    manifest: Manifest, faceless: Mapping[str, tuple[int, int] | str], key: Callable[[Clip], Key]
) -> dict[Key, float]:
    """Share of faceless frames by label, or by subject, where the tracks tell."""
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
