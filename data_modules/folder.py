"""The user's own data: class folders with the subject in the file names, or a table of the clips."""

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
from painseq.errors import PainseqError, first_few, printable
from painseq.records import Clip, Manifest, read_manifest
from painseq.video import VIDEO_SUFFIXES
from painseq.video.container import IMAGE_SUFFIXES

from .files import warn_of_16_bits
from .pattern import compiled_pattern

log = logging.getLogger("painseq")

PATTERN = r"(?P<label>[^/]+)/(?P<subject>[^/_]+)_[^/]+"


class Folder(PainDataModule):
    """`<root>/<class>/<subject>_<anything>.mp4`, or files that match `pattern`, or a CSV of the clips.

    A clip is a video or, if `fps` is given, a folder of images. Its id is its path relative to the root, without the
    suffix. Hidden files are ignored.

    Args:
        root: the folder that the clips' paths are relative to.
        options: labels, split, view. `labels: native` makes each label a class.
        name: name of the data set. Subjects of two data sets count as the same people only if the names are equal.
            The name of a data set that painseq knows selects its label schemes.
        manifest: a CSV that lists the clips, with the fields of `painseq.records.Clip` as columns; the folders are then
            not searched. The column `video` may be left out if the options give a feature store.
        pattern: regular expression for a clip's path relative to the root, without the suffix, with the named groups
            `subject` and `label`.
        classes: all possible labels, in order of pain; empty uses the labels found.
        fps: frames per second of folders of images.

    Raises:
        PainseqError: an invalid pattern, a duplicate class, an empty name.
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
        # Imported here, because the package defines the facts after importing this file.
        from . import FACTS

        super().__init__(root, options)
        if not name.strip() or "/" in name:
            raise PainseqError(f"name (--data.name) is {name!r}; it must be a non-empty name without a slash.")
        names = tuple(_nfc(str(name)) for name in classes)
        if len(set(names)) != len(names):
            raise PainseqError(f"classes (--data.classes) has a duplicate: {first_few(names)}.")
        if fps is not None and not fps > 0:
            raise PainseqError(f"fps (--data.fps) is {fps}; it must be more than 0.")
        self.name = name
        self.facts = FACTS.get(name, DataSetFacts())
        self.manifest_csv = manifest
        self.pattern = compiled_pattern(pattern, "subject", "label")
        # Folders are often called 0, 1, 2, which YAML reads as numbers.
        self.classes = names
        self.fps = fps

    def read_manifest(self) -> Manifest:
        """List the clips of the table, or those found in the folders.

        Raises:
            PainseqError: no such folder or table; no clips; a clip that does not match the pattern; a label that is not
                in `classes`; a folder without clips; clips of a single subject; a path outside the root.
        """
        manifest = Manifest(self.name, self.root, tuple(self._listed() if self.manifest_csv else self._found()))
        unknown = [clip for clip in manifest if self.classes and clip.label not in (*self.classes, None)]
        if unknown:
            raise PainseqError(
                f"{unknown[0].video}: its label {unknown[0].label!r} is not in classes (--data.classes: "
                f"{first_few(self.classes)}); this concerns {len(unknown)} of {len(manifest)} clips. Add the class, at "
                "its position in the order of pain, or remove these clips."
            )
        if not self.classes:
            found = first_few(ordered_labels({clip.label for clip in manifest if clip.label is not None}))
            log.info("%s: labels found: %s. Set --data.classes to fix the labels and their order.", self.name, found)
        absent = [name for name in self.classes if all(clip.label != name for clip in manifest)]
        if absent:
            log.warning("%s: no clips of class %s, listed in --data.classes.", self.name, first_few(absent))
        if len(manifest.subjects) == 1 and all(clip.part is None for clip in manifest):
            fix = (
                f"correct the column subject_id of {self.manifest_csv}"
                if self.manifest_csv
                else "set pattern (--data.pattern) so that its group `subject` distinguishes them"
            )
            raise PainseqError(
                f"All {len(manifest)} clips are of one subject, {manifest.subjects[0]!r}, but a split needs several. "
                f"If they show several people, {fix}."
            )
        return manifest

    def _listed(self) -> Iterator[Clip]:
        """List the clips of the table."""
        assert self.manifest_csv is not None
        of_features = self.options.store is not None
        table = read_manifest(self.manifest_csv, self.root, self.name, needs_video=not of_features)
        if not len(table):
            raise PainseqError(f"{self.manifest_csv} lists no clips.")
        absent = sorted({clip.video for clip in table if not table.path(clip).exists()})
        if of_features and len(absent) == len({clip.video for clip in table}):
            log.info("%s: none of the videos exists below %s; features are read from the store.", self.name, self.root)
        elif absent:
            log.warning(
                "%s: %d videos of %s do not exist below %s, such as %s.",
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
        """Find the clips in the folders, by the pattern."""
        if not self.root.is_dir():
            raise PainseqError(
                f"No folder at {self.root}: root (--data.root) must be the folder with the class folders."
            )
        videos, sequences, others = self._search()
        all_clips = sorted((*videos, *sequences))
        if not all_clips:
            images = any(PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES for path in others)
            raise PainseqError(
                f"{self.root} has no videos ({', '.join(VIDEO_SUFFIXES)}). "
                + (
                    "It has images: if each folder of images is a clip, set their frame rate, fps (--data.fps)."
                    if images
                    else "root (--data.root) must be the folder with the class folders."
                )
            )
        with_clips = {path.partition("/")[0] for path in all_clips}
        empty = sorted(
            path.name
            for path in self.root.iterdir()
            if path.is_dir() and not path.name.startswith(".") and path.name not in with_clips
        )
        if empty:
            raise PainseqError(
                f"The folder {empty[0]} in {self.root} has no clips ({len(empty)} such folders). Add its videos, or "
                "move it elsewhere."
            )
        if others:
            log.warning(
                "%s: %d files that are not videos (%s) are ignored, such as %s.",
                self.name,
                len(others),
                ", ".join(VIDEO_SUFFIXES),
                others[0],
            )
        if sequences:
            warn_of_16_bits(self.name, self.root / min(sequences))
        for path in all_clips:
            clip_id = printable(path if path in sequences else str(PurePosixPath(path).with_suffix("")))
            match = self.pattern.fullmatch(clip_id)
            if match is None or not match["subject"]:
                raise PainseqError(
                    f"{path} does not match pattern (--data.pattern) {self.pattern.pattern!r}, which is applied to the "
                    f"path relative to --data.root without the suffix: {clip_id!r}. Rename the file, adapt the pattern "
                    "to your file names, or list the clips in a table: manifest (--data.manifest)."
                )
            yield Clip(
                clip_id=clip_id,
                subject_id=_nfc(match["subject"]),
                video=path,
                label=match["label"] and _nfc(match["label"]),
                fps=self.fps if path in sequences else None,
            )

    def _search(self) -> tuple[list[str], set[str], list[str]]:
        """Find videos, folders of images and other files in the root's folders, as paths relative to the root."""
        videos: list[str] = []
        sequences: set[str] = set()
        others: list[str] = []
        for folder, subfolders, files in os.walk(self.root, onerror=_raise, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            relative = Path(folder).relative_to(self.root)
            for name in sorted(files):
                path, suffix = (relative / name).as_posix(), Path(name).suffix.lower()
                if name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini"):
                    continue
                if suffix in VIDEO_SUFFIXES:
                    videos.append(path)
                elif suffix in IMAGE_SUFFIXES and self.fps is not None and relative.parts:
                    sequences.add(relative.as_posix())
                elif relative.parts and not name.endswith(".faces.safetensors"):
                    # Tables and notes are often in the root itself; sidecars with faces are next to their videos.
                    others.append(path)
        return videos, sequences, others


def _raise(error: OSError) -> NoReturn:
    """Raise the error: `os.walk` would silently skip an unreadable folder with all its clips."""
    raise error


def _nfc(name: str) -> str:
    """Normalise a name to NFC: some systems store ä in file names as two characters."""
    return unicodedata.normalize("NFC", name)
