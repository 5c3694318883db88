"""The span of a video that each clip's features come from, as a store records it, and whether a manifest agrees."""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from painseq.errors import PainseqError
from painseq.records import Clip, Manifest

_NAMED = 3
_TOLERANCE = 1e-6
log = logging.getLogger("painseq")


@dataclass(frozen=True)
class RecordedSpan:
    """The span of a video that the features of a clip were extracted from.

    Args:
        data_set: name of the manifest.
        start_s: start of the span, in seconds since the first frame shown.
        end_s: end of the span, exclusive; None is the end of the video.
        fps: samples per second; None is every frame.
        image_fps: images per second, if the video is a folder of images.
        video: the first `SHORT_DIGEST` digits of `painseq.video.video_digest`; None in stores of earlier versions.
    """

    data_set: str
    start_s: float
    end_s: float | None
    fps: float | None
    image_fps: float | None
    video: str | None = None

    def __post_init__(self) -> None:
        numbers = (self.end_s, self.fps, self.image_fps)
        if (
            type(self.data_set) is not str
            or type(self.start_s) not in (int, float)
            or not all(value is None or type(value) in (int, float) for value in numbers)
            or not (self.video is None or type(self.video) is str)
        ):
            raise ValueError(f"not the span of a clip: {vars(self)}")

    @classmethod
    def of(cls, clip: Clip, manifest: Manifest, fps: float | None) -> RecordedSpan:
        """The span of a clip that is sampled at `fps`."""
        is_folder = clip.fps is not None and manifest.path(clip).is_dir()
        numbers = (clip.start_s, clip.end_s, fps, clip.fps if is_folder else None)
        start_s, end_s, fps, image_fps = (None if value is None else float(value) for value in numbers)
        assert start_s is not None
        return cls(manifest.name, start_s, end_s, fps, image_fps)

    def __str__(self) -> str:
        end = "the end" if self.end_s is None else f"{self.end_s:g} s"
        images = "" if self.image_fps is None else f", {self.image_fps:g} images a second"
        return f"{self.data_set}, {self.start_s:g} s to {end}{images}"


def check_spans(path: Path, recorded: Mapping[str, RecordedSpan], held: Container[str], manifest: Manifest) -> None:
    """Check that the features of a store come from the spans that a manifest gives now.

    Clips whose span is not recorded cannot be compared: a warning says so, once for each store.

    Args:
        path: the store's folder, for messages.
        recorded: clip id -> span; stores of earlier versions and of other tools have none.
        held: the store: which clips have features.
        manifest: the clips that are read.

    Raises:
        PainseqError: names the first clips whose span, images per second or data set differ.
    """
    clips = [clip for clip in manifest if clip.clip_id in held]
    differing = differing_spans(recorded, held, manifest)
    if differing:
        more = ", ..." if len(differing) > _NAMED else ""
        raise PainseqError(
            f"{path} holds features of other spans: {len(differing)} of {len(clips)} clips of {manifest.name} differ, "
            f"{', '.join(differing[:_NAMED])}{more}. Run `painseq extract` again with these data options, into this "
            "folder (it redoes the clips that changed) or into a new one; or go back to the data options of the store."
        )
    unknown = sum(clip.clip_id not in recorded for clip in clips)
    if unknown:
        _warn_of_unknown(path, unknown, len(clips))


def differing_spans(recorded: Mapping[str, RecordedSpan], held: Container[str], manifest: Manifest) -> list[str]:
    """Describe the clips whose recorded span, images per second or data set differ from the manifest's."""
    differing: list[str] = []
    for clip in manifest:
        stored = recorded.get(clip.clip_id) if clip.clip_id in held else None
        if stored is not None and not _same(stored, asked := _asked(clip, manifest, stored)):
            differing.append(f"{clip.clip_id!r} (in the store: {stored}; now: {asked})")
    return differing


def _asked(clip: Clip, manifest: Manifest, stored: RecordedSpan) -> RecordedSpan:
    # A video file has its own timestamps: its nominal frame rate does not matter.
    image_fps = None if stored.image_fps is None else clip.fps
    return RecordedSpan(manifest.name, clip.start_s, clip.end_s, stored.fps, image_fps)


def _same(a: RecordedSpan, b: RecordedSpan) -> bool:
    pairs = ((a.start_s, b.start_s), (a.end_s, b.end_s), (a.image_fps, b.image_fps))
    return a.data_set == b.data_set and all(
        x is y is None or (x is not None and y is not None and math.isclose(x, y, abs_tol=_TOLERANCE)) for x, y in pairs
    )


@cache
def _warn_of_unknown(path: Path, unknown: int, clips: int) -> None:
    log.warning(
        "%s does not record the spans of %d of %d clips (an earlier version or another tool wrote it), so it cannot be "
        "checked whether they are those of the manifest. If painseq wrote it, run the same `painseq extract` command "
        "once more: it records them, and extracts nothing again.",
        path,
        unknown,
        clips,
    )
