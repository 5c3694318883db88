"""AI4Pain 2024 grand challenge: 65 participants, electrical pain in three levels, a hidden test set."""

from __future__ import annotations

from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts, Expected
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest, Part, read_manifest
from painseq.video import probe_duration_s

from .files import mp4_files
from .pattern import compiled_pattern

PARTS: dict[str, Part] = {"Train": "train", "Validation": "validation", "Test": "test"}
PATTERN = r"(?P<subject>[^/]+)/(?P=subject)_(?P<label>[A-Za-z_]+)_(?P<trial>\d+)\.(?i:mp4)"
TEST_PATTERN = r"(?P<subject>[^/]+)/[^/]+\.(?i:mp4)"

FACTS = DataSetFacts(
    native=("No_Pain", "Low_Pain", "High_Pain"),
    schemes={
        "binary": {"no_pain": ("No_Pain",), "high_pain": ("High_Pain",)},
        "three": {"no_pain": ("No_Pain",), "low_pain": ("Low_Pain",), "high_pain": ("High_Pain",)},
    },
    expected=Expected(
        subjects=65,
        subjects_by_part={"train": 41, "validation": 12, "test": 12},
        clips_per_class={"Low_Pain": 12, "High_Pain": 12},
        fps=30.0,
        duration_s=10.0,
    ),
    published_as="AI4Pain 2024",
)


class AI4Pain(PainDataModule):
    """`<root>/{Train,Validation,Test}/<subject>/<subject>_{No_Pain,Low_Pain,High_Pain}_<trial>.mp4`.

    The protocol is that of Prajod et al. 2024: in training a long recording is cut into pieces of `segment_s`
    seconds (an incomplete last piece is dropped); of every validation and test video the first `segment_s`
    seconds are taken, 300 frames at 30 fps.

    The real file names are not public, so both patterns can be set.

    Args:
        root: the folder that holds Train, Validation and Test.
        options: labels, split, view.
        pattern: regular expression on a Train or Validation video's path below its part, with the named groups
            `subject` and `label`.
        test_pattern: the same for Test, with `subject` alone: a label is never read from a test file's name.
        manifest: a CSV that lists the clips instead; the patterns are then not used.
        segment_s: length of a clip, in seconds.
    """

    name = "ai4pain"
    facts = FACTS

    def __init__(
        self,
        root: Path,
        options: DataOptions = DataOptions(),
        pattern: str = PATTERN,
        test_pattern: str = TEST_PATTERN,
        manifest: Path | None = None,
        segment_s: float = 10.0,
    ) -> None:
        super().__init__(root, options)
        self.pattern, self.test_pattern = (
            compiled_pattern(pattern, "subject", "label"),
            compiled_pattern(test_pattern, "subject"),
        )
        self.manifest_csv = manifest
        self.segment_s = segment_s

    def read_manifest(self) -> Manifest:
        """Clips of `segment_s` seconds; test clips carry no label."""
        if self.manifest_csv is not None:
            return read_manifest(self.manifest_csv, self.root, self.name)
        if not self.root.is_dir():
            raise PainseqError(f"No AI4Pain data at {self.root}: --data.root is the folder that holds Train.")
        clips = [clip for folder, part in PARTS.items() for clip in self._part(folder, part)]
        if not clips:
            raise PainseqError(
                f"{self.root} holds no videos in {', '.join(PARTS)}. --data.root is the folder that holds these "
                "three; if your copy is laid out otherwise, give --data.manifest a CSV of its clips."
            )
        return Manifest(self.name, self.root, tuple(clips))

    def _part(self, folder: str, part: Part) -> list[Clip]:
        clips: list[Clip] = []
        pattern = self.test_pattern if part == "test" else self.pattern
        for path in mp4_files(self.root / folder, "**/*"):
            below = path.relative_to(self.root / folder).as_posix()
            match = pattern.fullmatch(below)
            if match is None:
                option = "test_pattern" if part == "test" else "pattern"
                raise PainseqError(
                    f"{folder}/{below} does not match --data.{option} {pattern.pattern!r}. Set the pattern to your "
                    "copy's file names, or move other files away."
                )
            label = None if part == "test" else match["label"]
            item = path.relative_to(self.root).with_suffix("").as_posix()
            for clip_id, start_s in self._pieces(path, item, part):
                clips.append(
                    Clip(
                        clip_id=clip_id,
                        subject_id=match["subject"],
                        video=path.relative_to(self.root).as_posix(),
                        label=label,
                        start_s=start_s,
                        end_s=start_s + self.segment_s,
                        stimulus="electrical",
                        part=part,
                    )
                )
        return clips

    def _pieces(self, path: Path, item: str, part: Part) -> list[tuple[str, float]]:
        if part != "train":
            return [(item, 0.0)]
        # Containers round their duration; a piece that lacks less than a twentieth of a second is whole.
        try:
            whole = int((probe_duration_s(path) + 0.05) // self.segment_s)
        except PainseqError:
            # One clip that cannot be read, which `extract` counts and names, rather than the end of every command.
            whole = 0
        if whole <= 1:
            return [(item, 0.0)]
        return [(f"{item}#{piece}", piece * self.segment_s) for piece in range(whole)]
