"""Leak check of split files, tables of clips and predictions: subjects, clips and videos in several parts.

Tables of other programs work too: a CSV with a column of subjects and a column of parts or folds is enough.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from painseq import tables
from painseq.errors import PainseqError, first_few
from painseq.files import parse_json
from painseq.records import loose_name, plain_name
from painseq.runs import OnProgress, no_progress
from painseq.video import SHORT_DIGEST, video_digest

SUBJECT_COLUMNS = ("subject_id", "subject", "subject_name", "participant_id", "participant", "patient_id", "patient")
PART_COLUMNS = ("part", "split", "partition", "subset", "set")
FOLD_COLUMNS = ("fold", "fold_id", "cv_fold")
CLIP_COLUMNS = ("clip_id", "clip", "item", "sample", "sample_id")
VIDEO_COLUMNS = ("video", "video_path", "path", "filepath", "file_path", "file", "filename", "file_name")
"""Known column names, in any case; the first one in a table is used."""

SCORED = "scored"
"""The part of all clips of a predictions file."""

_FRAME = re.compile(r"@\d+(\.\d+)?$")
"""Suffix of the id of a single frame of a clip, as painseq writes it."""


@dataclass(frozen=True)
class Member:
    """A subject, or a clip of a subject, in a part of a split.

    Args:
        part: "train", "test", "3", ...
        subject: subject id, as written in the file.
        clip: id of the clip, or of a single frame; empty if not known.
        video: path of its video; empty if not known.
        fold: parts of different folds are not compared; empty without folds.
    """

    part: str
    subject: str
    clip: str = ""
    video: str = ""
    fold: str = ""


@dataclass(frozen=True)
class SplitFinding:
    """Subjects, clips or videos that are in several parts.

    Args:
        severity: "leak", or "suspicious" if a person must decide.
        text: description of all cases.
        items: the cases.
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
    """The content of a split file, a table of clips or a predictions file.

    Args:
        path: the file.
        kind: "split" names subjects only; "table" has parts; "predictions" has scored clips; "parts unknown" is a
            table without parts.
        members: subjects and clips with their parts.
        columns: purpose ("subject", "part", ...) -> name of the column that was read.
        marks: findings from LEAKY marks in the file.
    """

    path: Path
    kind: Literal["split", "table", "predictions", "parts unknown"]
    members: tuple[Member, ...]
    columns: Mapping[str, str]
    marks: tuple[SplitFinding, ...] = ()


def read_table(path: Path, subject_column: str | None = None, part_column: str | None = None) -> ClipTable:
    """Read a split file (JSON: part -> subjects, or `folds`, a list of these), or a CSV of clips with subjects.

    Rows with an empty part are ignored. A CSV without parts and videos but with labels or probabilities is read as
    predictions.

    Args:
        path: the file.
        subject_column: name of the column of subjects; None: the first of `SUBJECT_COLUMNS` in the file.
        part_column: name of the column of parts; None: the first of `PART_COLUMNS` in the file. With one of
            `FOLD_COLUMNS` too, parts are compared within a fold; without a column of parts, each fold is a part.

    Raises:
        PainseqError: no such file, neither a split nor a table, a missing column, or a row without a subject.
    """
    if not path.is_file():
        raise PainseqError(f"No file at {path}.")
    if path.suffix.lower() == ".json":
        return ClipTable(path, "split", _read_split(path), {})
    header, lines = tables.read_table(path)
    rows = [(line, dict(zip(header, cells, strict=False))) for line, cells in lines]
    if not rows:
        raise PainseqError(f"{path} has no rows below its header, so there is nothing to check.")
    columns = _columns(path, header, subject_column, part_column)
    members = []
    for line, row in rows:
        cells = {purpose: row.get(column, "").strip() for purpose, column in columns.items()}
        if not cells["subject"]:
            raise PainseqError(f"{path}, row {line}: column {columns['subject']!r} is empty. Fill in the subject.")
        part = cells.pop("part", "").casefold()
        if part or "part" not in columns:
            members.append(Member(part, **cells))
    if "part" in columns:
        return ClipTable(path, "table", tuple(members), columns)
    has_predictions = any(name == "label" or name.startswith("prob_") for name in header)
    if has_predictions and "video" not in columns:
        scored = tuple(replace(member, part=SCORED) for member in members)
        marked = sum(any("LEAKY" in cell for cell in row.values()) for _, row in rows)
        text = "training subjects are scored, according to marks in the file"
        marks = _findings("leak", text, [f"{marked} rows are marked LEAKY"] if marked else [])
        return ClipTable(path, "predictions", scored, columns, tuple(marks))
    return ClipTable(path, "parts unknown", tuple(members), columns)


def _columns(path: Path, header: Sequence[str], subject_column: str | None, part_column: str | None) -> dict[str, str]:
    for option, given in (("subject_column", subject_column), ("part_column", part_column)):
        if given is not None and given not in header:
            raise PainseqError(f"{path} has no column {given!r} ({option}). Its columns: {first_few(header)}.")

    def guess(names: Sequence[str]) -> str | None:
        by_name = {column.strip().casefold(): column for column in header}
        return next((by_name[name] for name in names if name in by_name), None)

    subject, part = subject_column or guess(SUBJECT_COLUMNS), part_column or guess(PART_COLUMNS)
    if subject is None:
        raise PainseqError(
            f"{path}: no column has a known name for subjects. Name the column: subject_column (command line: "
            f"--subject-column). Its columns: {first_few(header)}."
        )
    fold = guess(FOLD_COLUMNS)
    if part is None:
        part, fold = fold, None
    found = {"subject": subject, "part": part, "fold": fold, "clip": guess(CLIP_COLUMNS), "video": guess(VIDEO_COLUMNS)}
    return {
        purpose: column
        for purpose, column in found.items()
        if column is not None and (purpose == "part" or column != part)
    }


def _read_split(path: Path) -> tuple[Member, ...]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PainseqError(f"{path} cannot be read as a split: {error}.") from error
    folds = content.get("folds") if isinstance(content, dict) else None
    if isinstance(folds, list) and folds and all(isinstance(fold, dict) for fold in folds):
        # The format of `painseq crossval`.
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
    """Part -> subjects; other entries are ignored."""
    lists = {
        part: names
        for part, names in (content.items() if isinstance(content, dict) else ())
        if isinstance(names, list) and all(isinstance(name, str | int) for name in names)
    }
    if len(lists) < 2:
        raise PainseqError(
            f"{path} is not a split: it needs a list of subjects for each of two or more parts, such as "
            '{"train": ["S01"], "test": ["S02"]}.'
        )
    return lists


def joined(tables: Sequence[ClipTable], split: ClipTable | None = None) -> tuple[Member, ...]:
    """Join tables without parts: assign parts by a split, or make each table a part named after its file.

    Subjects that are not in the split are left out.

    Args:
        tables: tables of kind "parts unknown".
        split: a table of kind "split".

    Raises:
        PainseqError: a single table without a split, or `split` is not a split.
    """
    if split is not None:
        if split.kind != "split":
            raise PainseqError(f"{split.path} is not a split file (JSON: part -> subjects).")
        parts: dict[str, list[str]] = defaultdict(list)
        for member in split.members:
            parts[plain_name(member.subject)].append(member.part)
        members = (member for table in tables for member in table.members)
        return tuple(replace(member, part=part) for member in members for part in parts[plain_name(member.subject)])
    if len(tables) == 1:
        raise PainseqError(
            f"{tables[0].path}: no column has a known name for parts or folds. Name the column: part_column "
            "(command line: --part-column), or give the split that the file belongs to."
        )
    names = [table.path.stem.casefold() for table in tables]
    if len(set(names)) < len(names):
        names = [str(table.path) for table in tables]
    return tuple(
        replace(member, part=name) for table, name in zip(tables, names, strict=True) for member in table.members
    )


# ---- checking ----


def check_seen(scored: Sequence[Member], seen: Sequence[str], model: str) -> list[SplitFinding]:
    """Find scored subjects that a model has seen, and scored subjects with almost the same id.

    Args:
        scored: clips or subjects that are scored.
        seen: ids of the subjects that the model has seen.
        model: beginning of the finding's text, such as "best.ckpt was fitted on".
    """
    members = [*scored, *(Member("seen", subject) for subject in seen)]
    both = _in_several(members, lambda member: plain_name(member.subject), lambda member: member.subject)
    return [
        *_findings("leak", f"{model} subjects that are scored", [item.rpartition(" (")[0] for item in both]),
        *_findings("suspicious", f"{model} subjects with almost the same id as a scored subject", _similar(members)),
    ]


def check_members(members: Sequence[Member]) -> list[SplitFinding]:
    """Find subjects, clips and videos that are in several parts, and subjects with almost the same id."""
    subjects = _in_several(members, lambda member: plain_name(member.subject), lambda member: member.subject)
    frames = [member for member in members if _FRAME.search(member.clip)]
    return [
        *_findings("leak", "subjects in several parts", subjects),
        *_findings("suspicious", "ids in several parts that may be of the same subject", _similar(members)),
        *_findings("leak", "clips in several parts", _in_several(members, _plain_clip, lambda member: member.clip)),
        *_findings("leak", "clips with single frames in several parts", _in_several(frames, _clip_of, _clip_of)),
        *_findings("leak", "videos in several parts", _in_several(members, _plain_video, lambda member: member.video)),
    ]


def check_contents(members: Sequence[Member], root: Path, on_progress: OnProgress = no_progress) -> list[SplitFinding]:
    """Find copies of the same video under several names, in several parts or of several subjects.

    Args:
        members: clips with paths of videos.
        root: folder that the paths of the videos are relative to.
        on_progress: called with the number of videos read, and the number of all videos.

    Raises:
        PainseqError: no paths, or a missing video.
    """
    videos = sorted({member.video for member in members if member.video})
    if not videos:
        raise PainseqError("root is given to compare videos, but no file has a column of videos. Add a column video.")
    digests = {}
    for done, video in enumerate(videos):
        on_progress(done, len(videos))
        digests[video] = video_digest(root / video)
    on_progress(len(videos), len(videos))
    with_video = [member for member in members if member.video]
    names = defaultdict(set)
    for member in with_video:
        names[digests[member.video]].add(member.video)
    # `check_members` reports a single name in several parts.
    copied = [member for member in with_video if len(names[digests[member.video]]) > 1]

    def shown(member: Member) -> str:
        return " = ".join(sorted(names[digests[member.video]]))

    owners = defaultdict(set)
    for member in copied:
        owners[digests[member.video]].add(member.subject)
    several = sorted(
        f"{' = '.join(sorted(names[digest]))} ({first_few(sorted(subjects))})"
        for digest, subjects in owners.items()
        if len({plain_name(subject) for subject in subjects}) > 1
    )
    in_parts = _in_several(copied, lambda member: digests[member.video], shown)
    return [
        *_findings("leak", "videos with the same content in several parts", in_parts),
        *_findings("suspicious", "videos with the same content under several subjects", several),
    ]


def check_videos_seen(
    members: Sequence[Member], root: Path, seen: Sequence[str], model: str, on_progress: OnProgress = no_progress
) -> list[SplitFinding]:
    """Find test videos that a model was fitted on, by their content, whatever their subject and data set are called.

    Args:
        members: clips with paths of videos; those whose part begins with "test" count.
        root: folder that the paths of the videos are relative to.
        seen: short digests of the videos that the model was fitted on.
        model: beginning of the finding's text, such as "best.ckpt was fitted on".
        on_progress: called with the number of videos read, and the number of all videos.

    Raises:
        PainseqError: a missing video.
    """
    videos = sorted({member.video for member in members if member.video and plain_name(member.part).startswith("test")})
    known, found = frozenset(seen), []
    for done, video in enumerate(videos):
        on_progress(done, len(videos))
        if video_digest(root / video)[:SHORT_DIGEST] in known:
            found.append(video)
    on_progress(len(videos), len(videos))
    return _findings("leak", f"{model} videos of the test part", found)


def _in_several(members: Iterable[Member], key: Callable[[Member], str], shown: Callable[[Member], str]) -> list[str]:
    """Members with the same key in several parts of one fold, with their spellings and parts."""
    parts: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for member in members:
        if key(member):
            parts[member.fold, key(member)][shown(member)].add(member.part)
    found = []
    for (fold, _), spellings in sorted(parts.items()):
        all_parts = sorted(set().union(*spellings.values()))
        if len(all_parts) > 1:
            where = ", ".join(all_parts) + (f"; fold {fold}" if fold else "")
            found.append(f"{' = '.join(sorted(spellings))} ({where})")
    return found


def _similar(members: Iterable[Member]) -> list[str]:
    """Subjects of different parts whose ids differ only in punctuation or leading zeros: S1 and s-01, 1 and 1.0."""
    by_key: dict[tuple[str, str], dict[str, Member]] = defaultdict(dict)
    parts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for member in members:
        plain = plain_name(member.subject)
        by_key[member.fold, loose_name(member.subject)].setdefault(plain, member)
        parts[member.fold, plain].add(member.part)
    found = []
    for (fold, _), names in sorted(by_key.items()):
        for first, second in combinations(sorted(names), 2):
            first_parts, second_parts = parts[fold, first], parts[fold, second]
            if len(first_parts | second_parts) > 1:
                where = f"{', '.join(sorted(first_parts))} and {', '.join(sorted(second_parts))}"
                found.append(
                    f"{names[first].subject} and {names[second].subject} ({where}{f'; fold {fold}' if fold else ''})"
                )
    return found


def _plain_clip(member: Member) -> str:
    return plain_name(member.clip)


def _plain_video(member: Member) -> str:
    return member.video.replace("\\", "/").removeprefix("./")


def _clip_of(member: Member) -> str:
    return _FRAME.sub("", member.clip)


def _findings(severity: Literal["leak", "suspicious"], text: str, items: Sequence[str]) -> list[SplitFinding]:
    return [SplitFinding(severity, text, tuple(items))] if items else []
