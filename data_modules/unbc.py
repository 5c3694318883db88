"""UNBC-McMaster Shoulder Pain: 25 subjects, 200 sequences of images, rated frame by frame and as a whole."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts, Expected
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.faces.pspi import pspi
from painseq.records import Clip, Manifest
from painseq.video.container import image_files

from .files import subfolders

log = logging.getLogger("painseq")

Target = Literal["frame", "window", "sequence"]
Scale = Literal["pspi", "vas", "opr", "aff", "sen"]
SUBJECT = re.compile(r"\d+-[a-z]+\d+", re.IGNORECASE)

FACTS = DataSetFacts(
    native=("0..16",),
    # First the schemes of PSPI, then those of sequence ratings, with thresholds chosen here.
    schemes={
        "binary": {"no_pain": ("0",), "high_pain": (">0..16",)},
        "three": {"no_pain": ("0",), "low_pain": (">0..2",), "high_pain": (">2..16",)},
        "four": {
            "no_pain": ("0",),
            "mild_pain": (">0..2",),
            "moderate_pain": (">2..4",),
            "severe_pain": (">4..16",),
        },
        "vas_binary": {"no_pain": ("0",), "high_pain": (">0..10",)},
        "vas_three": {"no_pain": ("0",), "low_pain": (">0..5",), "high_pain": (">5..10",)},
        "vas_four": {
            "no_pain": ("0",),
            "mild_pain": (">0..3",),
            "moderate_pain": (">3..6",),
            "severe_pain": (">6..10",),
        },
        "opr_binary": {"no_pain": ("0",), "high_pain": (">0..5",)},
        "opr_three": {"no_pain": ("0",), "low_pain": (">0..2",), "high_pain": (">2..5",)},
        "aff_binary": {"no_pain": ("0",), "high_pain": (">0..15",)},
        "aff_three": {"no_pain": ("0",), "low_pain": (">0..7",), "high_pain": (">7..15",)},
        "sen_binary": {"no_pain": ("0",), "high_pain": (">0..15",)},
        "sen_three": {"no_pain": ("0",), "low_pain": (">0..7",), "high_pain": (">7..15",)},
    },
    scales={"pspi": "0..16", "vas": "0..10", "opr": "0..5", "aff": "0..15", "sen": "0..15"},
    expected=Expected(subjects=25, videos=200, frames=48_398),
    published_as="UNBC-McMaster",
)


class UNBC(PainDataModule):
    """`<root>/Images/<042-ll042>/<ll042t1aaaff>/<ll042t1aaaff001>.png`, with `Frame_Labels` and `Sequence_Labels`.

    Of nested folders with the same name, such as `Images/Images`, the inner one is used. Frames without a label, and
    windows and sequences with such a frame, are left out; a warning counts them, `label_problems` lists them.

    Args:
        root: the folder with Images, Frame_Labels and Sequence_Labels.
        options: labels, split, view. PSPI has the label schemes binary, three and four; schemes of other scales start
            with the scale's name, such as vas_three. For regression the scheme is the scale's name: pspi, vas, ...
        target: the unit of a clip. "frame": one frame, with its PSPI. "window": `window_s` seconds, with their highest
            PSPI; an incomplete last window is dropped. "sequence": a whole sequence, with its rating or its highest
            PSPI.
        label: "pspi"; or, for sequences, the rating by the patient ("vas" 0 to 10; "aff" and "sen", 0 to 15) or by an
            observer ("opr", 0 to 5).
        fps: images per second, which the files do not record.
        window_s: length of a window, in seconds.
        stride_s: time between the starts of consecutive windows, in seconds.

    Raises:
        PainseqError: a scale that does not fit the target, a label scheme of another scale, a number that is not above
            0.
    """

    name = "unbc"
    facts = FACTS

    def __init__(
        self,
        root: Path,
        options: DataOptions = DataOptions(),
        target: Target = "window",
        label: Scale = "pspi",
        fps: float = 25.0,
        window_s: float = 2.0,
        stride_s: float = 1.0,
    ) -> None:
        super().__init__(root, options)
        if label != "pspi" and target != "sequence":
            raise PainseqError(
                f"label (--data.label) is {label}, which rates whole sequences, but target (--data.target) is "
                f"{target}. Use target sequence, or label pspi."
            )
        schemes = {name: name.partition("_")[0] if "_" in name else "pspi" for name in self.facts.schemes}
        schemes |= {name: name for name in self.facts.scales}
        if isinstance(options.labels, str) and schemes.get(options.labels, label) != label:
            raise PainseqError(
                f"label (--data.label) is {label}, but the label scheme {options.labels!r} is for "
                f"{schemes[options.labels]}. Choose another label, or one of these for --data.options.labels: "
                f"{', '.join(name for name in schemes if schemes[name] == label)}."
            )
        for name, value in {"fps": fps, "window_s": window_s, "stride_s": stride_s}.items():
            if not (math.isfinite(value) and value > 0):
                raise PainseqError(f"{name} (--data.{name}) is {value}; it must be more than 0.")
        self.target = target
        self.label = label
        if label != "pspi":
            self.classes = (self.facts.scales[label],)
        self.fps = fps
        self.window_s = window_s
        self.stride_s = stride_s

    def read_manifest(self) -> Manifest:
        """List frames, windows or sequences as clips.

        Raises:
            PainseqError: no images or labels in the expected folders; a folder that is not named like a subject; no
                labels.
        """
        sequences = find_sequences(self.root)
        folder = _rating_folder(self.root, self.label) if self.label != "pspi" else _frame_folder(self.root, "PSPI")
        if not folder.is_dir():
            raise PainseqError(
                f"No {self.label.upper()} labels at {folder}. root (--data.root) must be the folder with Images, "
                "Frame_Labels and Sequence_Labels."
            )
        clips: list[Clip] = []
        unlabelled = short = 0
        for sequence in sequences:
            spans = list(self._spans(len(sequence.frames)))
            short += not spans
            labels = self._labels(sequence, spans)
            unlabelled += labels.count(None)
            clips += [
                self._clip(sequence, first, end, label)
                for (first, end), label in zip(spans, labels, strict=True)
                if label is not None
            ]
        if unlabelled:
            log.warning(
                "%s: %d %ss without a %s label are left out; `painseq data check` lists the files.",
                self.name,
                unlabelled,
                self.target,
                self.label.upper(),
            )
        if short:
            log.warning("%s: %d sequences shorter than window_s (%g s) are left out.", self.name, short, self.window_s)
        if not clips:
            raise PainseqError(
                f"Of {len(sequences)} sequences in {self.root / 'Images'} no {self.target} can be used: "
                f"{unlabelled} lack a {self.label.upper()} label in {folder}, {short} sequences are shorter than "
                "window_s."
            )
        return Manifest(self.name, self.root, tuple(clips))

    def label_problems(self) -> list[str]:
        """List labels that are missing or unreadable, and PSPI files that disagree with FACS files."""
        problems = []
        sequences = find_sequences(self.root)
        for sequence in sequences:
            if _frame_folder(self.root, "PSPI").is_dir():
                _, unreadable = _read_pspi(self.root, sequence)
                if unreadable:
                    problems.append(
                        f"{sequence.item}: {len(unreadable)} of {len(sequence.frames)} frames have no PSPI: "
                        f"{unreadable[0]}"
                    )
            if self.label != "pspi":
                rating = _read_number(_rating_folder(self.root, self.label) / f"{sequence.item}.txt", self.root)
                if isinstance(rating, str):
                    problems.append(f"{sequence.item}: no {self.label.upper()}: {rating}")
        by_sequence: dict[str, list[PSPIDisagreement]] = {}
        for disagreement in pspi_disagreements(self.root):
            by_sequence.setdefault(disagreement.sequence, []).append(disagreement)
        for item, frames in by_sequence.items():
            first = frames[0]
            problems.append(
                f"{item}: the PSPI of {len(frames)} frames disagrees with their action units, such as {first.frame}: "
                f"PSPI {first.pspi:g}, FACS {first.from_facs}"
            )
        return problems

    def _spans(self, frames: int) -> Iterator[tuple[int, int]]:
        """Yield start and end (exclusive) frames of each clip in a sequence."""
        if self.target == "sequence":
            yield 0, frames
            return
        length = stride = 1
        if self.target == "window":
            length, stride = (max(1, round(seconds * self.fps)) for seconds in (self.window_s, self.stride_s))
        for first in range(0, frames - length + 1, stride):
            yield first, first + length

    def _labels(self, sequence: UNBCSequence, spans: list[tuple[int, int]]) -> list[str | None]:
        if self.label != "pspi":
            rating = _read_number(_rating_folder(self.root, self.label) / f"{sequence.item}.txt", self.root)
            return [None if isinstance(rating, str) else f"{rating:g}"] * len(spans)
        pspi, _ = _read_pspi(self.root, sequence)
        known = [[value for value in pspi[first:end] if value is not None] for first, end in spans]
        return [
            f"{max(values):g}" if len(values) == end - first else None
            for values, (first, end) in zip(known, spans, strict=True)
        ]

    def _clip(self, sequence: UNBCSequence, first: int, end: int, label: str) -> Clip:
        names = {
            "frame": f"{sequence.item}/{sequence.frames[first]}",
            "window": f"{sequence.item}#{first}-{end}",
            "sequence": sequence.item,
        }
        whole = self.target == "sequence"
        return Clip(
            clip_id=names[self.target],
            subject_id=sequence.subject_id,
            video=sequence.video,
            label=label,
            start_s=first / self.fps,
            # Halfway between two images, so that sampling at a higher rate never shows the next image.
            end_s=None if whole else (end - 0.5) / self.fps,
            fps=self.fps,
            stimulus="clinical",
        )


@dataclass(frozen=True)
class UNBCSequence:
    """A folder of images.

    Args:
        subject_id: e.g. "042-ll042".
        name: e.g. "ll042t1aaaff".
        video: the folder, relative to the root.
        frames: names of the images without suffix, in order.
    """

    subject_id: str
    name: str
    video: str
    frames: tuple[str, ...]

    @property
    def item(self) -> str:
        """Subject and sequence, "<subject>/<sequence>"."""
        return f"{self.subject_id}/{self.name}"


@dataclass(frozen=True)
class PSPIDisagreement:
    """A frame whose PSPI file and FACS file disagree.

    Args:
        sequence: subject and sequence.
        frame: name of the image, without suffix.
        pspi: PSPI from the PSPI file.
        from_facs: PSPI computed from the FACS file's action units, or the reason why it cannot be computed.
    """

    sequence: str
    frame: str
    pspi: float
    from_facs: str


def find_sequences(root: Path) -> list[UNBCSequence]:
    """Find all sequences, sorted by subject and name.

    Hidden files are ignored, and so are folders without images, with a warning.

    Raises:
        PainseqError: no folder Images, no images in it, or a folder in it that is not named like a subject.
    """
    images = _innermost(root, "Images")
    if not images.is_dir():
        raise PainseqError(
            f"No UNBC-McMaster images at {images}. root (--data.root) must be the folder with Images, Frame_Labels and "
            "Sequence_Labels."
        )
    sequences, empty = [], []
    for subject in subfolders(images):
        if not SUBJECT.fullmatch(subject.name):
            raise PainseqError(
                f"{subject.relative_to(root).as_posix()} is not named like a subject: expected "
                "Images/<number>-<initials and number>, such as 042-ll042. Move other folders out of Images."
            )
        for folder in subfolders(_innermost(images, subject.name)):
            video = folder.relative_to(root).as_posix()
            try:
                frames = tuple(path.stem for path in image_files(folder))
            except PainseqError as error:
                empty.append(str(error))
                continue
            sequences.append(UNBCSequence(subject.name, folder.name, video, frames))
    if empty:
        log.warning("unbc: %d folders are left out. %s", len(empty), empty[0])
    if not sequences:
        raise PainseqError(f"{images} has no <subject>/<sequence>/<frame>.png.")
    return sequences


def pspi_disagreements(root: Path) -> list[PSPIDisagreement]:
    """List frames whose PSPI file and FACS file disagree."""
    disagreements = []
    facs_folder = _frame_folder(root, "FACS")
    for sequence in find_sequences(root):
        pspi, _ = _read_pspi(root, sequence)
        for frame, value in zip(sequence.frames, pspi, strict=True):
            path = facs_folder / sequence.item / f"{frame}_facs.txt"
            if value is None or not path.is_file():
                continue
            try:
                intensities = read_facs(path)
                known = pspi_of(intensities)
                # It is unclear whether AU43 has an intensity or only needs to be listed.
                listed = pspi_of({**intensities, 43: 1.0}) if 43 in intensities else known
                if min(abs(known - value), abs(listed - value)) > 1e-6:
                    disagreements.append(PSPIDisagreement(sequence.item, frame, value, f"{known:g}"))
            except PainseqError as error:
                disagreements.append(PSPIDisagreement(sequence.item, frame, value, f"unreadable ({error})"))
    return disagreements


def read_facs(path: Path) -> dict[int, float]:
    """Read action unit -> intensity from the first two columns of a FACS file; an empty file has none.

    Raises:
        PainseqError: a row does not start with two numbers.
    """
    intensities: dict[int, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells:
            continue
        try:
            unit, intensity = int(float(cells[0])), float(cells[1])
        except (ValueError, IndexError, OverflowError) as error:
            raise PainseqError(f"{path.name}, line {number}: {line.strip()!r}, not an AU and its intensity.") from error
        intensities[unit] = max(intensity, intensities.get(unit, 0.0))
    return intensities


def pspi_of(intensities: Mapping[int, float]) -> float:
    """Compute the Prkachin and Solomon pain intensity: AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43, 0 to 16.

    AU43 (closed eyes) is binary: any intensity counts as 1.
    """
    return float(pspi({**intensities, 43: 1.0 if intensities.get(43, 0.0) > 0 else 0.0}))


def _innermost(folder: Path, name: str) -> Path:
    """Return `folder/name`; of nested folders `name/name`, the innermost."""
    folder = folder / name
    while (folder / name).is_dir():
        others = [path.name for path in subfolders(folder) if path.name != name]
        if others:
            raise PainseqError(
                f"{folder} has an inner {name}, and also {others[0]} ({len(others)} such). Move the folders of the "
                "inner one up, so that none is left out."
            )
        folder = folder / name
    return folder


def _frame_folder(root: Path, name: str) -> Path:
    return _innermost(_innermost(root, "Frame_Labels"), name)


def _rating_folder(root: Path, scale: Scale) -> Path:
    return _innermost(_innermost(root, "Sequence_Labels"), scale.upper())


def _read_pspi(root: Path, sequence: UNBCSequence) -> tuple[list[float | None], list[str]]:
    """Read the PSPI of each frame, None if unknown, and the reasons for unknown values."""
    folder = _frame_folder(root, "PSPI") / sequence.item
    values = [_read_number(folder / f"{frame}_facs.txt", root) for frame in sequence.frames]
    return [None if isinstance(value, str) else value for value in values], [v for v in values if isinstance(v, str)]


def _read_number(path: Path, root: Path) -> float | str:
    """Read the number in a file, or return the reason why this is impossible."""
    place = path.relative_to(root).as_posix()
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return f"{place} is missing"
    except (OSError, UnicodeDecodeError) as error:
        return f"{place} cannot be read ({error})"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else f"{place} holds {text[:40]!r}, not one number"
