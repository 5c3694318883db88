"""Facts of a data set that are known before its files are read: labels, schemes, published counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from painseq.records import Part


@dataclass(frozen=True)
class Expected:
    """Published counts of a data set; None or empty if not known.

    Args:
        subjects: number of subjects in all parts.
        subjects_by_part: official part -> number of subjects.
        videos: number of video files, or folders of images.
        frames: number of frames in all videos.
        clips_per_class: native label -> number of clips per subject.
        fps: frames per second of the videos.
        duration_s: duration of a clip in seconds.
    """

    subjects: int | None = None
    subjects_by_part: Mapping[Part, int] = field(default_factory=dict)
    videos: int | None = None
    frames: int | None = None
    clips_per_class: Mapping[str, int] = field(default_factory=dict)
    fps: float | None = None
    duration_s: float | None = None


@dataclass(frozen=True)
class DataSetFacts:
    """Facts that a data set's module states; empty for the user's own data.

    An entry of a scheme is a native label or a range of numbers: "1..3" is 1 to 3, both included; ">0..3" is 0 to 3
    without 0.

    Args:
        native: all native labels, in order of pain; empty if not known.
        schemes: scheme -> class -> native labels, classes in order of pain. Clips with other labels are left out.
        scales: scheme for regression -> range of its numbers. Schemes with the name of a scale as prefix, such as
            vas_three, use labels of that scale instead of `native`.
        expected: published counts.
        published_as: name of the data set in `painseq.evaluation.PUBLISHED`; "" if it has no rows there.

    Example:
        >>> DataSetFacts(("calm", "pain"), {"binary": {"no_pain": ("calm",), "high_pain": ("pain",)}}).native
        ('calm', 'pain')
    """

    native: tuple[str, ...] = ()
    schemes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    scales: Mapping[str, str] = field(default_factory=dict)
    expected: Expected = Expected()
    published_as: str = ""
