"""What is known of the published data sets, and how what was found compares with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from painseq.data.check.report import Comparison, spread_of
from painseq.data.check.videos import VideoFacts
from painseq.records import Manifest, Part

SAME_RATE = 0.02
"""Frame rates and lengths that differ by less, as a share, count as the same."""


@dataclass(frozen=True)
class Expected:
    """What the published data set holds; what is not known is None or empty.

    Args:
        subjects: of all parts.
        subjects_by_part: of each official part.
        videos: files, or folders of images.
        frames: of all videos together.
        clips_per_class: native label -> clips of each subject.
        fps: of the videos.
        duration_s: of a clip.
    """

    subjects: int | None = None
    subjects_by_part: Mapping[Part, int] = field(default_factory=dict)
    videos: int | None = None
    frames: int | None = None
    clips_per_class: Mapping[str, int] = field(default_factory=dict)
    fps: float | None = None
    duration_s: float | None = None


EXPECTED: Mapping[str, Expected] = {
    "biovid": Expected(
        subjects=87,
        videos=8700,
        clips_per_class={"BL1": 20, "PA1": 20, "PA2": 20, "PA3": 20, "PA4": 20},
        fps=25.0,
        duration_s=5.5,
    ),
    "ai4pain": Expected(
        subjects=65,
        subjects_by_part={"train": 41, "validation": 12, "test": 12},
        clips_per_class={"Low_Pain": 12, "High_Pain": 12},
        fps=30.0,
        duration_s=10.0,
    ),
    "unbc": Expected(subjects=25, videos=200, frames=48_398),
    "mintpain": Expected(subjects=20),
}
"""By the data set's name. To add a data set, add a row; one without a row is compared with itself alone."""


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
