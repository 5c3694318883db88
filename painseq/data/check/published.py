"""How what was found of a data set compares with what is published of it."""

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
    """A row for each figure that is known of the published data set.

    Args:
        videos: path -> what it told.
        seconds: clip id -> its length, NaN if its video cannot be read.
    """
    rows = []

    def count(what: str, found: int, published: int | None) -> None:
        if published is not None:
            rows.append(Comparison(what, f"{found:,}", f"{published:,}", found == published))

    def amount(what: str, unit: str, values: Iterable[float], published: float | None) -> None:
        spread = spread_of(values)
        if published is None or spread is None:
            return
        alike = math.isclose(spread.minimum, spread.maximum, rel_tol=SAME_RATE)
        found = f"{spread.median:.4g}" if alike else f"{spread.minimum:.4g} to {spread.maximum:.4g}"
        same = alike and math.isclose(spread.median, published, rel_tol=SAME_RATE)
        rows.append(Comparison(what, f"{found} {unit}", f"{published:.4g} {unit}", same))

    count("subjects", len(manifest.subjects), expected.subjects)
    for part, published in expected.subjects_by_part.items():
        count(f"subjects in {part}", len({clip.subject_id for clip in manifest if clip.part == part}), published)
    count("videos", len(videos), expected.videos)
    count("frames", sum(facts.frames for facts in videos.values()), expected.frames)
    labelled = sorted({clip.subject_id for clip in manifest if clip.label is not None})
    clips = Counter((clip.subject_id, clip.label) for clip in manifest)
    for label, published in expected.clips_per_class.items():
        each = [clips[subject, label] for subject in labelled] or [0]
        found = f"{each[0]}" if len(set(each)) == 1 else f"{min(each)} to {max(each)}"
        rows.append(Comparison(f"{label} clips a subject", found, f"{published}", set(each) == {published}))
    rates = (facts.fps for facts in videos.values())
    amount("frame rate", "fps", (fps for fps in rates if fps is not None), expected.fps)
    amount("clip length", "s", seconds.values(), expected.duration_s)
    return rows
