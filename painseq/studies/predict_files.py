"""Prediction of many videos: in several processes, and into a file that a later run resumes."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from painseq.data.streams import table_of
from painseq.download import sha256_of
from painseq.errors import CLIP_FAILURES, PainseqError, printable
from painseq.faces import Sidecar
from painseq.files import appending, read_json_lines, write_atomically
from painseq.runs import OnProgress, check_same_run, end_with_parent, no_progress
from painseq.spec import Spec
from painseq.studies.model_files import ModelFiles
from painseq.studies.predict_videos import VideoOptions, VideoResult, predict_models, ready_models
from painseq.video import video_digest
from painseq.video.finding import videos_in

LINE_START = b'{"model": '
"""How each line of a file of predictions starts."""
Results = list[tuple[str, VideoResult]]
"""Name of a model, and its result, of one video."""


def predict_to_file(
    models: ModelFiles,
    videos: Sequence[str | Path],
    out: str | Path,
    options: VideoOptions = VideoOptions(),
    jobs: int = 1,
    on_progress: OnProgress = no_progress,
) -> Iterator[tuple[str, VideoResult]]:
    """Predict videos, and write a line of JSON for each video and model, as soon as it is known.

    A line holds what `VideoPrediction.to_dict` tells, the name of the model, the problem if there is one, and the
    settings. Run again, the videos that the file holds are left out; those that failed or changed are tried again.
    Lines of videos that this call does not name, or that are no longer there, stay.

    Args:
        models: the models; each process loads them once.
        videos: video files, folders of images, or folders of videos, which are searched.
        out: the file, usually .jsonl; its folder must exist.
        options: how videos are read.
        jobs: number of processes; with more than one, each uses one thread.
        on_progress: called with the number of finished videos, and of all.

    Yields:
        Name of the model, and the result of a video that was not in the file; with several processes in any order.

    Raises:
        PainseqError: the file holds results of other models or settings, or is no such file; another process writes
            into it; a model cannot be loaded; see also `ready_models`.
        OSError: the file cannot be written.

    Example:
        >>> models = ModelFiles((Path("exported/lstm"),))
        >>> for name, result in predict_to_file(models, ["videos"], "predictions.jsonl", jobs=4):
        ...     print(result.video, result.problem or result.prediction.label)
    """
    found, out = all_videos(videos), Path(out)
    settings = _settings(models, options)
    with _resumed(out, found, settings, options) as (done, append):
        remaining = [video for video in found if not {(name, video.as_posix()) for name in settings} <= done]
        count = len(found) - len(remaining)
        on_progress(count, len(found))
        for results in predict_in_processes(models, remaining, options, jobs):
            for name, result in results:
                if (name, result.video.as_posix()) not in done:
                    append(_line(name, result, options, settings[name]))
                    yield name, result
            count += 1
            on_progress(count, len(found))


def predict_in_processes(
    models: ModelFiles, videos: Sequence[Path], options: VideoOptions = VideoOptions(), jobs: int = 1
) -> Iterator[Results]:
    """Predict videos with several models.

    A video at which a process is killed, by too little memory or a fault of a decoder, is a result with a problem.

    Args:
        models: the models; each process loads them once.
        videos: video files, or folders of images.
        options: how videos are read.
        jobs: number of processes; with more than one, each uses one thread. 1 predicts in this process.

    Yields:
        The results of a video; with several processes in any order.

    Raises:
        PainseqError: `jobs` is below 1; a model cannot be loaded, or a process was killed while it loaded them; see
            also `ready_models`.
    """
    if jobs < 1:
        raise PainseqError(f"jobs is {jobs}; it must be 1 or more (command line: --jobs).")
    if jobs == 1 or len(videos) < 2:
        ready = predict_models(models.load(), videos, options) if videos else iter(())
        number = 1 if models.average else len(models.paths)
        yield from ([next(ready) for _ in range(number)] for _ in videos)
        return
    with _Pool(models, options, len(videos)) as pool:
        yield from pool.run(videos, min(jobs, len(videos)))


def all_videos(paths: Sequence[str | Path]) -> list[Path]:
    """Return videos, and those inside of folders, each once."""
    return list(dict.fromkeys(video for path in paths for video in videos_in(Path(path))))


@dataclass
class _Worker:
    """A process, and the video that it is at; None before it has loaded the models."""

    process: BaseProcess
    video: Path | None = None


class _Pool:
    """Processes that each predict one video after the other, and are replaced if they are killed."""

    def __init__(self, models: ModelFiles, options: VideoOptions, videos: int) -> None:
        self._task = (models, options, videos)
        self._names = ("average",) if models.average else tuple(map(str, models.paths))
        self._workers: dict[Connection, _Worker] = {}

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for connection, worker in self._workers.items():
            worker.process.terminate()
            connection.close()
        for worker in self._workers.values():
            worker.process.join()

    def run(self, videos: Sequence[Path], jobs: int) -> Iterator[Results]:
        waiting = deque(videos)
        for _ in range(jobs):
            self._start()
        while self._workers:
            for ready in wait(list(self._workers)):
                assert isinstance(ready, Connection)
                worker = self._workers[ready]
                try:
                    answer: Results | PainseqError | ImportError | None = ready.recv()
                except (EOFError, ConnectionError):
                    answer = self._after_death(ready, worker, bool(waiting))
                if isinstance(answer, PainseqError | ImportError):
                    raise answer
                if answer is not None:
                    yield answer
                if ready in self._workers:
                    self._next(ready, waiting)

    def _start(self) -> None:
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, *self._task), daemon=True)
        # Ctrl-C reaches all processes of a terminal; this one ends the others, also while they start.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self._workers[here] = _Worker(process)

    def _next(self, connection: Connection, waiting: deque[Path]) -> None:
        """Give a process another video, or end it."""
        worker = self._workers[connection]
        worker.video = waiting.popleft() if waiting else None
        # It may have been killed since; the next look at it tells.
        with suppress(ConnectionError):
            connection.send(worker.video)
        if worker.video is None:
            worker.process.join()
            connection.close()
            del self._workers[connection]

    def _after_death(self, connection: Connection, worker: _Worker, more: bool) -> Results:
        """Return what is known of the video that a killed process was at, and start another process."""
        worker.process.join()
        connection.close()
        del self._workers[connection]
        how = f"exit code {worker.process.exitcode}"
        if worker.video is None:
            raise PainseqError(
                f"A process ended while it loaded the models ({how}), perhaps for lack of memory. Use fewer processes "
                "(command line: --jobs). In a Python script, the call must be under "
                'if __name__ == "__main__".'
            )
        if more:
            self._start()
        problem = f"the process that read it was killed ({how}), perhaps for lack of memory or by a damaged file."
        return [(name, VideoResult(worker.video, None, problem)) for name in self._names]


def _serve(connection: Connection, models: ModelFiles, options: VideoOptions, videos: int) -> None:
    """Predict the videos that the parent names, until it names none."""
    end_with_parent()
    # As many processes as there are cores, with as many threads each, would slow each other down.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    try:
        ready = ready_models(models.load(threads=1), options, videos)
        connection.send(None)
        while (video := connection.recv()) is not None:
            connection.send([(each.name, each.predict(video)) for each in ready])
    except (PainseqError, ImportError) as error:
        connection.send(error)


def _settings(models: ModelFiles, options: VideoOptions) -> dict[str, Spec]:
    """Return name of a model -> plain values that decide its results."""
    person = [options.baseline, *options.same_person]
    shared: Spec = {
        "start_s": options.start_s,
        "end_s": options.end_s,
        "locator": None if options.locator is None else options.locator.identity(),
        "image_fps": options.image_fps,
        "action_units": None if options.action_units is None else sha256_of(options.action_units),
        "min_face_share": options.min_face_share,
        "person": [None if video is None else video_digest(video, options.image_fps) for video in person],
        "causal": options.causal,
    }
    settings = {name: {"model": model, **shared} for name, model in models.settings().items()}
    plain: dict[str, Spec] = json.loads(json.dumps(settings))
    return plain


@contextmanager
def _resumed(
    out: Path, videos: Sequence[Path], settings: Mapping[str, Spec], options: VideoOptions
) -> Iterator[tuple[set[tuple[str, str]], Callable[[object], None]]]:
    """Give the models and videos that a file holds, and a function that appends to it; it is locked meanwhile.

    Unfinished lines, and lines of these videos that failed or are outdated, are removed first.

    Raises:
        PainseqError: it was written with other settings, is no file of predictions, or another process writes into it.
    """
    with appending(out) as append:
        _check_started_here(out)
        rows, damaged = read_json_lines(out)
        named = {video.as_posix() for video in videos}
        kept: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            key = (_model_of(out, row, settings), Path(row["video"]).as_posix())
            if key[1] not in named or _is_current(row, options):
                kept[key] = row
        if not damaged and len(kept) == len(rows):
            yield set(kept), append
            return
        text = "".join(printable(json.dumps(row)) + "\n" for row in kept.values())
        write_atomically(out, text.encode())
        # The first lock is of the file that was replaced, and held until the new one is locked.
        with appending(out) as append_to_new:
            yield set(kept), append_to_new


def _check_started_here(out: Path) -> None:
    """Refuse a file that does not begin as its lines do; a kill may have left a part of the first."""
    with out.open("rb") as file:
        start = file.read(len(LINE_START))
    if not LINE_START.startswith(start):
        raise PainseqError(f"{out} is no file of predictions that can be resumed. Choose another file.")


def _is_current(row: Mapping[str, Any], options: VideoOptions) -> bool:
    """Whether a line holds a prediction of the video as it is now; one that is no longer there has not changed."""
    is_read, video = row.get("problem") is None or "frames" in row, Path(row["video"])
    if _digest(video, options) is None:
        return is_read
    return is_read and all(row.get(key) == value for key, value in _digests(video, options).items())


def _model_of(out: Path, row: Mapping[str, Any], settings: Mapping[str, Spec]) -> str:
    found = row.get("settings")
    if not isinstance(found, dict) or not isinstance(row.get("video"), str):
        raise PainseqError(f"{out} is no file of predictions that can be resumed. Choose another file.")
    # By its path first: two may be copies of one model. It may also have been moved.
    paths = sorted(settings, key=lambda name: name != row.get("model"))
    name = next((name for name in paths if settings[name] == found), None)
    if name is None:
        first = next(iter(settings.values()))
        check_same_run(out, found, next((s for s in settings.values() if s["model"] == found.get("model")), first))
        raise PainseqError(f"{out} holds results with other settings. Choose another file.")
    return name


def _line(name: str, result: VideoResult, options: VideoOptions, settings: Spec) -> dict[str, object]:
    found: Mapping[str, object] = {"video": str(result.video)}
    if result.prediction is not None:
        found = result.prediction.to_dict()
    return {
        "model": name,
        **found,
        "problem": result.problem,
        **_digests(result.video, options),
        "settings": settings,
    }


def _digests(video: Path, options: VideoOptions) -> dict[str, object]:
    """Return what a result depends on, by content: the video, and stored faces or action units beside it."""
    beside = {path for path in (*Sidecar().extra_files(video), table_of(video)) if path.is_file()}
    return {
        "video_digest": _digest(video, options),
        "beside_video": {path.name: sha256_of(path) for path in sorted(beside)},
    }


def _digest(video: Path, options: VideoOptions) -> str | None:
    try:
        return video_digest(video, options.image_fps)
    except CLIP_FAILURES:
        return None
