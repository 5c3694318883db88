"""What a check of a data set tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

Topic = Literal["published", "labels", "files", "lengths", "classes", "faces"]
Severity = Literal["error", "warning"]
TOPICS: tuple[Topic, ...] = ("published", "labels", "files", "lengths", "classes", "faces")


@dataclass(frozen=True)
class Comparison:
    """One figure of the published data set, and the one found."""

    what: str
    found: str
    published: str
    same: bool


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Args:
        severity: an error must be mended before anything is trained; a warning must be known.
        text: what was found; where there are items, what they have in common.
        items: each case, by clip, subject, or path relative to the root.
    """

    topic: Topic
    severity: Severity
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Of some values: the least, the median, the most."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class LabelSummary:
    """The clips of one native label.

    Args:
        label: None where it is hidden.
        class_name: of the experiment; None where the label is hidden or left out.
        fps: of the videos, each counted once; None if none could be read.
        duration_s: of the clips, as far as their videos reach; None if none could be read.
        faceless_share: of the frames, where tracks tell.
    """

    label: str | None
    class_name: str | None
    clips: int
    subjects: int
    fps: Spread | None
    duration_s: Spread | None
    faceless_share: float | None


@dataclass(frozen=True)
class DataCheck:
    """What was found.

    Args:
        generated: the videos are painseq's own, so that differences from the published set are no news.
        comparisons: found against published; empty if nothing is known of the published set.
        labels: one row a native label, in order of pain.
        faceless_by_subject: share of faceless frames; empty without tracks.
        findings: ordered as `TOPICS`.
    """

    data_set: str
    generated: bool
    clips: int
    subjects: int
    videos: int
    comparisons: tuple[Comparison, ...]
    labels: tuple[LabelSummary, ...]
    faceless_by_subject: Mapping[str, float]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """Number of findings that must be mended."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of findings that must be known."""
        return len(self.findings) - self.errors

    def to_dict(self) -> dict[str, object]:
        """Plain values, without any path of this machine."""
        return {"errors": self.errors, "warnings": self.warnings, **asdict(self)}


def spread_of(values: Iterable[float]) -> Spread | None:
    """The spread of those values that are not NaN; None if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return Spread(min(known), float(np.median(known)), max(known)) if known else None


def findings_of(topic: Topic, found: Iterable[tuple[Severity, str, Sequence[str]]]) -> list[Finding]:
    """A finding for each (severity, text, items) that has items."""
    return [Finding(topic, severity, text, tuple(items)) for severity, text, items in found if items]
