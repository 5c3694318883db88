"""BioVid Heat Pain, Part A: 87 subjects, 100 clips each, heat."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts, Expected
from painseq.data.options import DataOptions
from painseq.errors import PainseqError, first_few
from painseq.records import Clip, Manifest, Part
from painseq.video import VIDEO_SUFFIXES

from .files import subfolders, video_files

SAMPLE = re.compile(r"(?P<subject>\d{6}_(?P<sex>[mw])_(?P<age>\d+))-(?P<label>[A-Za-z]+\d)-(?P<number>\d+)")
SEXES = {"m": "m", "w": "f"}
LABELS = ("BL1", "PA1", "PA2", "PA3", "PA4")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LOW_EXPRESSIVE = _names("""
    082315_w_60 082414_m_64 082909_m_47 083009_w_42 083013_w_47 083109_m_60 083114_w_55 091914_m_46 092009_m_54
    092014_m_56 092509_w_51 092714_m_64 100514_w_51 100914_m_39 101114_w_37 101209_w_61 101809_m_59 101916_m_40
    111313_m_64 120614_w_61
""")
"""The 20 subjects with little facial reaction, which many papers leave out."""

VALIDATION = _names("""
    071313_m_41 072514_m_27 080309_m_29 082315_w_60 083109_m_60 083114_w_55 091809_w_43 092813_w_24 100914_m_39
    101114_w_37 101309_m_48 101609_m_36 101814_m_58 101908_m_61 102214_w_36 102309_m_61 102316_w_50 112009_w_43
    112016_m_25 112209_m_51 112310_m_20 112610_w_60 112809_w_23 112909_w_20 112914_w_51 120514_w_56
""")
"""The 26 validation subjects of the hold-out split proposed by the data set's authors."""

TRAINING = _names("""
    071309_w_21 071614_m_20 071709_w_23 071814_w_23 071911_w_24 072414_m_23 072609_w_23 072714_m_23 073109_w_28
    073114_m_25 080209_w_26 080314_w_25 080609_w_27 080614_m_24 080709_m_24 080714_m_23 081014_w_27 081609_w_40
    081617_m_27 081714_m_36 082014_w_24 082109_m_53 082208_w_45 082414_m_64 082714_m_22 082809_m_26 082814_w_46
    082909_m_47 083009_w_42 083013_w_47 091814_m_37 091914_m_46 092009_m_54 092014_m_56 092509_w_51 092514_m_50
    092714_m_64 092808_m_51 100117_w_36 100214_m_50 100417_m_44 100509_w_43 100514_w_51 100909_w_65 101015_w_43
    101209_w_61 101216_m_40 101514_w_36 101809_m_59 101916_m_40 102008_w_22 102414_w_58 102514_w_40 110614_m_42
    110810_m_62 110909_m_29 111313_m_64 111409_w_63 111609_m_65 111914_w_63 120614_w_61
""")
"""The other 61 subjects."""

log = logging.getLogger("painseq")

FACTS = DataSetFacts(
    native=LABELS,
    schemes={
        "binary": {"no_pain": ("BL1",), "high_pain": ("PA4",)},
        "three": {"no_pain": ("BL1",), "low_pain": ("PA1",), "high_pain": ("PA4",)},
        "five": {
            "no_pain": ("BL1",),
            "mild_pain": ("PA1",),
            "moderate_pain": ("PA2",),
            "severe_pain": ("PA3",),
            "extreme_pain": ("PA4",),
        },
        "BL1_PA1": {"no_pain": ("BL1",), "mild_pain": ("PA1",)},
        "BL1_PA2": {"no_pain": ("BL1",), "moderate_pain": ("PA2",)},
        "BL1_PA3": {"no_pain": ("BL1",), "severe_pain": ("PA3",)},
        "BL1_PA4": {"no_pain": ("BL1",), "extreme_pain": ("PA4",)},
    },
    expected=Expected(
        subjects=87,
        videos=8700,
        clips_per_class=dict.fromkeys(LABELS, 20),
        fps=25.0,
        duration_s=5.5,
    ),
    published_as="BioVid",
)


class BioVid(PainDataModule):
    """BioVid's clips of 5.5 s at 25 fps, as videos or as one folder of images per clip.

    Videos are `<root>/PartA/video/<subject>/<subject>-<BL1|PA1..PA4>-<number>.mp4`. Images, derived from them by other
    tools, are `<root>/<class>/<subject>-<BL1|PA1..PA4>-<number>/img_00001.jpg` and so on, with or without the class
    folder. The label is always that of the clip's name; `<root>/samples.csv` or `<root>/PartA/samples.csv`, if present,
    must agree with the names.

    The official split is the hold-out split proposed by the data set's authors: 61 training and 26 validation subjects,
    no test subjects. Five of the 26 are low-expressive, so scores on 87 and on 67 subjects are not comparable.

    Args:
        root: the folder with `PartA`, or with the folders of images.
        options: labels, split, view.
        layout: "videos", "images", or "auto": the layout that is found.
        fps: images per second, if clips are folders of images; videos have their own timestamps.
        subjects: "all"; "without_low_expressive" leaves out the 20 in `LOW_EXPRESSIVE`, "only_low_expressive" uses
            only them. They were selected by how well their pain was recognised, so a score without them is too
            optimistic for new patients: always report it together with the score on all 87.

    Raises:
        PainseqError: `fps` is not above 0.
    """

    name = "biovid"
    facts = FACTS

    def __init__(
        self,
        root: Path,
        options: DataOptions = DataOptions(),
        layout: Literal["auto", "videos", "images"] = "auto",
        fps: float = 25.0,
        subjects: Literal["all", "without_low_expressive", "only_low_expressive"] = "all",
    ) -> None:
        super().__init__(root, options)
        if not (math.isfinite(fps) and fps > 0):
            raise PainseqError(f"fps (--data.fps) is {fps}; it must be more than 0.")
        self.layout = layout
        self.fps = float(fps)
        self.subjects = subjects

    def label_problems(self) -> list[str]:
        """List clips whose label in samples.csv, or whose class folder, disagrees with their name."""
        problems = [] if self.layout == "videos" else disagreeing_folders(self.root, image_folders(self.root))
        table = samples_csv(self.root)
        if table is not None:
            problems += [f"{table.relative_to(self.root)}: {line}" for line in disagreeing_rows(read_samples(table))]
        return problems

    def read_manifest(self) -> Manifest:
        """List one clip per video or folder of images; sex and age are read from the subject's name.

        Raises:
            PainseqError: no clips, both layouts at once, a name that does not follow BioVid's scheme, labels that
                disagree, or no clip of the requested `subjects`.
        """
        paths = self._found()
        problems = self.label_problems()
        if problems:
            more = [f"and {len(problems) - 5} more"] if len(problems) > 5 else []
            lines = "\n  ".join([*problems[:5], *more])
            raise PainseqError(
                f"BioVid's labels disagree ({len(problems)} times):\n  {lines}\nCorrect them from the original data "
                "set. A wrong table can be deleted: the names contain all that is needed."
            )
        clips = [self._clip(path) for path in paths]
        self._warn_of_differences({clip.clip_id for clip in clips})
        parts = self._official_parts({clip.subject_id for clip in clips})
        chosen = (replace(clip, part=parts.get(clip.subject_id)) for clip in self._chosen(clips))
        return Manifest(self.name, self.root, tuple(chosen))

    def _found(self) -> list[Path]:
        videos = [] if self.layout == "images" else video_files(self.root, "PartA/video/*/*")
        folders = [] if self.layout == "videos" else image_folders(self.root)
        if videos and folders:
            raise PainseqError(
                f"{self.root} has both videos (in PartA/video) and folders of images, such as "
                f"{folders[0].relative_to(self.root)}. Set layout (--data.layout) to videos or images."
            )
        if not videos and not folders:
            paths = {"videos": "PartA/video/<subject>/<sample>.mp4", "images": "<class>/<sample>/img_00001.jpg"}
            missing = [paths[layout] for layout in paths if self.layout in ("auto", layout)]
            raise PainseqError(
                f"No BioVid clips at {self.root}: no {' and no '.join(missing)}. root (--data.root) must be the folder "
                "with PartA, or the one with the folders of images."
            )
        return videos or folders

    def _clip(self, path: Path) -> Clip:
        relative, is_video = path.relative_to(self.root), path.suffix.lower() in VIDEO_SUFFIXES
        name = path.stem if is_video else path.name
        match = SAMPLE.fullmatch(name)
        if is_video and (match is None or match["subject"] != path.parent.name):
            raise PainseqError(
                f"{relative} does not follow BioVid's naming: expected {path.parent.name}-<BL1|PA1..PA4>-<number>.mp4. "
                "Move other files out of PartA/video."
            )
        if match is None:
            raise PainseqError(
                f"{relative} does not follow BioVid's naming: expected <subject>-<BL1|PA1..PA4>-<number>. Move other "
                "folders elsewhere."
            )
        return Clip(
            clip_id=name,
            subject_id=match["subject"],
            video=relative.as_posix(),
            label=match["label"],
            fps=None if is_video else self.fps,
            stimulus="heat",
            sex=SEXES[match["sex"]],
            age=int(match["age"]),
        )

    def _warn_of_differences(self, found: set[str]) -> None:
        """Warn of clips that are only in samples.csv, or only on disk."""
        table = samples_csv(self.root)
        if table is None:
            return
        listed = {row["sample_name"] for row in read_samples(table)}
        table_path = table.relative_to(self.root)
        for problem, ids in (
            (f"clips listed in {table_path} do not exist", listed - found),
            (f"clips on disk are not listed in {table_path}", found - listed),
        ):
            if ids:
                log.warning("%s: %d %s, such as %s.", self.name, len(ids), problem, min(ids))

    def _official_parts(self, subjects: set[str]) -> dict[str, Part]:
        """Return subject -> part; empty if some of the subjects are not BioVid's."""
        unknown = subjects - TRAINING - VALIDATION
        if unknown and unknown != subjects:
            log.warning(
                "%s: %d of %d subjects, such as %s, are not among BioVid's 87, so there is no official split.",
                self.name,
                len(unknown),
                len(subjects),
                min(unknown),
            )
        if unknown:
            return {}
        return {subject: "validation" if subject in VALIDATION else "train" for subject in subjects}

    def _chosen(self, clips: list[Clip]) -> list[Clip]:
        """Return the clips of the requested subjects."""
        if self.subjects == "all":
            return clips
        low = self.subjects == "only_low_expressive"
        chosen = [clip for clip in clips if (clip.subject_id in LOW_EXPRESSIVE) == low]
        num_all, num_chosen = (len({clip.subject_id for clip in ids}) for ids in (clips, chosen))
        if not chosen:
            raise PainseqError(
                f"subjects (--data.subjects) {self.subjects} leaves none of the {num_all} subjects found."
            )
        log.warning(
            "%s: %d of %d subjects are used (%s). They were selected by how well their pain was recognised, so always "
            "report the score on all subjects (87 in the whole data set, not 67) together with this one.",
            self.name,
            num_chosen,
            num_all,
            self.subjects,
        )
        return chosen


def image_folders(root: Path) -> list[Path]:
    """List the clips of the image layout: folders named like samples, in the root or its subfolders.

    Folders next to such folders in a subfolder are included."""
    found: list[Path] = []
    for folder in subfolders(root):
        inner = [] if SAMPLE.fullmatch(folder.name) else subfolders(folder)
        if SAMPLE.fullmatch(folder.name):
            found.append(folder)
        elif any(SAMPLE.fullmatch(path.name) for path in inner):
            found += inner
    return found


def disagreeing_folders(root: Path, clips: Iterable[Path]) -> list[str]:
    """List clips in the folder of another class than their name says; folders with other names are ignored."""
    problems = []
    for clip in clips:
        match, folder = SAMPLE.fullmatch(clip.name), clip.parent.name
        if match is not None and folder in LABELS and folder != match["label"]:
            problems.append(f"{clip.relative_to(root)} is in {folder}, but its name says {match['label']}")
    return problems


def samples_csv(root: Path) -> Path | None:
    """Find the data set's table of clips; None if there is none."""
    return next((path for path in (root / "samples.csv", root / "PartA" / "samples.csv") if path.is_file()), None)


def read_samples(path: Path) -> list[dict[str, str]]:
    """Read the rows of samples.csv, tab-separated; spaces around names and cells are removed.

    Raises:
        PainseqError: it has no column sample_name.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file, delimiter="\t")]
    header = lines[0] if lines else []
    if "sample_name" not in header:
        raise PainseqError(
            f"{path} has no column sample_name; its columns: {first_few(header) or 'none'}. BioVid's table is "
            "tab-separated: subject_id, subject_name, class_id, class_name, sample_id, sample_name."
        )
    rows = [dict(zip(header, line, strict=False)) for line in lines[1:]]
    return [row for row in rows if row.get("sample_name")]


def disagreeing_rows(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """List rows of samples.csv whose class or subject disagrees with the sample's name; empty cells are ignored."""
    problems = []
    for row in rows:
        match = SAMPLE.fullmatch(row["sample_name"])
        if match is None:
            continue
        number = str(LABELS.index(match["label"])) if match["label"] in LABELS else ""
        for column, expected in (
            ("class_name", match["label"]),
            ("class_id", number),
            ("subject_name", match["subject"]),
        ):
            if row.get(column) and expected and row[column] != expected:
                problems.append(f"{row['sample_name']} has {column} {row[column]}, its name says {expected}")
    return problems
