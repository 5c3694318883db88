"""What is known of a data set before any of its files is read: labels, schemes, published counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from painseq.records import Part


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


@dataclass(frozen=True)
class DataSetFacts:
    """What a data set's own module states of it; nothing for data that only its user knows.

    An entry of a scheme is a native label or a range of numbers: "1..3" is 1 to 3, both included; ">0..3" is 0 to 3
    without 0.

    Args:
        native: all labels that the data set uses, in order of pain; empty where nobody knows them all.
        schemes: scheme -> class -> its native labels, classes in order of pain. Native labels that a scheme leaves out
            leave the experiment.
        scales: scheme for regression -> the range of its numbers. Schemes whose name begins with that of a scale and
            an underscore, such as vas_three, take labels of that scale instead of `native`.
        expected: the published counts.
        published_as: what `painseq.evaluation.PUBLISHED` calls the data set; "" if it has no row there.

    Example:
        >>> DataSetFacts(("calm", "pain"), {"binary": {"no_pain": ("calm",), "high_pain": ("pain",)}}).native
        ('calm', 'pain')
    """

    native: tuple[str, ...] = ()
    schemes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    scales: Mapping[str, str] = field(default_factory=dict)
    expected: Expected = Expected()
    published_as: str = ""
