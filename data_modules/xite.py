"""X-ITE: heat and electrical pain, phasic and tonic, seen from the front and from the side."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest, csv_text

from .files import mp4_files
from .pattern import compiled_pattern

log = logging.getLogger("painseq")

VIEWS = {"frontal": "fvf", "side": "fvs"}
TONIC = ("4", "5", "6", "-4", "-5", "-6")
PHASIC = ("1", "2", "3", "-1", "-2", "-3")

FACTS = DataSetFacts(
    native=("0", "1", "2", "3", "4", "5", "6", "-1", "-2", "-3", "-4", "-5", "-6"),
    # Without a stimulus in its name a scheme takes both kinds of phasic pain.
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
    """`<root>/{fvf,fvs}/<S006>/<segment>.mp4`, with the labels in a table or in the names.

    Labels are numbers: 1 to 3 phasic heat, -1 to -3 phasic electrical pain, 4 to 6 tonic heat, -4 to -6 tonic
    electrical pain, 0 no pain. Where they stand in the real set is not public, so it can be chosen.

    Args:
        root: the folder that holds fvf and fvs.
        options: labels, split, view. Label schemes that begin with heat_, electrical_, tonic_heat_ or
            tonic_electrical_ take one kind of pain.
        view: "frontal" (fvf) or "side" (fvs).
        kind: "phasic", "tonic" or "all"; clips without pain belong to each.
        labels_csv: a table with the columns segment and label; None is `<root>/labels.csv`. A segment is the video's
            name without suffix, or <subject>/<name>.
        pattern: instead of a table: a regular expression on a video's path below fvf or fvs, with the named groups
            `subject` and `label`.

    Raises:
        PainseqError: a pattern that cannot work, or one beside a table.
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
            raise PainseqError("Labels stand in a table or in the names: give --data.labels_csv or --data.pattern.")
        self.view = view
        self.kind = kind
        self.labels_csv = labels_csv
        self.pattern = None if pattern is None else compiled_pattern(pattern, "subject", "label")

    def read_manifest(self) -> Manifest:
        """One clip a segment; segments without a label are left out, and counted.

        Raises:
            PainseqError: no such folder, no video in it, no labels, or none for these videos.
        """
        videos = self._videos()
        labels = self._labels(videos)
        unlabelled = [video for video, label in labels.items() if label is None]
        if len(unlabelled) == len(videos):
            raise PainseqError(
                f"{self._table()} has a label for none of the {len(videos)} videos, such as {videos[0]}. Its column "
                "segment holds a video's name without suffix, or <subject>/<name>."
            )
        if unlabelled:
            log.warning(
                "%s: %d of %d segments left out, which have no label in %s, such as %s.",
                self.name,
                len(unlabelled),
                len(videos),
                self._table().name,
                unlabelled[0],
            )
        not_wanted = {"phasic": TONIC, "tonic": PHASIC, "all": ()}[self.kind]
        clips = [
            Clip(
                clip_id=str(PurePosixPath(video).with_suffix("")),
                subject_id=self._subject(video),
                video=video,
                label=label,
                stimulus=_stimulus(label),
            )
            for video, label in labels.items()
            if label is not None and label not in not_wanted
        ]
        if not clips:
            raise PainseqError(f"{self.root / VIEWS[self.view]} holds no clip of --data.kind {self.kind}.")
        return Manifest(self.name, self.root, tuple(clips))

    def label_problems(self) -> list[str]:
        """Segments without a label. Rows of the table without a segment are none: a view may lack some."""
        return [
            f"{video}: no label in {self._table().name}"
            for video, label in self._labels(self._videos()).items()
            if label is None
        ]

    def _videos(self) -> list[str]:
        """Paths relative to the root."""
        folder = self.root / VIEWS[self.view]
        if not folder.is_dir():
            raise PainseqError(
                f"No X-ITE videos at {folder}. --data.root is the folder that holds {' and '.join(VIEWS.values())}; "
                "--data.view chooses between them."
            )
        found = [path.relative_to(self.root).as_posix() for path in mp4_files(folder, "*/*")]
        if not found:
            raise PainseqError(f"{folder} holds no <subject>/<segment>.mp4.")
        return found

    def _table(self) -> Path:
        return self.root / "labels.csv" if self.labels_csv is None else self.labels_csv

    def _labels(self, videos: list[str]) -> dict[str, str | None]:
        """Video -> label, None where the table has none."""
        if self.pattern is not None:
            return {video: _written(self._match(video)["label"]) for video in videos}
        table = _read_table(self._table())
        stems = Counter(_names(video)[1] for video in videos)
        found: dict[str, str | None] = {}
        for video in videos:
            with_subject, stem = _names(video)
            if with_subject not in table and stem in table and stems[stem] > 1:
                raise PainseqError(
                    f"{self._table()}: segment {stem!r} stands for {stems[stem]} videos, of several subjects. "
                    f"Write the subject before it, as {with_subject}."
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
                f"{video} does not match --data.pattern {self.pattern.pattern!r}, which is compared with the path "
                f"below {VIEWS[self.view]}. Set the pattern to your copy's file names, or move other files away."
            )
        return match


def _names(video: str) -> tuple[str, str]:
    """What a table may call a video: <subject>/<stem> and <stem>."""
    _, subject, file = video.split("/")
    stem = PurePosixPath(file).stem
    return f"{subject}/{stem}", stem


def _read_table(path: Path) -> dict[str, str]:
    """Segment -> label."""
    if not path.is_file():
        raise PainseqError(
            f"No labels at {path}. Give --data.labels_csv a table with the columns segment and label, or, if the names "
            "of the videos tell the labels, --data.pattern a regular expression with the groups subject and label."
        )
    table: dict[str, str] = {}
    reader = csv.DictReader(csv_text(path))
    reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
    if not {"segment", "label"} <= set(reader.fieldnames):
        raise PainseqError(
            f"{path} has the columns {', '.join(reader.fieldnames) or 'none'}; it needs segment and label, parted by a "
            "comma."
        )
    for row in reader:
        segment, label = re.sub(r"(?i)\.mp4$", "", (row["segment"] or "").strip()), (row["label"] or "").strip()
        if not segment or not label:
            continue
        if table.setdefault(segment, _written(label)) != _written(label):
            raise PainseqError(
                f"{path}, line {reader.line_num}: segment {segment!r} has the label {label} here and "
                f"{table[segment]} above. Leave one of the two."
            )
    return table


def _written(label: str) -> str:
    """-1 for "-1.0" and "-01"; what is no whole number stays, to be told as an unknown label."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() else label


def _stimulus(label: str) -> str | None:
    if label == "0":
        return None
    return "electrical" if label.startswith("-") else "heat"
