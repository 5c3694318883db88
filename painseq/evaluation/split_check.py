"""Who and what is on both sides of a split: of a split file, of any table of clips, of predictions.

Whoever wrote the table: a CSV with a column of subjects and one of parts or folds is enough.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from painseq.errors import PainseqError
from painseq.records import plain_name
from painseq.runs import OnProgress, no_progress
from painseq.video import video_digest

SUBJECT_COLUMNS = ("subject_id", "subject", "subject_name", "participant_id", "participant", "patient_id", "patient")
PART_COLUMNS = ("part", "split", "partition", "subset", "set")
FOLD_COLUMNS = ("fold", "fold_id", "cv_fold")
CLIP_COLUMNS = ("clip_id", "clip", "item", "sample", "sample_id")
VIDEO_COLUMNS = ("video", "video_path", "path", "filepath", "file_path", "file", "filename", "file_name")
"""What columns are called, by capitals or without; the first that a table has is taken."""

SCORED = "scored"
"""The part of a predictions file."""

_FRAME = re.compile(r"@\d+(\.\d+)?$")
"""The end of the name of a single frame of a clip, as `painseq` writes it."""


@dataclass(frozen=True)
class Member:
    """Somebody, or a clip of somebody, in a part of a split.

    Args:
        part: "train", "test", "3", ...
        subject: as it is written.
        clip: name of the clip, or of a single frame.
        video: path of its video.
        fold: parts of different folds are not compared; empty where there is one division only.
    """

    part: str
    subject: str
    clip: str = ""
    video: str = ""
    fold: str = ""


@dataclass(frozen=True)
class SplitFinding:
    """Something on both sides.

    Args:
        severity: a "leak", or "suspicious": to be looked at by a person.
        text: what the cases have in common.
        items: each case.
    """

    severity: Literal["leak", "suspicious"]
    text: str
    items: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {"severity": self.severity, "text": self.text, "items": list(self.items)}


# ---- reading ----


@dataclass(frozen=True)
class ClipTable:
    """A file as it was read.

    Args:
        kind: a "split" names subjects only; a "table" has parts; "predictions" have been scored; "parts unknown" is a
            table without parts.
        columns: which of its columns were read, by what for.
        marks: what it says of itself: that it is LEAKY.
    """

    path: Path
    kind: Literal["split", "table", "predictions", "parts unknown"]
    members: tuple[Member, ...]
    columns: Mapping[str, str]
    marks: tuple[SplitFinding, ...] = ()


def read_table(path: Path, subject_column: str | None = None, part_column: str | None = None) -> ClipTable:
    """Read a split file (JSON: part -> subjects; or `folds`, a list of such), or a CSV of clips with subjects.

    Rows with an empty part are in none. A CSV without parts but with labels or probabilities, and without videos, is
    taken for predictions.

    Args:
        subject_column: its column of subjects; None: the first of `SUBJECT_COLUMNS` that it has.
        part_column: its column of parts; None: the first of `PART_COLUMNS`. Where it has one of `FOLD_COLUMNS` too,
            parts are compared within a fold; where it has no other, each fold is a part.

    Raises:
        PainseqError: no such file; neither a split nor a table; a column that is not there; a row without a subject.
    """
    if not path.is_file():
        raise PainseqError(f"No file at {path}.")
    if path.suffix.lower() == ".json":
        return ClipTable(path, "split", _read_split(path), {})
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PainseqError(f"{path} cannot be read as CSV: {error}.") from error
    if not rows:
        raise PainseqError(f"{path} has no row below its heads, so there is nothing to check.")
    heads = [str(head) for head in rows[0] if head is not None]
    columns = _columns(path, heads, subject_column, part_column)
    members = []
    for line, row in enumerate(rows, start=2):
        cells = {what: (row.get(column) or "").strip() for what, column in columns.items()}
        if not cells["subject"]:
            raise PainseqError(f"{path}, row {line}: column {columns['subject']!r} is empty. Whose clip is it?")
        part = cells.pop("part", "").casefold()
        if part or "part" not in columns:
            members.append(Member(part, **cells))
    if "part" in columns:
        return ClipTable(path, "table", tuple(members), columns)
    said = any(head == "label" or head.startswith("prob_") for head in heads)
    if said and "video" not in columns:
        scored = tuple(replace(member, part=SCORED) for member in members)
        marked = sum(any("LEAKY" in cell for cell in row.values() if isinstance(cell, str)) for row in rows)
        told = "people who were trained on are scored here, as the file itself says"
        marks = _findings("leak", told, [f"{marked} rows are marked LEAKY"] if marked else [])
        return ClipTable(path, "predictions", scored, columns, tuple(marks))
    return ClipTable(path, "parts unknown", tuple(members), columns)


def _columns(path: Path, heads: Sequence[str], subject_column: str | None, part_column: str | None) -> dict[str, str]:
    for option, given in (("subject_column", subject_column), ("part_column", part_column)):
        if given is not None and given not in heads:
            raise PainseqError(f"{path} has no column {given!r} ({option}). Its columns: {', '.join(heads)}.")

    def guess(names: Sequence[str]) -> str | None:
        by_name = {head.strip().casefold(): head for head in heads}
        return next((by_name[name] for name in names if name in by_name), None)

    subject, part = subject_column or guess(SUBJECT_COLUMNS), part_column or guess(PART_COLUMNS)
    if subject is None:
        raise PainseqError(
            f"{path}: no column of subjects is known by its name. Name it: subject_column (command line: "
            f"--subject-column). Its columns: {', '.join(heads)}."
        )
    fold = guess(FOLD_COLUMNS)
    if part is None:
        part, fold = fold, None
    found = {"subject": subject, "part": part, "fold": fold, "clip": guess(CLIP_COLUMNS), "video": guess(VIDEO_COLUMNS)}
    return {what: column for what, column in found.items() if column is not None and (what == "part" or column != part)}


def _read_split(path: Path) -> tuple[Member, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read as a split: {error}.") from error
    folds = content.get("folds") if isinstance(content, dict) else None
    if isinstance(folds, list) and folds and all(isinstance(fold, dict) for fold in folds):
        # As `painseq crossval` writes who is in which part of which fold.
        numbered = [(str(number), _lists(path, fold)) for number, fold in enumerate(folds)]
    else:
        numbered = [("", _lists(path, content))]
    return tuple(
        Member(part.casefold(), str(name), fold=fold)
        for fold, lists in numbered
        for part, names in lists.items()
        for name in names
    )


def _lists(path: Path, content: object) -> dict[str, list[str | int]]:
    """Part -> subjects; whatever else stands beside is passed over."""
    lists = {
        part: names
        for part, names in (content.items() if isinstance(content, dict) else ())
        if isinstance(names, list) and all(isinstance(name, str | int) for name in names)
    }
    if len(lists) < 2:
        raise PainseqError(
            f"{path} is no split: it needs a list of subjects for each of two parts or more, such as "
            '{"train": ["S01"], "test": ["S02"]}.'
        )
    return lists


def joined(tables: Sequence[ClipTable], split: ClipTable | None = None) -> tuple[Member, ...]:
    """Tables without parts as one division: by a split, or each table as a part that is called by its file's name.

    Subjects whom the split does not name are in no part.

    Raises:
        PainseqError: one table alone without a split; `split` is none.
    """
    if split is not None:
        if split.kind != "split":
            raise PainseqError(f"{split.path} is no split file (JSON: part -> subjects).")
        parts: dict[str, list[str]] = defaultdict(list)
        for member in split.members:
            parts[plain_name(member.subject)].append(member.part)
        members = (member for table in tables for member in table.members)
        return tuple(replace(member, part=part) for member in members for part in parts[plain_name(member.subject)])
    if len(tables) == 1:
        raise PainseqError(
            f"{tables[0].path} has no column of parts or folds that is known by its name. Name it: part_column "
            "(command line: --part-column); or give the split that it belongs to."
        )
    names = [table.path.stem.casefold() for table in tables]
    if len(set(names)) < len(names):
        names = [str(table.path) for table in tables]
    return tuple(
        replace(member, part=name) for table, name in zip(tables, names, strict=True) for member in table.members
    )


# ---- checking ----


def check_seen(scored: Sequence[Member], seen: Sequence[str], who: str) -> list[SplitFinding]:
    """Subjects who are scored although a model had seen them, and those with almost the same name.

    Args:
        seen: subjects.
        who: has seen them, and how, as the beginning of a sentence: "best.ckpt was fitted on".
    """
    members = [*scored, *(Member("seen", subject) for subject in seen)]
    both = _in_several(members, lambda member: plain_name(member.subject), lambda member: member.subject)
    return [
        *_findings("leak", f"{who} subjects who are scored", [item.rpartition(" (")[0] for item in both]),
        *_findings("suspicious", f"{who} subjects with almost the name of one who is scored", _alike(members)),
    ]


def check_members(members: Sequence[Member]) -> list[SplitFinding]:
    """Subjects, clips and videos in more than one part, and subjects whose names are almost the same."""
    subjects = _in_several(members, lambda member: plain_name(member.subject), lambda member: member.subject)
    frames = [member for member in members if _FRAME.search(member.clip)]
    return [
        *_findings("leak", "subjects in several parts", subjects),
        *_findings("suspicious", "names of subjects in several parts that may be one person's", _alike(members)),
        *_findings("leak", "clips in several parts", _in_several(members, _plain_clip, lambda member: member.clip)),
        *_findings("leak", "clips with single frames in several parts", _in_several(frames, _clip_of, _clip_of)),
        *_findings("leak", "videos in several parts", _in_several(members, _plain_video, lambda member: member.video)),
    ]


def check_contents(members: Sequence[Member], root: Path, on_progress: OnProgress = no_progress) -> list[SplitFinding]:
    """The same video under several names: in several parts, or of several subjects.

    Args:
        root: what the paths of the videos are relative to.
        on_progress: called with the number of videos read, and of all.

    Raises:
        PainseqError: no paths, or a video that is not there.
    """
    videos = sorted({member.video for member in members if member.video})
    if not videos:
        raise PainseqError("root is given to compare videos, but no file names any: a column video is needed.")
    digests = {}
    for done, video in enumerate(videos):
        on_progress(done, len(videos))
        digests[video] = video_digest(root / video)
    on_progress(len(videos), len(videos))
    with_video = [member for member in members if member.video]
    names = defaultdict(set)
    for member in with_video:
        names[digests[member.video]].add(member.video)
    # One name in several parts is told by `check_members`.
    copied = [member for member in with_video if len(names[digests[member.video]]) > 1]

    def shown(member: Member) -> str:
        return " = ".join(sorted(names[digests[member.video]]))

    owners = defaultdict(set)
    for member in copied:
        owners[digests[member.video]].add(member.subject)
    several = sorted(
        f"{' = '.join(sorted(names[digest]))} ({', '.join(sorted(who))})"
        for digest, who in owners.items()
        if len({plain_name(subject) for subject in who}) > 1
    )
    parted = _in_several(copied, lambda member: digests[member.video], shown)
    return [
        *_findings("leak", "videos with the same content in several parts", parted),
        *_findings("suspicious", "videos with the same content under several subjects", several),
    ]


def _in_several(members: Iterable[Member], key: Callable[[Member], str], shown: Callable[[Member], str]) -> list[str]:
    """Whatever has the same key in several parts of one fold, with its spellings and parts."""
    parts: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for member in members:
        if key(member):
            parts[member.fold, key(member)][shown(member)].add(member.part)
    found = []
    for (fold, _), spellings in sorted(parts.items()):
        of_all = sorted(set().union(*spellings.values()))
        if len(of_all) > 1:
            where = ", ".join(of_all) + (f"; fold {fold}" if fold else "")
            found.append(f"{' = '.join(sorted(spellings))} ({where})")
    return found


def _alike(members: Iterable[Member]) -> list[str]:
    """Subjects of different parts whose names differ in signs or idle zeros alone: S1 and s-01, 1 and 1.0."""
    by_key: dict[tuple[str, str], dict[str, Member]] = defaultdict(dict)
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for member in members:
        plain = plain_name(member.subject)
        by_key[member.fold, _loose(plain)].setdefault(plain, member)
        parts[member.fold, plain].add(member.part)
    found = []
    for (fold, _), names in sorted(by_key.items()):
        for one, other in combinations(sorted(names), 2):
            of_one, of_other = parts[fold, one], parts[fold, other]
            if len(of_one | of_other) > 1:
                where = f"{', '.join(sorted(of_one))} and {', '.join(sorted(of_other))}"
                found.append(
                    f"{names[one].subject} and {names[other].subject} ({where}{f'; fold {fold}' if fold else ''})"
                )
    return found


def _loose(plain: str) -> str:
    # A column of numbers with an empty cell makes 1.0 of 1 in many programs.
    plain = re.sub(r"^(\d+)\.0$", r"\1", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(sign for sign in plain if sign.isalnum()))


def _plain_clip(member: Member) -> str:
    return plain_name(member.clip)


def _plain_video(member: Member) -> str:
    return member.video.replace("\\", "/").removeprefix("./")


def _clip_of(member: Member) -> str:
    return _FRAME.sub("", member.clip)


def _findings(severity: Literal["leak", "suspicious"], text: str, items: Sequence[str]) -> list[SplitFinding]:
    return [SplitFinding(severity, text, tuple(items))] if items else []
