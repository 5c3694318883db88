"""Facial movements of video files: a table and a picture of each, in one folder, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from painseq.errors import CLIP_FAILURES, PainseqError, reason_of
from painseq.faces import FaceMesh
from painseq.faces.movements import Movements, joined, movement_parts
from painseq.faces.track import switch_warning
from painseq.files import write_atomically, write_json
from painseq.records import MIN_FACE_SHARE
from painseq.runs import OnProgress, check_same_run, locked_folder, no_progress, read_json
from painseq.studies.movements_picture import StripFrames, mesh_frames, movements_picture
from painseq.video import open_video, video_digest
from painseq.video.container import bare_name
from painseq.video.finding import videos_in
from painseq.video.generated import is_generated
from painseq.video.writing import write_video

SETTINGS = ".settings.json"
"""Hidden, since the files of a video may have any other name."""


@dataclass(frozen=True)
class MovementOptions:
    """How videos are read, and what is written.

    Args:
        locator: finds the points of the face.
        start_s: start of the span of each video, in seconds from the first frame.
        end_s: end of the span, exclusive; None: the end of the video.
        image_fps: images per second, if a video is a folder of images.
        video: also write an MP4 with the mesh drawn.
        show_faces: draw faces. Otherwise only generated faces are drawn, and of others the mesh alone.
    """

    locator: FaceMesh = field(default_factory=FaceMesh)
    start_s: float = 0.0
    end_s: float | None = None
    image_fps: float | None = None
    video: bool = False
    show_faces: bool = False

    def settings(self) -> dict[str, object]:
        """Return what decides the files of a video, for its resumption."""
        return {
            "locator": self.locator.identity(),
            "start_s": self.start_s,
            "end_s": self.end_s,
            "image_fps": self.image_fps,
            "video": self.video,
            "show_faces": self.show_faces,
        }


@dataclass(frozen=True)
class MovementResult:
    """What was found in one video.

    Args:
        video: file or folder of images.
        table: its CSV; None if the video could not be read.
        summary: content of its JSON file; None if the video could not be read.
        problem: why not, or what is doubtful: another person may be followed, most frames have no face.
    """

    video: Path
    table: Path | None
    summary: dict[str, object] | None
    problem: str | None


def find_videos(paths: Sequence[Path]) -> dict[str, Path]:
    """List videos, and those inside of folders, by the name of their files in the output folder.

    A folder of images counts as a video if it has no video in it.

    Raises:
        PainseqError: nothing there, or two videos of the same name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for video in videos_in(path):
            inside = video != path
            name = (video.relative_to(path) if inside else Path(video.name)).with_name(bare_name(video)).as_posix()
            if name in found and found[name] != video:
                raise PainseqError(
                    f"{found[name]} and {video} would both be written as {name}.csv. Give their folder, or write them "
                    "to different folders."
                )
            found[name] = video
    return found


def write_movements(
    videos: Sequence[str | Path],
    out: str | Path,
    options: MovementOptions | None = None,
    on_progress: OnProgress = no_progress,
) -> Iterator[MovementResult]:
    """Write the facial movements of videos: NAME.csv, NAME.png, NAME.json, and with `options.video` NAME.mp4.

    A video that cannot be read does not stop the others. Videos whose files are complete are not read again.

    Args:
        videos: video files, folders of images, or folders of videos, which are searched.
        out: folder to write to.
        options: how videos are read.
        on_progress: called after each video.

    Yields:
        The result of each video, as soon as its files are written.

    Raises:
        PainseqError: two videos of the same name; `out` was written with other options, or another process writes
            there.

    Example:
        >>> for result in write_movements(["videos"], "movements"):
        ...     print(result.video, result.problem or "ok")
    """
    chosen, folder = options or MovementOptions(), Path(out)
    named = find_videos([Path(video) for video in videos])
    with locked_folder(folder):
        recorded = read_json(folder / SETTINGS)
        if recorded is None:
            write_json(folder / SETTINGS, chosen.settings())
        else:
            check_same_run(folder, recorded, chosen.settings())
        for done, (name, video) in enumerate(named.items(), start=1):
            yield _written(video, folder / name, chosen)
            on_progress(done, len(named))


def _written(video: Path, place: Path, options: MovementOptions) -> MovementResult:
    try:
        summary = _finished(video, place, options) or _write(video, place, options)
    except CLIP_FAILURES as error:
        return MovementResult(video, None, None, reason_of(error))
    warnings = summary["warnings"]
    assert isinstance(warnings, list)
    return MovementResult(video, Path(f"{place}.csv"), summary, " ".join(warnings) or None)


def _finished(video: Path, place: Path, options: MovementOptions) -> dict[str, object] | None:
    """Return the summary of an earlier run of the same video; its file was written last."""
    summary = read_json(Path(f"{place}.json"))
    same = (
        Path(f"{place}.csv").is_file()
        and summary is not None
        and summary.get("video_digest") == video_digest(video, options.image_fps)
    )
    return summary if same else None


def _write(video: Path, place: Path, options: MovementOptions) -> dict[str, object]:
    digest = video_digest(video, options.image_fps)
    place.parent.mkdir(parents=True, exist_ok=True)
    show_faces = options.show_faces or is_generated(video)
    parts: list[Movements] = []
    strip = StripFrames(show_faces)

    def frames() -> Iterator[NDArray[np.uint8]]:
        span = (options.start_s, options.end_s, options.image_fps)
        for images, points, part in movement_parts(video, options.locator, *span):
            parts.append(part)
            strip.add(images, points, part)
            if options.video:
                yield from mesh_frames(images, points, show_faces)

    if options.video:
        write_video(Path(f"{place}.mp4"), frames(), _mean_fps(video, options.image_fps))
    else:
        list(frames())
    table = joined(parts)
    if not len(table):
        raise PainseqError(f"{video}: no frame lies in the span from {options.start_s:g} s on.")
    table.write_csv(Path(f"{place}.csv"))
    title = f"{video.name}: facial-movement coefficients (no action units, no PSPI)"
    write_atomically(Path(f"{place}.png"), movements_picture(table, strip.stills(), title))
    summary = _summary(video, digest, table)
    write_json(Path(f"{place}.json"), summary)
    return summary


def _summary(video: Path, digest: str, table: Movements) -> dict[str, object]:
    share = float(table.success.mean())
    warnings = []
    if share < MIN_FACE_SHARE:
        warnings.append(f"only {int(table.success.sum())} of {len(table)} frames have a face.")
    if table.most_faces > 1:
        warnings.append(f"up to {table.most_faces} faces in a frame; the largest one at the start is followed.")
    if table.switched_s:
        warnings.append(switch_warning(table.switched_s))
    return {
        "video": video.as_posix(),
        "video_digest": digest,
        "frames": len(table),
        "frames_with_face": int(table.success.sum()),
        "duration_s": float(table.times_s[-1]),
        "warnings": warnings,
    }


def _mean_fps(video: Path, image_fps: float | None) -> float:
    with open_video(video, image_fps=image_fps) as opened:
        times_s = opened.times_s
    return (len(times_s) - 1) / float(times_s[-1] - times_s[0]) if len(times_s) > 1 else 25.0
