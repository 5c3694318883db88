"""MIntPAIN: 20 subjects, electrical pain in four levels, as colour, depth and thermal images."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts, Expected
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest

from .files import subfolders, warn_of_16_bits

log = logging.getLogger("painseq")

SEQUENCE = re.compile(r".*_Label(?P<label>\d+)", re.IGNORECASE)
PERSON = re.compile(r"sub(?:ject)?[ _-]*0*(?P<number>\d+)", re.IGNORECASE)

FACTS = DataSetFacts(
    native=("0", "1", "2", "3", "4"),
    schemes={
        "binary": {"no_pain": ("0",), "high_pain": ("4",)},
        "three": {"no_pain": ("0",), "low_pain": ("1",), "high_pain": ("4",)},
        "five": {
            "no_pain": ("0",),
            "mild_pain": ("1",),
            "moderate_pain": ("2",),
            "severe_pain": ("3",),
            "extreme_pain": ("4",),
        },
    },
    expected=Expected(subjects=20),
    published_as="MIntPAIN",
)


class MIntPAIN(PainDataModule):
    """`<root>/<subject>/<trial>/<Sub01_Trial01_Sweep01_Label0>/{RGB,D,T}/*.{jpg,png}`.

    Only the number after `_Label` is read from a sequence's name, since the rest differs between copies.

    Args:
        root: the folder with the subjects.
        options: labels, split, view.
        modality: the folder of images to read: RGB, D (depth) or T (thermal).
        fps: images per second, which the files do not record.

    Raises:
        PainseqError: `fps` is not above 0.
    """

    name = "mintpain"
    facts = FACTS

    def __init__(
        self, root: Path, options: DataOptions = DataOptions(), modality: str = "RGB", fps: float = 25.0
    ) -> None:
        super().__init__(root, options)
        if not (math.isfinite(fps) and fps > 0):
            raise PainseqError(f"fps (--data.fps) is {fps}; it must be more than 0.")
        self.modality = modality
        self.fps = fps

    def read_manifest(self) -> Manifest:
        """List one clip per sequence; sequences without this modality are left out, with a warning.

        Raises:
            PainseqError: no such folder, no sequences in it, a folder with another name, or no sequence with this
                modality.
        """
        sequences = self._sequences()
        clips, without = [], []
        for folder, label in sequences:
            if not (folder / self.modality).is_dir():
                without.append(folder)
                continue
            video = (folder / self.modality).relative_to(self.root).as_posix()
            clips.append(
                Clip(
                    clip_id=video,
                    subject_id=video.split("/")[0],
                    video=video,
                    label=label,
                    fps=self.fps,
                    stimulus="electrical",
                )
            )
        if not clips:
            available = sorted({path.name for folder, _ in sequences for path in subfolders(folder)})
            raise PainseqError(
                f"No sequence in {self.root} has the folder {self.modality}; available folders: "
                f"{', '.join(available) or 'none'}. Choose one with modality (--data.modality)."
            )
        if without:
            log.warning(
                "%s: %d of %d sequences are left out because they have no folder %s, such as %s.",
                self.name,
                len(without),
                len(sequences),
                self.modality,
                without[0].relative_to(self.root).as_posix(),
            )
        warn_of_16_bits(self.name, self.root / clips[0].video)
        return Manifest(self.name, self.root, tuple(clips))

    def label_problems(self) -> list[str]:
        """List sequences whose name and folder disagree about the subject."""
        problems = []
        for folder, _ in self._sequences():
            relative = folder.relative_to(self.root)
            in_folder, in_name = PERSON.search(relative.parts[0]), PERSON.search(folder.name)
            if in_folder is not None and in_name is not None and in_folder["number"] != in_name["number"]:
                problems.append(
                    f"{relative.as_posix()}: the name has another subject than the folder {relative.parts[0]}"
                )
        return problems

    def _sequences(self) -> list[tuple[Path, str]]:
        """Find the folder and label of each sequence."""
        if not self.root.is_dir():
            raise PainseqError(
                f"No MIntPAIN data at {self.root}: root (--data.root) must be the folder with the subjects."
            )
        found = []
        for subject in subfolders(self.root):
            for trial in subfolders(subject):
                for folder in subfolders(trial):
                    match = SEQUENCE.fullmatch(folder.name)
                    if match is None:
                        raise PainseqError(
                            f"{folder.relative_to(self.root).as_posix()} is not named like a sequence: expected "
                            "<subject>/<trial>/<...>_Label<0..4>, such as Sub01_Trial01_Sweep01_Label0. root "
                            "(--data.root) must be the folder with the subjects; move other folders out of it."
                        )
                    found.append((folder, str(int(match["label"]))))
        if not found:
            raise PainseqError(
                f"{self.root} has no <subject>/<trial>/<...>_Label<0..4>. root (--data.root) must be the folder with "
                "the subjects."
            )
        return found
