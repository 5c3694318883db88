"""Clips and manifests: the videos of a data set with their subjects and labels."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from painseq.errors import PainseqError, first_few
from painseq.files import write_csv
from painseq.spec import digest
from painseq.tables import number, read_table, shown, whole_number

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

UNKNOWN = -1
"""Marks a hidden label (as target and as `truth`), a missing prediction, and an unknown number of frames."""

SEXES = {"f": "f", "female": "f", "m": "m", "male": "m"}
"""Accepted spellings in files."""

MIN_FACE_SHARE = 0.5
"""A prediction is reported as doubtful if a smaller share of the clip's frames has a face."""

MAX_AGE = 120
"""In years. A higher value is a mistake, or a code such as 999 for an unknown age."""


MAX_FPS = 10_000
"""Frames per second; a greater number is a mistake."""

INVISIBLE = frozenset("\u034f\u115f\u1160\u3164") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Characters without width outside the category Cf of Unicode: grapheme joiner, fillers, variation selectors."""

SAME_FRAMES_S = 0.1
"""Clips of two subjects that share more than this of one video are an error; less can come from rounding."""


@dataclass(frozen=True)
class Clip:
    """A labelled span of one video of one subject.

    Args:
        clip_id: unique within the data set; the key of the feature store and of predictions.
        subject_id: the person shown; every split is by subject.
        video: path relative to the manifest's root, with forward slashes.
        label: the data set's native label; None if it is hidden.
        start_s: start of the clip, in seconds from the first frame shown.
        end_s: end of the clip, exclusive; None is the end of the video.
        fps: native frame rate if the layout specifies it; sampling uses timestamps instead.
        stimulus: "heat", "electrical", "clinical", ...
        sex: "f" or "m".
        age: in years.
        part: the official part the clip belongs to, if the data set has an official split.
        au_truth: path, relative to the root, of the true action units of each frame.
    """

    clip_id: str
    subject_id: str
    video: str
    label: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    fps: float | None = None
    stimulus: str | None = None
    sex: str | None = None
    age: int | None = None
    part: Part | None = None
    au_truth: str | None = None

    def __post_init__(self) -> None:
        if not self.clip_id or not self.subject_id or not self.video:
            raise PainseqError(f"A clip needs a clip_id, a subject_id and a video: {self}.")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise PainseqError(f"Clip {self.clip_id}: start_s is {self.start_s}; it must be 0 or more.")
        if self.end_s is not None and not math.inf > self.end_s > self.start_s:
            raise PainseqError(f"Clip {self.clip_id}: end_s {self.end_s} is not after start_s {self.start_s}.")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise PainseqError(
                f"Clip {self.clip_id}: fps is {self.fps}; it must be more than 0 and at most {MAX_FPS}, or empty."
            )
        check_person(self.sex, self.age)
        if self.part is not None and self.part not in PARTS:
            raise PainseqError(f"Clip {self.clip_id}: part is {self.part!r}; it is one of {', '.join(PARTS)}.")


def check_min_face_share(share: float) -> None:
    """Raise a PainseqError unless this is a share."""
    if not 0 <= share <= 1:
        raise PainseqError(f"min_face_share (--min-face-share) is {share}; it must be between 0 and 1.")


def check_person(sex: str | None, age: int | None) -> None:
    """Reject values that scores by sex and age would ignore or put into the wrong group.

    Raises:
        PainseqError: a sex other than f or m, or an implausible age.
    """
    if sex not in (None, *SEXES.values()):
        raise PainseqError(f"sex is {sex!r}; use f, m or leave it empty.")
    if age is not None and not 0 <= age <= MAX_AGE:
        raise PainseqError(f"age is {age}; use whole years up to {MAX_AGE}, or leave it empty if it is unknown.")


@dataclass(frozen=True)
class Manifest:
    """The clips of one data set, in a fixed order.

    Args:
        name: the data set, e.g. "biovid"; subjects of different data sets are never the same person.
        root: folder that the clips' paths are relative to.
        clips: clips with unique `clip_id`.
    """

    name: str
    root: Path
    clips: tuple[Clip, ...]

    def __post_init__(self) -> None:
        duplicates = [clip_id for clip_id, n in Counter(clip.clip_id for clip in self.clips).items() if n > 1]
        if duplicates:
            raise PainseqError(
                f"{self.name}: clip_id {duplicates[0]!r} is used for more than one clip ({len(duplicates)} such ids)."
            )
        spelling: dict[str, str] = {}
        for subject in self.subjects:
            first = spelling.setdefault(plain_name(subject), subject)
            if first != subject:
                raise PainseqError(
                    f"{self.name}: subjects {first!r} and {subject!r} differ only in capitals, spaces, invisible "
                    "characters or character encoding. If they are one person, a split could put that person on both "
                    "sides: use one spelling. If they are two people, rename one of them."
                )

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject ids, sorted."""
        return tuple(sorted({clip.subject_id for clip in self.clips}))

    def path(self, clip: Clip) -> Path:
        """Path of the clip's video."""
        return self.root / clip.video

    def only(self, clips: Iterable[Clip]) -> Manifest:
        """Return the same data set restricted to these clips."""
        return dataclasses.replace(self, clips=tuple(clips))

    def fingerprint(self) -> str:
        """Digest of names, labels and spans (not of the videos' contents), independent of the order of the clips."""
        rows = sorted(dataclasses.astuple(clip) for clip in self.clips)
        return digest([self.name, [list(row) for row in rows]])

    def write_csv(self, path: Path) -> None:
        """Write one row per clip; unknown values become empty cells. Paths are relative to the root."""
        names = [field.name for field in fields(Clip)]
        write_csv(path, [names, *(dataclasses.astuple(clip) for clip in self.clips)])


@lru_cache(maxsize=1 << 16)
def plain_name(name: str) -> str:
    """Normalise a name, so that two names are the same person's exactly if they are equal afterwards.

    Ignores capitals, spaces around the name and around slashes, repeated spaces, invisible characters, character
    encoding and full-width letters. Serves bare subjects and "data set/subject".
    """
    text = unicodedata.normalize("NFKC", name)
    visible = "".join(sign for sign in text if unicodedata.category(sign) != "Cf" and sign not in INVISIBLE)
    text = " ".join(unicodedata.normalize("NFKC", visible.casefold()).split())
    return re.sub(" ?/ ?", "/", text)


def loose_name(name: str) -> str:
    """Normalise a name beyond `plain_name`: equal ones may be one person's, such as S1 and s-01, or 1 and 1.0."""
    # Many programs turn 1 into 1.0 in a column of numbers with an empty cell.
    plain = re.sub(r"^(\d+)\.0$", r"\1", plain_name(name))
    # A sign between two digits separates numbers: 1-11 is not 11-1.
    joined = re.sub(r"(?<!\d) | (?!\d)", "", re.sub(r"[\W_]+", " ", plain))
    return re.sub(r"(?<!\d)0+(?=\d)", "", joined)


def shared_people(people: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return those of `people`, sorted, who are also among `others`, however the names are written."""
    known = {plain_name(other) for other in others}
    return sorted({person for person in people if plain_name(person) in known})


THE_EXTRACTOR = "the extractor"
"""What `Seen.unknown` calls the extractor of a data set's features."""

UNKNOWN_PEOPLE = (
    "The training subjects of %s are unknown, so a leak through these weights cannot be detected. Make sure that none "
    "of the subjects to be scored is among them."
)
"""A warning in the log, with the names of the weights."""


@dataclass(frozen=True)
class Seen:
    """Whom weights have seen in training.

    Args:
        people: as "data set/subject".
        unknown: names of weights for which this is not known, or not of all people; empty if it is known for all.
        videos: short digests of the videos that a head was fitted on, as far as known.
    """

    people: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    videos: frozenset[str] = frozenset()

    def __or__(self, other: Seen) -> Seen:
        unknown = tuple(dict.fromkeys((*self.unknown, *other.unknown)))
        return Seen(self.people | other.people, unknown, self.videos | other.videos)


def read_people(value: object, place: str) -> tuple[str, ...]:
    """Check a list of people from a file.

    Args:
        value: what was read.
        place: where it was read, for the message.

    Raises:
        PainseqError: not a list of texts "data set/subject".
    """
    if not isinstance(value, list | tuple):
        raise PainseqError(f'{place} is {value!r}; it must be a list of texts such as ["biovid/071309_w_21"].')
    for person in value:
        dataset, _, subject = person.partition("/") if isinstance(person, str) else ("", "", "")
        if not dataset.strip() or not subject.strip():
            raise PainseqError(f'{place} names {person!r}; name people as "data set/subject", each a text.')
    return tuple(value)


def doubtful_subjects(manifest: Manifest) -> list[str]:
    """Describe subjects of a manifest who may be one person: almost the same name, or clips of the same file.

    Returns:
        A sentence for each, which is a warning: two people can have such names, and a recording can show several
        people one after the other.

    Raises:
        PainseqError: the same seconds of a file are clips of two subjects.
    """
    doubts = []
    names: dict[str, list[str]] = defaultdict(list)
    for subject in manifest.subjects:
        names[loose_name(subject)].append(subject)
    for alike in names.values():
        if len(alike) > 1:
            doubts.append(
                f"{manifest.name}: subjects {' and '.join(map(repr, alike))} have almost the same name. If they are "
                "one person, a split can put that person on both sides: use one spelling."
            )
    files: dict[str, list[Clip]] = defaultdict(list)
    for clip in manifest:
        files[unicodedata.normalize("NFC", str(PurePosixPath(clip.video)))].append(clip)
    for video, clips in files.items():
        subjects = sorted({clip.subject_id for clip in clips})
        if len(subjects) > 1:
            _check_spans(manifest.name, video, clips)
            doubts.append(
                f"{manifest.name}: {video} holds clips of {some_subjects(subjects)}. If they are one person, a split "
                "can put that person on both sides: use one name."
            )
    return doubts


def _check_spans(name: str, video: str, clips: Sequence[Clip]) -> None:
    """Raise a PainseqError if clips of different subjects share seconds of one video."""
    last: Clip | None = None
    for clip in sorted(clips, key=lambda clip: clip.start_s):
        if last is None or _end_s(last) - clip.start_s <= SAME_FRAMES_S:
            last = clip
        elif last.subject_id != clip.subject_id:
            raise PainseqError(
                f"{name}: clip {last.clip_id!r} of subject {last.subject_id!r} and clip {clip.clip_id!r} of subject "
                f"{clip.subject_id!r} show the same seconds of {video}. One face is followed in a clip, so one person "
                "would count as two: correct subject, video or span of one of them."
            )
        elif _end_s(clip) > _end_s(last):
            last = clip


def _end_s(clip: Clip) -> float:
    return math.inf if clip.end_s is None else clip.end_s


def some_subjects(subjects: Sequence[str], most: int = 5) -> str:
    """Describe subjects in a message: their number and the first few names."""
    return f"{len(subjects)} subject{'s' if len(subjects) > 1 else ''} ({first_few(subjects, most)})"


def read_manifest(path: Path, root: Path, name: str, needs_video: bool = True) -> Manifest:
    """Read a manifest CSV. Its columns are the fields of `Clip`; clip_id, subject_id and video are required.

    Args:
        path: the CSV.
        root: folder that the videos' paths are relative to.
        name: name of the data set.
        needs_video: false if the videos are not read: without the column, the id of a clip then stands for its video.

    Raises:
        PainseqError: no such file, another encoding than UTF-8 and UTF-16, a missing or unknown column, or an invalid
            value, with its line.
    """
    if not path.is_file():
        raise PainseqError(f"No manifest at {path}.")
    known = {field.name for field in fields(Clip)}
    columns, rows = read_table(path)
    required = {"clip_id", "subject_id", *(["video"] if needs_video else [])}
    missing, unknown = required - set(columns), set(columns) - known
    if missing or unknown:
        raise PainseqError(
            f"{path}: missing columns: {', '.join(sorted(missing)) or 'none'}; unknown columns: "
            f"{shown(sorted(unknown))}. Known columns: {', '.join(sorted(known))}. Separate columns by commas."
        )
    clips = []
    for line, cells in rows:
        try:
            if len(cells) > len(columns):
                raise PainseqError("more cells than columns.")
            row = dict(zip(columns, cells, strict=False))
            clips.append(_clip_of(row if "video" in columns else {**row, "video": row.get("clip_id", "")}))
        except PainseqError as error:
            raise PainseqError(f"{path}, line {line}: {error}") from error
    return Manifest(name, root, tuple(clips))


def check_inside(column: str, path: str) -> None:
    """Check a path in a table of clips.

    Raises:
        PainseqError: it is absolute, leads out of the root, or has backslashes; it names the column.
    """
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or re.match(r"[A-Za-z]:|.*\\", path):
        raise PainseqError(
            f"{column} is {path!r}; give its path relative to the data set's root, with forward slashes."
        )


def _clip_of(row: Mapping[str, str]) -> Clip:
    cells = {key: value.strip() or None for key, value in row.items()}
    video, au_truth, age = cells.get("video") or "", cells.get("au_truth"), cells.get("age")
    check_inside("video", video)
    check_inside("au_truth", au_truth or "")

    def number_in(key: str) -> float | None:
        cell = cells.get(key)
        try:
            return None if cell is None else number(cell)
        except ValueError as error:
            raise PainseqError(f"{key}: {error}.") from error

    part, sex = cells.get("part"), cells.get("sex")
    try:
        years = None if age is None else whole_number(age)
    except ValueError as error:
        raise PainseqError(f"age: {error}; use whole years, or leave the cell empty.") from error
    if part is not None and part not in PARTS:
        raise PainseqError(f"part is {part!r}; it is one of {', '.join(PARTS)}.")
    return Clip(
        clip_id=cells.get("clip_id") or "",
        subject_id=cells.get("subject_id") or "",
        video=video,
        label=cells.get("label"),
        start_s=number_in("start_s") or 0.0,
        end_s=number_in("end_s"),
        fps=number_in("fps"),
        stimulus=cells.get("stimulus"),
        sex=None if sex is None else SEXES.get(sex.lower(), sex),
        age=years,
        part=part,
        au_truth=au_truth,
    )
