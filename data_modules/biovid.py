"""BioVid Heat Pain, Part A: 87 subjects, 100 clips each, heat."""

from __future__ import annotations

import re
from pathlib import Path

from painseq.datamodule import DataOptions, PainDataModule
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest

SAMPLE = re.compile(r"(?P<subject>\d{6}_(?P<sex>[mw])_(?P<age>\d+))-(?P<label>[A-Za-z]+\d)-(?P<number>\d+)")
SEXES = {"m": "m", "w": "f"}


class BioVid(PainDataModule):
    """`<root>/PartA/video/<subject>/<subject>-<BL1|PA1..PA4>-<number>.mp4`, clips of 5.5 s at 25 fps.

    Args:
        root: the folder that holds `PartA`.
        options: labels, split, view.
    """

    name = "biovid"

    def __init__(self, root: Path, options: DataOptions = DataOptions()) -> None:
        super().__init__(root, options)

    def read_manifest(self) -> Manifest:
        """One clip a video; sex and age come from the subject's name."""
        folder = self.root / "PartA" / "video"
        if not folder.is_dir():
            raise PainseqError(
                f"No BioVid videos at {folder}. --data.root is the folder that holds PartA, with "
                "PartA/video/<subject>/<sample>.mp4 in it."
            )
        clips = []
        for path in sorted(folder.glob("*/*.mp4")):
            match = SAMPLE.fullmatch(path.stem)
            if match is None or match["subject"] != path.parent.name:
                raise PainseqError(
                    f"{path.relative_to(self.root)} is not named as a BioVid sample: expected "
                    f"{path.parent.name}-<BL1|PA1..PA4>-<number>.mp4. Move other files out of PartA/video."
                )
            clips.append(
                Clip(
                    clip_id=path.stem,
                    subject_id=match["subject"],
                    video=path.relative_to(self.root).as_posix(),
                    label=match["label"],
                    stimulus="heat",
                    sex=SEXES[match["sex"]],
                    age=int(match["age"]),
                )
            )
        if not clips:
            raise PainseqError(f"{folder} holds no <subject>/<sample>.mp4.")
        return Manifest(self.name, self.root, tuple(clips))
