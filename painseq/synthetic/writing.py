"""Generated data sets on disk: many clips at once, the truth beside them, and a marker that says what they are."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from painseq.errors import PainseqError
from painseq.files import write_csv, write_json
from painseq.runs import OnProgress, check_same_run
from painseq.synthetic.clips import ClipJob, draw_subject, stage_folder, write_clip
from painseq.synthetic.scars import Scar
from painseq.video.generated import MARKER, truth_folder

VERSION = 1
"""Of the generator: counts up whenever the same plan and seed give other frames."""


def check_counts(fps: float, size_px: int, **counts: int) -> None:
    """Refuse a plan that cannot be drawn.

    Raises:
        PainseqError: a count below 1, or a frame rate or size out of range.
    """
    for name, count in counts.items():
        if count < 1:
            raise PainseqError(f"{name} is {count}; it must be 1 or more.")
    if not 1.0 <= fps <= 120.0:
        raise PainseqError(f"fps is {fps}; give 1 to 120 frames a second.")
    if size_px % 2 or not 64 <= size_px <= 1024:
        raise PainseqError(f"size_px is {size_px}; give an even number from 64 to 1024.")


def write_dataset(
    root: Path,
    plan: Mapping[str, object],
    seed: int,
    jobs: Sequence[ClipJob],
    workers: int,
    on_progress: OnProgress | None,
    tables: Callable[[], None] | None = None,
    scar: Callable[[], list[Scar]] | None = None,
) -> Path:
    """Write the clips that are not there yet, the truth's tables, and the data set's own tables.

    Args:
        root: of the data set; its marker is written there.
        plan: what the marker records of it, plain values.
        seed: of everything drawn.
        jobs: all clips of the data set.
        workers: processes that draw at the same time.
        on_progress: called with the number of frames done and of all frames.
        tables: writes the data set's own tables, once all clips are there.
        scar: damages the finished data set.

    Returns:
        The folder of the truth, beside `root`.

    Raises:
        PainseqError: the folder holds something else, or a generated set of another plan or seed.
    """
    if seed < 0:
        raise PainseqError(f"seed is {seed}; it must be 0 or more.")
    if workers < 1:
        raise PainseqError(f"workers is {workers}; it must be 1 or more.")
    truth = truth_folder(root)
    listed, half_listed = truth / "scars.json", truth / "scars.unfinished"
    if _mark(root, {**plan, "scars": True} if scar else plan, seed):
        # Of a data set that was removed without its truth.
        for path in (listed, half_listed):
            path.unlink(missing_ok=True)
    if half_listed.exists() and not listed.is_file():
        raise PainseqError(f"{root} was stopped while it was given its scars. Remove it and {truth}; generate it anew.")
    report = on_progress or (lambda done, total: None)
    total = sum(job.frames for job in jobs)
    # Scars come last, so whoever has them is finished; its missing clips are meant to be missing.
    todo = [] if listed.is_file() else [job for job in jobs if not job.is_done]
    done = total - sum(job.frames for job in todo)
    report(done, total)
    for frames in _each(todo, workers):
        done += frames
        report(done, total)
    shutil.rmtree(stage_folder(root), ignore_errors=True)
    if listed.is_file():
        return truth
    labels = {job.clip_id: [job.clip_id, job.subject_id, job.label, job.part] for job in jobs}
    write_table(truth / "labels.csv", ["clip_id", "subject_id", "label", "part"], list(labels.values()))
    looks = {job.subject_id: draw_subject(job.seed, job.data_set, job.subject)[0] for job in jobs}
    subjects = [[name, "f" if look.sex == "w" else "m", look.age] for name, look in looks.items()]
    write_table(truth / "subjects.csv", ["subject_id", "sex", "age"], subjects)
    if tables:
        tables()
    if scar:
        half_listed.touch()
        write_json(listed, [asdict(each) for each in scar()])
        half_listed.unlink()
    return truth


def write_table(path: Path, columns: list[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
    """Write a table of text, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [columns, *rows], delimiter, line_end="\n")


def read_table(path: Path, delimiter: str = ",") -> list[list[str]]:
    """The rows of a table below its columns' names."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))[1:]


def _mark(root: Path, plan: Mapping[str, object], seed: int) -> bool:
    """Claim an empty folder (true), or find that the same data set was begun in it."""
    marker = root / MARKER
    ours = {"version": VERSION, "seed": seed, "plan": plan}
    if marker.is_file():
        try:
            theirs = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PainseqError(f"{marker} is damaged ({error}). Remove {root} and generate it anew.") from error
        theirs.pop("about", None)
        check_same_run(root, theirs, ours)
        return False
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PainseqError(f"{root} is not an empty folder. Generated videos go to a folder of their own.")
    root.mkdir(parents=True, exist_ok=True)
    about = "Every face in this folder is generated by painseq; it shows no person and no patient."
    write_json(marker, {"about": about, **ours})
    return True


def _each(jobs: Sequence[ClipJob], workers: int) -> Iterator[int]:
    """The number of frames of each clip as it is finished."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_clip, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_be_a_worker)
    try:
        for future in as_completed([pool.submit(write_clip, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise PainseqError(
            f"A process that draws clips died ({error}). Memory may have run out: give fewer workers. A script of "
            'your own must start its work below `if __name__ == "__main__":`, or give workers=1. What is finished '
            "is kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _be_a_worker() -> None:
    # The parent stops the work: an interrupt from the keyboard reaches it and the workers alike.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One process a core: threads inside would only compete. Read by libraries that are loaded after this.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
