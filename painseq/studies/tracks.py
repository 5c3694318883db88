"""The face tracks of a data set: the face in each frame of each clip, stored in files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from painseq.data.datamodule import PainDataModule
from painseq.data.labels import LabelScheme
from painseq.errors import CLIP_FAILURES, PainseqError, printable, reason_of
from painseq.faces import FaceCrops
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.features import ExtractProgress
from painseq.features.engine import Outcome
from painseq.features.lock import StoreLock
from painseq.files import write_csv, write_json
from painseq.records import Clip, Manifest, Part
from painseq.runs import Process, versions
from painseq.spec import Spec
from painseq.studies.extract import clips_of_parts, describe_work
from painseq.video.ahead import read_ahead

COLUMNS = ("clip_id", "track", "frames", "faceless", "faceless_share", "faceless_spans_s", "switched_s", "reason")
log = logging.getLogger("painseq")


@dataclass(frozen=True)
class TrackedClip:
    """The result of a clip.

    Args:
        clip: the clip.
        file: name of the track's file; empty if the clip failed.
        frames: number of frames; 0 if the clip failed.
        faceless: number of frames without a face.
        located: number of frames processed by the locator.
        spans_s: first and last time in seconds of each run of faceless frames, "0.120-0.360;1.000-1.040".
        switched_s: times from which on another person may be followed, "1.533;4.200".
        reason: why the clip failed, without paths of this machine; empty if it did not.
        tracked_before: whether the track is from an earlier run.
    """

    clip: Clip
    file: str = ""
    frames: int = 0
    faceless: int = 0
    located: int = 0
    spans_s: str = ""
    switched_s: str = ""
    reason: str = ""
    tracked_before: bool = False

    @classmethod
    def of(cls, clip: Clip, file: str, track: StoredTrack, tracked_before: bool) -> TrackedClip:
        """Summarise a track."""
        spans_s = ";".join(f"{first:.3f}-{last:.3f}" for first, last in track.face.spans_without_face())
        faceless = int((~track.face.present).sum())
        switched_s = ";".join(f"{time_s:.3f}" for time_s in track.face.switched_s)
        return cls(clip, file, len(track.face), faceless, track.located, spans_s, switched_s, "", tracked_before)

    def row(self) -> list[object]:
        """Return the row of faces.csv."""
        if self.reason:
            return [self.clip.clip_id, "", "", "", "", "", "", self.reason]
        share = f"{self.faceless / self.frames:.4f}"
        return [self.clip.clip_id, self.file, self.frames, self.faceless, share, self.spans_s, self.switched_s, ""]


@dataclass(frozen=True)
class TracksSummary:
    """The summary of a run.

    Args:
        tracking: settings of detection and tracking.
        clips: number of clips of this process.
        found: number of clips tracked in this run.
        found_before: number of clips tracked in earlier runs.
        failed: clip id -> reason; the next run tries these again.
        frames: number of frames of all tracks, including earlier runs.
        frames_located: number of these frames processed by the locator.
        faceless: number of these frames without a face.
        clips_without_face: number of clips without any face.
        switched: clip id -> times in seconds from which on another person may be followed, "1.533;4.200".
        faceless_by_label: class, or "hidden" -> clips, frames and faceless frames.
        seconds: duration of this run.
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
    switched: Mapping[str, str]
    faceless_by_label: Mapping[str, Mapping[str, int]]
    seconds: float

    def __str__(self) -> str:
        text = (
            f"{self.clips} clips: {self.found} tracked, {self.found_before} tracked before, {len(self.failed)} failed; "
            f"{self.frames} frames, {self.frames_located} processed by the locator; {self.faceless} frames without a "
            f"face, {self.clips_without_face} clips without any face; {self.seconds:.1f} s"
        )
        switched = [f"another person may be followed: {key}: from {value} s on" for key, value in self.switched.items()]
        failed = [f"failed: {clip_id}: {reason}" for clip_id, reason in self.failed.items()]
        return "\n  ".join([text, *switched, *failed])


def track_faces(
    data: PainDataModule,
    out: str | Path,
    parts: Sequence[Part] = (),
    workers: int = 1,
    process: Process | None = None,
    on_progress: Callable[[ExtractProgress], None] | None = None,
) -> TracksSummary:
    """Detect and track the face in a data set's videos, or complete an existing folder of tracks.

    `out` gets one file per track, `faces.csv` (one row per clip) and `summary.json`.

    Args:
        data: data with the clips, their face crop (`options.face`) and frame rate (`options.fps`).
        parts: only the clips of these parts; empty: all clips.
        workers: number of threads that read videos.
        process: this process, which tracks its share of the clips; None: all clips.

    Raises:
        PainseqError: no face crop; a folder of tracks with other settings, or that another launch fills; the locator's
            package or model is missing; no clip could be read, or no face was found in any frame (results are kept).

    Example:
        >>> from painseq.studies.tracks import track_faces
        >>> track_faces(data, Path("tracks/ai4pain")).failed
        {}
    """
    out = Path(out)
    face, process = data.options.face, process or Process()
    if face is None:
        raise PainseqError("Face tracks need a face crop. Add `face` to the data options.")
    if workers < 1:
        raise PainseqError(f"workers is {workers}; it must be 1 or more.")
    manifest = clips_of_parts(data, parts)
    share = manifest.only(manifest.clips[process.rank :: process.count])
    folder = TrackFolder(out, face.tracking())
    log.info("%s: %s", data.name, describe_work(share, face, out, process))
    started = time.perf_counter()
    with _begun(folder, process):
        tracked = _track_all(share, face, data.options.fps, folder, workers, on_progress or (lambda progress: None))
        summary = _summary(tracked, face, data.scheme, time.perf_counter() - started)
        log.info("%s", summary)
        suffix = f"-{process.rank}" if process.rank else ""
        _write_csv(folder.path / f"faces{suffix}.csv", tracked)
        write_json(folder.path / f"summary{suffix}.json", {"versions": versions(), **asdict(summary)})
    if not face.locator.needs_pixels:
        log.warning(
            "%s reads faces from files next to the videos: crops use these files, not the tracks written here.",
            type(face.locator).__name__,
        )
    problem = _problem(summary, data.name, type(face.locator).__name__)
    if problem and process.count == 1:
        raise PainseqError(problem)
    if problem:
        log.warning("%s", problem)
    return summary


@contextmanager
def _begun(folder: TrackFolder, process: Process) -> Iterator[None]:
    """Begin a folder of tracks, or complete it, and hold its lock."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = StoreLock(folder.path, process)
    lock.enter(folder.begin, folder.exists)
    try:
        folder.check()
        yield
    finally:
        lock.leave(None)


def _problem(summary: TracksSummary, dataset: str, locator: str) -> str:
    """Return the problem of a run without any result; empty if there are results."""
    if summary.failed and len(summary.failed) == summary.clips:
        clip_id, reason = next(iter(summary.failed.items()))
        return f"None of {summary.clips} clips could be read. The first, {clip_id}: {reason}"
    if summary.frames and summary.frames == summary.faceless:
        return (
            f"{dataset}: no face found in any of {summary.frames} frames (locator {locator}). Check that the "
            "videos show an upright and large enough face; another locator or a lower min_score may find it."
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
    """Track every clip; returns the results in the manifest's order."""

    def work(clip: Clip) -> list[TrackedClip]:
        return [_track(manifest, clip, face, fps, folder)]

    tracked: dict[str, TrackedClip] = {}
    frames = faceless = failed = 0
    started = time.perf_counter()
    with closing(read_ahead(manifest, work, workers, 2 * workers)) as results:
        for result in results:
            tracked[result.clip.clip_id] = result
            frames += 0 if result.tracked_before else result.frames
            faceless += 0 if result.tracked_before else result.faceless
            failed += bool(result.reason)
            outcome: Outcome = "failed" if result.reason else "skipped" if result.tracked_before else "extracted"
            rate = frames / max(time.perf_counter() - started, 1e-9)
            on_progress(
                ExtractProgress(
                    done=len(tracked),
                    total=len(manifest),
                    clip_id=result.clip.clip_id,
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
        tracked_before = place.is_file()
        track = (
            folder.read(place) if tracked_before else face.find_track(video, clip.start_s, clip.end_s, fps, clip.fps)
        )
        if not len(track.face):
            end = "its end" if clip.end_s is None else f"{clip.end_s} s"
            raise PainseqError(f"{video} has no frame between {clip.start_s} s and {end}.")
    except CLIP_FAILURES as error:
        reason = reason_of(error).replace(printable(str(video)), clip.clip_id)
        for path in (manifest.root, folder.path):
            reason = reason.replace(f"{path}{os.sep}", "")
        return TrackedClip(clip, reason=reason)
    if not tracked_before:
        # Outside the `try`: a full disk is not a fault of the clip, and ends the run.
        folder.write(place, track)
    return TrackedClip.of(clip, place.name, track, tracked_before)


def _write_csv(path: Path, tracked: Sequence[TrackedClip]) -> None:
    write_csv(path, [COLUMNS, *(result.row() for result in tracked)])


def _summary(tracked: Sequence[TrackedClip], face: FaceCrops, scheme: LabelScheme, seconds: float) -> TracksSummary:
    done = [result for result in tracked if not result.reason]
    by_label = {}
    for name in (*scheme.groups, "hidden"):
        of_label = [result for result in done if (scheme.group(result.clip.label) or "hidden") == name]
        if of_label:
            by_label[name] = {
                "clips": len(of_label),
                "frames": sum(result.frames for result in of_label),
                "faceless": sum(result.faceless for result in of_label),
            }
    return TracksSummary(
        tracking=face.tracking(),
        clips=len(tracked),
        found=sum(not result.tracked_before for result in done),
        found_before=sum(result.tracked_before for result in done),
        failed={result.clip.clip_id: result.reason for result in tracked if result.reason},
        frames=sum(result.frames for result in done),
        frames_located=sum(result.located for result in done),
        faceless=sum(result.faceless for result in done),
        clips_without_face=sum(result.frames == result.faceless for result in done),
        switched={result.clip.clip_id: result.switched_s for result in done if result.switched_s},
        faceless_by_label=by_label,
        seconds=round(seconds, 3),
    )
