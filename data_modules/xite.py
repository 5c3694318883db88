"""X-ITE: heat and electrical pain, phasic and tonic, in frontal and side view."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest
from painseq.tables import read_table, shown
from painseq.video import VIDEO_SUFFIXES

from .files import video_files
from .pattern import compiled_pattern

log = logging.getLogger("painseq")

VIEWS = {"frontal": "fvf", "side": "fvs"}
TONIC = ("4", "5", "6", "-4", "-5", "-6")
PHASIC = ("1", "2", "3", "-1", "-2", "-3")

FACTS = DataSetFacts(
    native=("0", "1", "2", "3", "4", "5", "6", "-1", "-2", "-3", "-4", "-5", "-6"),
    # Schemes without a stimulus in their name use both heat and electrical phasic pain.
    schemes={
        "binary": {"no_pain": ("0",), "high_pain": ("3", "-3")},
        "three": {"no_pain": ("0",), "low_pain": ("1", "-1"), "high_pain": ("3", "-3")},
        "four": {
            "no_pain": ("0",),
            "mild_pain": ("1", "-1"),
            "moderate_pain": ("2", "-2"),
            "severe_pain": ("3", "-3"),
        },
        "heat_binary": {"no_pain": ("0",), "high_pain": ("3",)},
        "heat_three": {"no_pain": ("0",), "low_pain": ("1",), "high_pain": ("3",)},
        "heat_four": {"no_pain": ("0",), "mild_pain": ("1",), "moderate_pain": ("2",), "severe_pain": ("3",)},
        "electrical_binary": {"no_pain": ("0",), "high_pain": ("-3",)},
        "electrical_three": {"no_pain": ("0",), "low_pain": ("-1",), "high_pain": ("-3",)},
        "electrical_four": {"no_pain": ("0",), "mild_pain": ("-1",), "moderate_pain": ("-2",), "severe_pain": ("-3",)},
        "tonic_heat_binary": {"no_pain": ("0",), "high_pain": ("6",)},
        "tonic_heat_four": {"no_pain": ("0",), "mild_pain": ("4",), "moderate_pain": ("5",), "severe_pain": ("6",)},
        "tonic_electrical_binary": {"no_pain": ("0",), "high_pain": ("-6",)},
        "tonic_electrical_four": {
            "no_pain": ("0",),
            "mild_pain": ("-4",),
            "moderate_pain": ("-5",),
            "severe_pain": ("-6",),
        },
    },
)


class XITE(PainDataModule):
    """`<root>/{fvf,fvs}/<S006>/<segment>.mp4`, with labels in a table or in the file names.

    Labels are numbers: 1 to 3 phasic heat, -1 to -3 phasic electrical pain, 4 to 6 tonic heat, -4 to -6 tonic
    electrical pain, 0 no pain. How the original data set stores them is not public, so it can be configured.

    Args:
        root: the folder with fvf and fvs.
        options: labels, split, view. Label schemes that start with heat_, electrical_, tonic_heat_ or
            tonic_electrical_ use one kind of pain.
        view: "frontal" (fvf) or "side" (fvs).
        kind: "phasic", "tonic" or "all"; each includes clips without pain.
        labels_csv: a table with the columns segment and label; None is `<root>/labels.csv`. A segment is the video's
            name without suffix, or <subject>/<name>.
        pattern: instead of a table: a regular expression for a video's path relative to fvf or fvs, with the named
            groups `subject` and `label`.

    Raises:
        PainseqError: an invalid pattern, or both a pattern and a table.
    """

    name = "xite"
    facts = FACTS

    def __init__(
        self,
        root: Path,
        options: DataOptions = DataOptions(),
        view: Literal["frontal", "side"] = "frontal",
        kind: Literal["phasic", "tonic", "all"] = "phasic",
        labels_csv: Path | None = None,
        pattern: str | None = None,
    ) -> None:
        super().__init__(root, options)
        if labels_csv is not None and pattern is not None:
            raise PainseqError(
                "Labels are either in a table or in the file names: set labels_csv (--data.labels_csv) or pattern "
                "(--data.pattern), not both."
            )
        self.view = view
        self.kind = kind
        self.labels_csv = labels_csv
        self.pattern = None if pattern is None else compiled_pattern(pattern, "subject", "label")

    def read_manifest(self) -> Manifest:
        """List one clip per segment; segments without a label are left out, with a warning.

        Raises:
            PainseqError: no such folder, no videos in it, no labels, or none for these videos.
        """
        videos = self._videos()
        labels = self._labels(videos)
        unlabelled = [video for video, label in labels.items() if label is None]
        if len(unlabelled) == len(videos):
            raise PainseqError(
                f"{self._table()} has no label for any of the {len(videos)} videos, such as {videos[0]}. Its column "
                "segment must hold a video's name without suffix, or <subject>/<name>."
            )
        if unlabelled:
            log.warning(
                "%s: %d of %d segments are left out because they have no label in %s, such as %s.",
                self.name,
                len(unlabelled),
                len(videos),
                self._table().name,
                unlabelled[0],
            )
        excluded = {"phasic": TONIC, "tonic": PHASIC, "all": ()}[self.kind]
        clips = [
            Clip(
                clip_id=str(PurePosixPath(video).with_suffix("")),
                subject_id=self._subject(video),
                video=video,
                label=label,
                stimulus=_stimulus(label),
            )
            for video, label in labels.items()
            if label is not None and label not in excluded
        ]
        if not clips:
            raise PainseqError(f"{self.root / VIEWS[self.view]} has no clips of kind (--data.kind) {self.kind}.")
        return Manifest(self.name, self.root, tuple(clips))

    def label_problems(self) -> list[str]:
        """List segments without a label. Rows of the table without a video are accepted: a view may lack some."""
        return [
            f"{video}: no label in {self._table().name}"
            for video, label in self._labels(self._videos()).items()
            if label is None
        ]

    def _videos(self) -> list[str]:
        """List the videos, as paths relative to the root."""
        folder = self.root / VIEWS[self.view]
        if not folder.is_dir():
            raise PainseqError(
                f"No X-ITE videos at {folder}. root (--data.root) must be the folder with "
                f"{' and '.join(VIEWS.values())}; view (--data.view) selects one of them."
            )
        found = [path.relative_to(self.root).as_posix() for path in video_files(folder, "*/*")]
        if not found:
            raise PainseqError(f"{folder} has no <subject>/<segment>.mp4.")
        return found

    def _table(self) -> Path:
        return self.root / "labels.csv" if self.labels_csv is None else self.labels_csv

    def _labels(self, videos: list[str]) -> dict[str, str | None]:
        """Return video -> label, None if the table has none."""
        if self.pattern is not None:
            return {video: _normalised(self._match(video)["label"]) for video in videos}
        table = _read_table(self._table())
        stems = Counter(_names(video)[1] for video in videos)
        found: dict[str, str | None] = {}
        for video in videos:
            with_subject, stem = _names(video)
            if with_subject not in table and stem in table and stems[stem] > 1:
                raise PainseqError(
                    f"{self._table()}: segment {stem!r} matches {stems[stem]} videos, of several subjects. Prefix it "
                    f"with the subject, such as {with_subject}."
                )
            found[video] = table.get(with_subject, table.get(stem))
        return found

    def _subject(self, video: str) -> str:
        return video.split("/")[1] if self.pattern is None else self._match(video)["subject"]

    def _match(self, video: str) -> re.Match[str]:
        assert self.pattern is not None
        match = self.pattern.fullmatch(video.partition("/")[2])
        if match is None:
            raise PainseqError(
                f"{video} does not match pattern (--data.pattern) {self.pattern.pattern!r}, which is applied to the "
                f"path relative to {VIEWS[self.view]}. Adapt the pattern to your file names, or move other files out."
            )
        return match


def _names(video: str) -> tuple[str, str]:
    """Return the names of a video that a table may use: <subject>/<stem> and <stem>."""
    _, subject, file = video.split("/")
    stem = PurePosixPath(file).stem
    return f"{subject}/{stem}", stem


def _read_table(path: Path) -> dict[str, str]:
    """Read segment -> label from a table."""
    if not path.is_file():
        raise PainseqError(
            f"No labels at {path}. Set labels_csv (--data.labels_csv) to a table with the columns segment and label, "
            "or, if the file names contain the labels, set pattern (--data.pattern) to a regular expression with the "
            "groups subject and label."
        )
    table: dict[str, str] = {}
    columns, rows = read_table(path)
    if not {"segment", "label"} <= set(columns):
        raise PainseqError(
            f"{path} has the columns {shown(columns)}; it needs segment and label, separated by a comma."
        )
    for line, cells in rows:
        row = {**dict.fromkeys(columns, ""), **dict(zip(columns, cells, strict=False))}
        segment, label = row["segment"].strip(), row["label"].strip()
        if PurePosixPath(segment).suffix.lower() in VIDEO_SUFFIXES:
            segment = segment[: segment.rindex(".")]
        if not segment or not label:
            continue
        if table.setdefault(segment, _normalised(label)) != _normalised(label):
            raise PainseqError(
                f"{path}, line {line}: segment {segment!r} has the label {label} here and "
                f"{table[segment]} above. Keep one of the two."
            )
    return table


def _normalised(label: str) -> str:
    """Normalise "-1.0" and "-01" to "-1"; anything but a whole number is kept, and reported as an unknown label."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() else label


def _stimulus(label: str) -> str | None:
    if label == "0":
        return None
    return "electrical" if label.startswith("-") else "heat"
