"""The face tracks of a data set: where the face is in each frame of each clip, kept on disk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.labels import LabelScheme
from painseq.errors import LocatorUnavailable, PainseqError
from painseq.faces import FaceCrops
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.features import ExtractProgress
from painseq.features.engine import Outcome
from painseq.files import write_csv, write_json
from painseq.records import Clip, Manifest, Part
from painseq.runs import Process, versions
from painseq.spec import Spec
from painseq.studies.extract import clips_of_parts, what_is_read

COLUMNS = ("clip_id", "track", "frames", "faceless", "faceless_share", "faceless_spans_s", "reason")
log = logging.getLogger("painseq")


@dataclass(frozen=True)
class TrackedClip:
    """What became of a clip.

    Args:
        clip: the clip.
        file: name of its track in the folder; empty if it failed.
        frames: of the clip; 0 if it failed.
        faceless: frames without a face.
        located: frames at which the locator looked.
        spans_s: first and last moment of each run of faceless frames, "0.120-0.360;1.000-1.040".
        reason: why it failed, without paths of this machine; empty if it did not.
        was_there: the track was found in an earlier run.
    """

    clip: Clip
    file: str = ""
    frames: int = 0
    faceless: int = 0
    located: int = 0
    spans_s: str = ""
    reason: str = ""
    was_there: bool = False

    @classmethod
    def of(cls, clip: Clip, file: str, track: StoredTrack, was_there: bool) -> TrackedClip:
        """Sum up a track; the track itself lies on disk."""
        spans_s = ";".join(f"{first:.3f}-{last:.3f}" for first, last in track.face.spans_without_face())
        faceless = int((~track.face.present).sum())
        return cls(clip, file, len(track.face), faceless, track.located, spans_s, "", was_there)

    def row(self) -> list[object]:
        """Its row in faces.csv."""
        if self.reason:
            return [self.clip.clip_id, "", "", "", "", "", self.reason]
        share = f"{self.faceless / self.frames:.4f}"
        return [self.clip.clip_id, self.file, self.frames, self.faceless, share, self.spans_s, ""]


@dataclass(frozen=True)
class TracksSummary:
    """What a run did.

    Args:
        tracking: how the faces were found and followed.
        clips: clips of this process.
        found: clips tracked in this run.
        found_before: clips tracked in an earlier one.
        failed: clip id -> reason; these are tried again in the next run.
        frames: frames of all tracks, those found before included.
        frames_located: frames among them at which the locator looked.
        faceless: frames among them without a face.
        clips_without_face: clips without any face.
        faceless_by_label: class -> clips, frames and faceless frames; "hidden" where the label is.
        seconds: this run took.
    """

    tracking: Spec
    clips: int
    found: int
    found_before: int
    failed: Mapping[str, str]
    frames: int
    frames_located: int
    faceless: int
    clips_without_face: int
    faceless_by_label: Mapping[str, Mapping[str, int]]
    seconds: float

    def __str__(self) -> str:
        text = (
            f"{self.clips} clips: {self.found} tracked, {self.found_before} tracked before, {len(self.failed)} failed; "
            f"{self.frames} frames, the locator looked at {self.frames_located}; {self.faceless} frames without a "
            f"face, {self.clips_without_face} clips without any; {self.seconds:.1f} s"
        )
        return "\n  ".join([text, *(f"failed: {clip_id}: {reason}" for clip_id, reason in self.failed.items())])


def track_faces(
    data: PainDataModule,
    out: str | Path,
    parts: Sequence[Part] = (),
    workers: int = 1,
    process: Process | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> TracksSummary:
    """Find and follow the face in a data set's videos; a folder of tracks that is there already is completed.

    `out` gets a file a track, `faces.csv` (a row a clip) and `summary.json`.

    Args:
        data: says which clips, how faces are found (`options.face`) and sampled (`options.fps`).
        parts: only the clips of these parts; empty: all clips.
        workers: threads that read videos.
        process: which share of the clips is this process's; None: all of them.

    Raises:
        PainseqError: no face crop; a folder of tracks found otherwise; the locator's package or model is not there;
            not one clip could be read, or no face was found in any frame (what was found is kept).

    Example:
        >>> from painseq.studies.tracks import track_faces
        >>> track_faces(data, Path("tracks/ai4pain")).failed
        {}
    """
    out = Path(out)
    face, process = data.options.face, process or Process()
    if face is None:
        raise PainseqError("Face tracks need a face crop: add a `face` to the data options.")
    if workers < 1:
        raise PainseqError(f"workers is {workers}; it must be 1 or more.")
    manifest = clips_of_parts(data, parts)
    mine = manifest.only(manifest.clips[process.rank :: process.count])
    folder = TrackFolder(out, face.tracking())
    log.info("%s: %s", data.name, what_is_read(mine, face, out, process))
    started = time.perf_counter()
    folder.begin()
    tracked = _track_all(mine, face, data.options.fps, folder, workers, on_progress or (lambda now: None))
    summary = _summary(tracked, face, data.scheme, time.perf_counter() - started)
    log.info("%s", summary)
    suffix = f"-{process.rank}" if process.rank else ""
    _write_csv(folder.path / f"faces{suffix}.csv", tracked)
    write_json(folder.path / f"summary{suffix}.json", {"versions": versions(), **asdict(summary)})
    if not face.locator.needs_pixels:
        log.warning(
            "%s reads faces from files beside the videos: its crops are cut from these, and not from the tracks here.",
            type(face.locator).__name__,
        )
    problem = _problem(summary, data.name, type(face.locator).__name__)
    if problem and process.count == 1:
        raise PainseqError(problem)
    if problem:
        log.warning("%s", problem)
    return summary


def _problem(summary: TracksSummary, dataset: str, locator: str) -> str:
    """What is wrong with a run that found nothing; empty if it found something."""
    if summary.failed and len(summary.failed) == summary.clips:
        clip_id, reason = next(iter(summary.failed.items()))
        return f"Not one of {summary.clips} clips could be read. The first, {clip_id}: {reason}"
    if summary.frames and summary.frames == summary.faceless:
        return (
            f"{dataset}: no face found in any of {summary.frames} frames (locator {locator}). Look at a video: is a "
            "face in it, upright and large enough? Another locator or a lower min_score may find it."
        )
    return ""


def _track_all(
    manifest: Manifest,
    face: FaceCrops,
    fps: float | None,
    folder: TrackFolder,
    workers: int,
    on_progress: Callable[[ExtractProgress], None],
) -> list[TrackedClip]:
    """Every clip's track, in the manifest's order."""

    def work(clip: Clip) -> TrackedClip:
        return _track(manifest, clip, face, fps, folder)

    tracked: dict[str, TrackedClip] = {}
    frames = faceless = failed = 0
    started = time.perf_counter()
    # Its threads do not hold the process back when it is interrupted; a track is there whole or not at all.
    with ThreadPool(workers) as pool:
        for one in pool.imap_unordered(work, manifest):
            tracked[one.clip.clip_id] = one
            frames += 0 if one.was_there else one.frames
            faceless += 0 if one.was_there else one.faceless
            failed += bool(one.reason)
            outcome: Outcome = "failed" if one.reason else "skipped" if one.was_there else "extracted"
            rate = frames / max(time.perf_counter() - started, 1e-9)
            on_progress(
                ExtractProgress(
                    done=len(tracked),
                    total=len(manifest),
                    clip_id=one.clip.clip_id,
                    outcome=outcome,
                    frames=frames,
                    faceless=faceless,
                    failed=failed,
                    frames_per_s=rate,
                )
            )
    return [tracked[clip.clip_id] for clip in manifest]


def _track(manifest: Manifest, clip: Clip, face: FaceCrops, fps: float | None, folder: TrackFolder) -> TrackedClip:
    video = manifest.path(clip)
    try:
        place = folder.place(video, clip.start_s, clip.end_s, fps, clip.fps)
        was_there = place.is_file()
        track = folder.read(place) if was_there else face.find_track(video, clip.start_s, clip.end_s, fps, clip.fps)
        if not len(track.face):
            end = "its end" if clip.end_s is None else f"{clip.end_s} s"
            raise PainseqError(f"{video} has no frame between {clip.start_s} s and {end}.")
    except LocatorUnavailable:
        raise  # No fault of the clip.
    except (PainseqError, OSError) as error:
        reason = str(error).replace(str(video), clip.clip_id)
        for path in (manifest.root, folder.path):
            reason = reason.replace(f"{path}{os.sep}", "")
        return TrackedClip(clip, reason=reason)
    if not was_there:
        # Not in the `try`: a full disk is no fault of the clip, and ends the run.
        folder.write(place, track)
    return TrackedClip.of(clip, place.name, track, was_there)


def _write_csv(path: Path, tracked: Sequence[TrackedClip]) -> None:
    write_csv(path, [COLUMNS, *(one.row() for one in tracked)])


def _summary(tracked: Sequence[TrackedClip], face: FaceCrops, scheme: LabelScheme, seconds: float) -> TracksSummary:
    done = [one for one in tracked if not one.reason]
    by_label = {}
    for name in (*scheme.groups, "hidden"):
        of_label = [one for one in done if (scheme.group(one.clip.label) or "hidden") == name]
        if of_label:
            by_label[name] = {
                "clips": len(of_label),
                "frames": sum(one.frames for one in of_label),
                "faceless": sum(one.faceless for one in of_label),
            }
    return TracksSummary(
        tracking=face.tracking(),
        clips=len(tracked),
        found=sum(not one.was_there for one in done),
        found_before=sum(one.was_there for one in done),
        failed={one.clip.clip_id: one.reason for one in tracked if one.reason},
        frames=sum(one.frames for one in done),
        frames_located=sum(one.located for one in done),
        faceless=sum(one.faceless for one in done),
        clips_without_face=sum(one.frames == one.faceless for one in done),
        faceless_by_label=by_label,
        seconds=round(seconds, 3),
    )
