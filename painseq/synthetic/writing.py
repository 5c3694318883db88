"""Write generated data sets: clips in parallel, the truth next to them, and a marker."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from painseq.errors import PainseqError
from painseq.files import write_csv, write_json
from painseq.runs import OnProgress, check_same_run, end_with_parent, locked_folder, no_progress
from painseq.synthetic.clips import ClipJob, draw_subject, stage_folder, write_clip
from painseq.synthetic.scars import Scar
from painseq.video.generated import MARKER, truth_folder

VERSION = 1
"""Version of the generator; increase it whenever the same plan and seed give different frames."""


def check_counts(fps: float, size_px: int, **counts: int) -> None:
    """Reject a plan that cannot be drawn.

    Raises:
        PainseqError: a count below 1, or a frame rate or size out of range.
    """
    for name, count in counts.items():
        if count < 1:
            raise PainseqError(f"{name} is {count}; it must be 1 or more.")
    if not 1.0 <= fps <= 120.0:
        raise PainseqError(f"fps is {fps}; it must be from 1 to 120.")
    if size_px % 2 or not 64 <= size_px <= 1024:
        raise PainseqError(f"size_px is {size_px}; it must be an even number from 64 to 1024.")


@dataclass(frozen=True)
class GeneratedSet:
    """A data set to be generated.

    Args:
        plan: plain values, recorded in the marker.
        jobs: all clips of the data set.
        tables: writes the data set's own tables, after all clips are written.
        scar: damages the finished data set.
    """

    plan: Mapping[str, object]
    jobs: Sequence[ClipJob]
    tables: Callable[[], None] | None = None
    scar: Callable[[], list[Scar]] | None = None


def write_dataset(root: Path, dataset: GeneratedSet, seed: int, workers: int, on_progress: OnProgress | None) -> Path:
    """Write missing clips, the truth's tables, and the data set's own tables.

    Args:
        root: folder of the data set; its marker is written there.
        dataset: what to generate.
        seed: seed of everything drawn.
        workers: number of processes that draw.
        on_progress: called with the number of finished frames and of all frames.

    Returns:
        The folder of the truth, next to `root`.

    Raises:
        PainseqError: the folder holds other files, or a generated set with another plan or seed.
    """
    if seed < 0:
        raise PainseqError(f"seed is {seed}; it must be 0 or more.")
    if workers < 1:
        raise PainseqError(f"workers is {workers}; it must be 1 or more.")
    truth = truth_folder(root)
    # Not in the data set's own folder, which holds what the real one does.
    with locked_folder(truth):
        _write(root, truth, dataset, seed, workers, on_progress or no_progress)
    return truth


def _write(root: Path, truth: Path, dataset: GeneratedSet, seed: int, workers: int, on_progress: OnProgress) -> None:
    scars_json, scars_marker = truth / "scars.json", truth / "scars.unfinished"
    if _mark(root, {**dataset.plan, "scars": True} if dataset.scar else dataset.plan, seed):
        # A data set may have been deleted without its truth.
        for path in (scars_json, scars_marker):
            path.unlink(missing_ok=True)
    if scars_marker.exists() and not scars_json.is_file():
        raise PainseqError(
            f"{root} was interrupted while scars were added. Remove it and {truth}, and generate it again."
        )
    # Scars are added last: a set that has them is finished, and its missing clips are intended.
    is_scarred = scars_json.is_file()
    missing = [] if is_scarred else [job for job in dataset.jobs if not job.is_done]
    _write_clips(dataset.jobs, missing, workers, on_progress)
    shutil.rmtree(stage_folder(root), ignore_errors=True)
    if is_scarred:
        return
    _write_truth_tables(truth, dataset.jobs)
    if dataset.tables:
        dataset.tables()
    if dataset.scar:
        scars_marker.touch()
        write_json(scars_json, [asdict(scar) for scar in dataset.scar()])
        scars_marker.unlink()


def _write_clips(jobs: Sequence[ClipJob], missing: Sequence[ClipJob], workers: int, on_progress: OnProgress) -> None:
    total = sum(job.frames for job in jobs)
    done = total - sum(job.frames for job in missing)
    on_progress(done, total)
    for frames in _write_each(missing, workers):
        done += frames
        on_progress(done, total)


def _write_truth_tables(truth: Path, jobs: Sequence[ClipJob]) -> None:
    labels = {job.clip_id: [job.clip_id, job.subject_id, job.label, job.part] for job in jobs}
    write_table(truth / "labels.csv", ["clip_id", "subject_id", "label", "part"], list(labels.values()))
    looks = {job.subject_id: draw_subject(job.seed, job.data_set, job.subject)[0] for job in jobs}
    subjects = [[name, "f" if look.sex == "w" else "m", look.age] for name, look in looks.items()]
    write_table(truth / "subjects.csv", ["subject_id", "sex", "age"], subjects)


def write_table(path: Path, columns: list[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
    """Write a table of text, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [columns, *rows], delimiter, line_end="\n")


def read_table(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Read the rows of a table, without its header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))[1:]


def _mark(root: Path, plan: Mapping[str, object], seed: int) -> bool:
    """Mark an empty folder and return true; return false if the same data set was already started in it."""
    marker = root / MARKER
    requested = {"version": VERSION, "seed": seed, "plan": plan}
    if marker.is_file():
        try:
            recorded = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PainseqError(f"{marker} is damaged ({error}). Remove {root} and generate it again.") from error
        recorded.pop("about", None)
        check_same_run(root, recorded, requested)
        return False
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PainseqError(f"{root} is not an empty folder. Choose a new folder for generated videos.")
    root.mkdir(parents=True, exist_ok=True)
    about = "Every face in this folder is generated by painseq; it shows no person and no patient."
    write_json(marker, {"about": about, **requested})
    return True


def _write_each(jobs: Sequence[ClipJob], workers: int) -> Iterator[int]:
    """Write the clips, and yield the number of frames of each finished clip."""
    if workers == 1 or len(jobs) < 2:
        yield from map(write_clip, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_init_worker)
    try:
        for future in as_completed([pool.submit(write_clip, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise PainseqError(
            f"A worker process died ({error}). It may have run out of memory: use fewer workers. Your own scripts must "
            'start their work below `if __name__ == "__main__":`, or use workers=1. Finished clips are kept.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _init_worker() -> None:
    end_with_parent()
    # A keyboard interrupt reaches the parent too, which then stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One process per core: threads would only compete. Libraries loaded later read these variables.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
