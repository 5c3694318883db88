"""The user's own data: class folders with the subject in the file's name, or a table of the clips."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NoReturn

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts
from painseq.data.labels import ordered_labels
from painseq.data.options import DataOptions
from painseq.errors import PainseqError
from painseq.records import Clip, Manifest, read_manifest

from .files import tell_of_16_bits
from .pattern import compiled_pattern

log = logging.getLogger("painseq")

VIDEOS = (".mp4", ".mov", ".avi", ".mkv")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp")
PATTERN = r"(?P<label>[^/]+)/(?P<subject>[^/_]+)_[^/]+"


class Folder(PainDataModule):
    """`<root>/<class>/<subject>_<anything>.mp4`, or whatever `pattern` says, or a CSV of the clips.

    A clip is a video or, if `fps` is given, a folder of images. Its id is its path below the root, without the suffix.
    Hidden files are passed over.

    Args:
        root: the folder that the clips' paths are relative to.
        options: labels, split, view. `labels: native` makes each label a class.
        name: what the data set is called. Subjects of two data sets are the same people only if the names are the same,
            too. The name of a data set that painseq knows brings its label schemes.
        manifest: a CSV that lists the clips, columns as the fields of `painseq.records.Clip`; the folders are then not
            searched.
        pattern: regular expression on a clip's path below the root, without the suffix, with the named groups
            `subject` and `label`.
        classes: all labels there may be, in order of pain; empty: whatever is found.
        fps: frames a second of folders of images, since images do not tell it.

    Raises:
        PainseqError: a pattern that cannot work, a class named twice, an empty name.
    """

    def __init__(
        self,
        root: Path,
        options: DataOptions = DataOptions(),
        name: str = "folder",
        manifest: Path | None = None,
        pattern: str = PATTERN,
        classes: tuple[str | int, ...] = (),
        fps: float | None = None,
    ) -> None:
        # Here, since the package lists the facts only after it has imported this file.
        from . import FACTS

        super().__init__(root, options)
        if not name.strip() or "/" in name:
            raise PainseqError(f"--data.name is {name!r}; it names the data set, in a word without a slash.")
        names = tuple(_composed(str(name)) for name in classes)
        if len(set(names)) != len(names):
            raise PainseqError(f"--data.classes names a class twice: {', '.join(names)}.")
        if fps is not None and not fps > 0:
            raise PainseqError(f"--data.fps is {fps}; it must be more than 0.")
        self.name = name
        self.facts = FACTS.get(name, DataSetFacts())
        self.manifest_csv = manifest
        self.pattern = compiled_pattern(pattern, "subject", "label")
        # Folders are often called 0, 1, 2, which YAML takes for numbers.
        self.classes = names
        self.fps = fps

    def read_manifest(self) -> Manifest:
        """The clips of the table, or those found in the folders.

        Raises:
            PainseqError: no such folder or table; no clip; a clip that the pattern does not fit; a label that is none
                of `classes`; a folder without any clip; clips of one subject alone; a path that leaves the root.
        """
        manifest = Manifest(self.name, self.root, tuple(self._listed() if self.manifest_csv else self._found()))
        strange = [clip for clip in manifest if self.classes and clip.label not in (*self.classes, None)]
        if strange:
            raise PainseqError(
                f"{strange[0].video}: its label {strange[0].label!r} is none of --data.classes "
                f"({', '.join(self.classes)}); so with {len(strange)} of {len(manifest)} clips. Name the class there, "
                "in its place in the order of pain, or take these clips out of the data."
            )
        if not self.classes:
            found = ", ".join(ordered_labels({clip.label for clip in manifest if clip.label is not None}))
            log.info(
                "%s: labels found: %s. --data.classes says which there may be, and in what order.", self.name, found
            )
        absent = [name for name in self.classes if all(clip.label != name for clip in manifest)]
        if absent:
            log.warning("%s: no clip of class %s, which --data.classes names.", self.name, ", ".join(absent))
        if len(manifest.subjects) == 1 and all(clip.part is None for clip in manifest):
            mend = (
                f"mend the column subject_id of {self.manifest_csv}"
                if self.manifest_csv
                else "set --data.pattern so that its group `subject` tells them apart"
            )
            raise PainseqError(
                f"All {len(manifest)} clips are of one subject, {manifest.subjects[0]!r}, and a split needs several. "
                f"If these are several people, {mend}."
            )
        return manifest

    def _listed(self) -> Iterator[Clip]:
        """The clips of the table."""
        assert self.manifest_csv is not None
        table = read_manifest(self.manifest_csv, self.root, self.name)
        if not len(table):
            raise PainseqError(f"{self.manifest_csv} lists no clip.")
        absent = sorted({clip.video for clip in table if not table.path(clip).exists()})
        if absent:
            log.warning(
                "%s: %d videos of %s are not below %s, such as %s.",
                self.name,
                len(absent),
                self.manifest_csv,
                self.root,
                absent[0],
            )
        for clip in table:
            of_images = self.fps is not None and clip.fps is None and table.path(clip).is_dir()
            yield replace(clip, fps=self.fps) if of_images else clip

    def _found(self) -> Iterator[Clip]:
        """The clips in the folders, by the pattern."""
        if not self.root.is_dir():
            raise PainseqError(f"No folder at {self.root}: --data.root is the folder that holds the class folders.")
        videos, sequences, others = self._search()
        everything = sorted((*videos, *sequences))
        if not everything:
            images = any(PurePosixPath(path).suffix.lower() in IMAGES for path in others)
            raise PainseqError(
                f"{self.root} holds no video ({', '.join(VIDEOS)}). "
                + (
                    "It holds images: if each folder of images is a clip, give their frame rate, --data.fps."
                    if images
                    else "--data.root is the folder that holds the class folders."
                )
            )
        with_clips = {path.partition("/")[0] for path in everything}
        empty = sorted(
            path.name
            for path in self.root.iterdir()
            if path.is_dir() and not path.name.startswith(".") and path.name not in with_clips
        )
        if empty:
            raise PainseqError(
                f"The folder {empty[0]} below {self.root} holds no clip ({len(empty)} such). Put its videos there, or "
                "move it out of the data."
            )
        if others:
            log.warning(
                "%s: %d files left out that are no videos (%s), such as %s.",
                self.name,
                len(others),
                ", ".join(VIDEOS),
                others[0],
            )
        if sequences:
            tell_of_16_bits(self.name, self.root / min(sequences))
        for path in everything:
            clip_id = path if path in sequences else str(PurePosixPath(path).with_suffix(""))
            match = self.pattern.fullmatch(clip_id)
            if match is None or not match["subject"]:
                raise PainseqError(
                    f"{path} does not match --data.pattern {self.pattern.pattern!r}, which is compared with the path "
                    f"below --data.root without the suffix: {clip_id!r}. Rename the file, set the pattern to your "
                    "names, or list the clips in a table: --data.manifest."
                )
            yield Clip(
                clip_id=clip_id,
                subject_id=_composed(match["subject"]),
                video=path,
                label=match["label"] and _composed(match["label"]),
                fps=self.fps if path in sequences else None,
            )

    def _search(self) -> tuple[list[str], set[str], list[str]]:
        """Videos, folders of images and other files below the root's folders, as paths relative to the root."""
        videos: list[str] = []
        sequences: set[str] = set()
        others: list[str] = []
        for place, below, files in os.walk(self.root, onerror=_refuse, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            here = Path(place).relative_to(self.root)
            for name in sorted(files):
                path, suffix = (here / name).as_posix(), Path(name).suffix.lower()
                if name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini"):
                    continue
                if suffix in VIDEOS:
                    videos.append(path)
                elif suffix in IMAGES and self.fps is not None and here.parts:
                    sequences.add(here.as_posix())
                elif here.parts and not name.endswith(".faces.safetensors"):
                    # Tables and notes often lie in the root itself; face boxes lie beside their videos.
                    others.append(path)
        return videos, sequences, others


def _refuse(error: OSError) -> NoReturn:
    """A folder that may not be read would otherwise be passed over, with all its clips."""
    raise error


def _composed(name: str) -> str:
    """A name as it is usually typed: some systems write ä in file names as a and two dots."""
    return unicodedata.normalize("NFC", name)
