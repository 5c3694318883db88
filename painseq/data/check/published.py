"""Comparison of a data set with its published counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from painseq.data.check.report import Comparison, spread_of
from painseq.data.check.videos import VideoFacts
from painseq.data.facts import Expected
from painseq.records import Manifest

SAME_RATE = 0.02
"""Frame rates and lengths that differ by less, as a share, count as the same."""


def compared(
    expected: Expected, manifest: Manifest, videos: Mapping[str, VideoFacts], seconds: Mapping[str, float]
) -> list[Comparison]:
    """Compare each published figure with the one found.

    Args:
        expected: published counts.
        manifest: all clips.
        videos: path -> properties of the video.
        seconds: clip id -> length in seconds, NaN if the video cannot be read.
    """
    rows = []

    def count(quantity: str, found: int, published: int | None) -> None:
        if published is not None:
            rows.append(Comparison(quantity, f"{found:,}", f"{published:,}", found == published))

    def amount(quantity: str, unit: str, values: Iterable[float], published: float | None) -> None:
        spread = spread_of(values)
        if published is None or spread is None:
            return
        constant = math.isclose(spread.minimum, spread.maximum, rel_tol=SAME_RATE)
        found = f"{spread.median:.4g}" if constant else f"{spread.minimum:.4g} to {spread.maximum:.4g}"
        same = constant and math.isclose(spread.median, published, rel_tol=SAME_RATE)
        rows.append(Comparison(quantity, f"{found} {unit}", f"{published:.4g} {unit}", same))

    count("subjects", len(manifest.subjects), expected.subjects)
    for part, published in expected.subjects_by_part.items():
        count(f"subjects in {part}", len({clip.subject_id for clip in manifest if clip.part == part}), published)
    count("videos", len(videos), expected.videos)
    count("frames", sum(facts.frames for facts in videos.values()), expected.frames)
    labelled = sorted({clip.subject_id for clip in manifest if clip.label is not None})
    clips = Counter((clip.subject_id, clip.label) for clip in manifest)
    for label, published in expected.clips_per_class.items():
        by_subject = [clips[subject, label] for subject in labelled] or [0]
        found = f"{by_subject[0]}" if len(set(by_subject)) == 1 else f"{min(by_subject)} to {max(by_subject)}"
        rows.append(Comparison(f"{label} clips a subject", found, f"{published}", set(by_subject) == {published}))
    rates = (facts.fps for facts in videos.values())
    amount("frame rate", "fps", (fps for fps in rates if fps is not None), expected.fps)
    amount("clip length", "s", seconds.values(), expected.duration_s)
    return rows
