"""AI4Pain 2024 grand challenge: 65 subjects, electrical pain in three levels, a hidden test set."""

from __future__ import annotations

from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts, Expected
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest, Part, read_manifest
from painseq.video import probe_duration_s

from .files import video_files
from .pattern import compiled_pattern

PARTS: dict[str, Part] = {"Train": "train", "Validation": "validation", "Test": "test"}
PATTERN = r"(?P<subject>[^/]+)/(?P=subject)_(?P<label>[A-Za-z_]+)_(?P<trial>\d+)\.\w+"
TEST_PATTERN = r"(?P<subject>[^/]+)/[^/]+\.\w+"

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

    The protocol is that of Prajod et al. (2024): training recordings are cut into segments of `segment_s` seconds (an
    incomplete last segment is dropped); of each validation and test video the first `segment_s` seconds are used, 300
    frames at 30 fps.

    The file names of the original data are not public, so both patterns can be set.

    Args:
        root: the folder that holds Train, Validation and Test.
        options: labels, split, view.
        pattern: regular expression for the path of a Train or Validation video, relative to that folder, with the
            named groups `subject` and `label`.
        test_pattern: the same for Test, with the group `subject` only: labels are never read from test file names.
        manifest: a CSV that lists the clips; the patterns are then not used.
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
        """List clips of `segment_s` seconds; test clips have no label.

        Raises:
            PainseqError: no such folder, no videos in it, or a file name that does not match the pattern.
        """
        if self.manifest_csv is not None:
            return read_manifest(self.manifest_csv, self.root, self.name)
        if not self.root.is_dir():
            raise PainseqError(f"No AI4Pain data at {self.root}: root (--data.root) must be the folder with Train.")
        clips = [clip for folder, part in PARTS.items() for clip in self._part(folder, part)]
        if not clips:
            raise PainseqError(
                f"{self.root} has no videos in {', '.join(PARTS)}. root (--data.root) must be the folder with these "
                "three; for another layout, list the clips in a CSV: manifest (--data.manifest)."
            )
        return Manifest(self.name, self.root, tuple(clips))

    def _part(self, folder: str, part: Part) -> list[Clip]:
        clips: list[Clip] = []
        pattern = self.test_pattern if part == "test" else self.pattern
        for path in video_files(self.root / folder, "**/*"):
            relative = path.relative_to(self.root / folder).as_posix()
            match = pattern.fullmatch(relative)
            if match is None:
                option = "test_pattern" if part == "test" else "pattern"
                raise PainseqError(
                    f"{folder}/{relative} does not match {option} (--data.{option}) {pattern.pattern!r}. Adapt the "
                    "pattern to your file names, or move other files out of the folder."
                )
            label = None if part == "test" else match["label"]
            video_id = path.relative_to(self.root).with_suffix("").as_posix()
            for clip_id, start_s in self._segments(path, video_id, part):
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

    def _segments(self, path: Path, video_id: str, part: Part) -> list[tuple[str, float]]:
        if part != "train":
            return [(video_id, 0.0)]
        # Containers round their duration: a segment may be up to 0.05 s short.
        try:
            num_segments = int((probe_duration_s(path) + 0.05) // self.segment_s)
        except PainseqError:
            # `extract` reports unreadable clips; they should not stop every other command.
            num_segments = 0
        if num_segments <= 1:
            return [(video_id, 0.0)]
        return [(f"{video_id}#{segment}", segment * self.segment_s) for segment in range(num_segments)]
