"""Large inputs: 100,000 predictions of 1,000 subjects, 10,000 clips of one video, a video of 20 minutes.

    python benchmarks/scale.py                      # about 5 minutes on two idle cores
    python benchmarks/scale.py evaluate compare     # only the commands whose name begins so
    python benchmarks/scale.py --write              # and record the table in benchmarks/RESULTS.md

Each command runs in a fresh process. Wall time includes the start of Python; peak memory is that of the whole process.
Processor time of all threads tells how busy the machine was with other things.
Predictions are random, the video is generated, and the network of `extract` and `predict` is tiny, with random weights.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from results import RESULTS, machine, write_between

from painseq.synthetic import FolderPlan, write_folder
from painseq.video import write_video

CLIPS, SUBJECTS, CLASSES = 100_000, 1_000, ("no pain", "low", "high")
SPANS, EXTRACTED = 10_000, 300
VIDEO_S, SHORT_S, VIDEO_FPS, SIDE = 1200, 120, 10, 96

IN_FRESH_PROCESS = """
import sys
import time
from pathlib import Path
from painseq.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
print("peak", peak.split()[1], time.process_time())
sys.exit(code)
"""


@dataclass(frozen=True)
class Job:
    """A command that is measured.

    Args:
        name: what it does.
        arguments: of `painseq`.
        most_s: largest wall time, in seconds.
        most_mb: largest peak memory, in MB; None without a goal.
    """

    name: str
    arguments: Sequence[str]
    most_s: float
    most_mb: float | None = None


def write_predictions(folder: Path) -> None:
    """Write two models' predictions of classes and of values, sex and age, and a table of parts."""
    random = np.random.default_rng(0)
    subject = np.repeat(np.arange(SUBJECTS), CLIPS // SUBJECTS)
    clips = [[f"s{s:04d}/clip{clip:06d}", f"s{s:04d}"] for clip, s in enumerate(subject)]
    truth = random.integers(0, len(CLASSES), CLIPS)
    for name, skill in (("a", 1.2), ("b", 1.0)):
        logits = random.normal(size=(CLIPS, len(CLASSES)))
        logits[np.arange(CLIPS), truth] += skill + random.normal(size=SUBJECTS)[subject] / 2
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = zip(truth.tolist(), shares.argmax(1).tolist(), shares.tolist(), strict=True)
        rows = [[CLASSES[true], CLASSES[label], *map(repr, row), 100, 5] for true, label, row in labels]
        heads = ["clip_id", "subject_id", "truth", "label", *(f"prob_{name}" for name in CLASSES), "frames", "faceless"]
        write_rows(folder / f"{name}.csv", heads, [[*clip, *row] for clip, row in zip(clips, rows, strict=True)])
    values = (2 * truth + random.normal(size=CLIPS)).tolist()
    rows = [[*clip, 2 * true, repr(value)] for clip, true, value in zip(clips, truth.tolist(), values, strict=True)]
    write_rows(folder / "values.csv", ["clip_id", "subject_id", "truth", "value_pspi"], rows)
    people = [[f"s{number:04d}", "fm"[number % 2], 20 + number % 50] for number in range(SUBJECTS)]
    write_rows(folder / "people.csv", ["subject_id", "sex", "age"], people)
    parts = [[*clip, "train" if s < SUBJECTS * 0.7 else "test"] for clip, s in zip(clips, subject, strict=True)]
    write_rows(folder / "parts.csv", ["clip_id", "subject_id", "part"], parts)


def write_rows(path: Path, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *rows])


def write_recordings(folder: Path) -> None:
    """Write the videos, the tables of their clips, their configurations, and a fitted checkpoint."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (50, SIDE, SIDE, 3), dtype=np.uint8) // 8 * 2 + 90
    for seconds in (SHORT_S, VIDEO_S):
        frames = (pictures[number % len(pictures)] for number in range(seconds * VIDEO_FPS))
        write_video(folder / "recordings" / f"{seconds}.mp4", frames, VIDEO_FPS)
    for clips in (EXTRACTED, SPANS):
        # A subject after the other, each with a hundredth of the clips.
        starts = np.linspace(0, VIDEO_S, clips, endpoint=False).round(3).tolist()
        span_s = min(0.6, VIDEO_S / clips)
        rows = [
            [
                f"clip{n}",
                f"s{n * 100 // clips:03d}",
                f"{VIDEO_S}.mp4",
                ("no_pain", "pain")[n % 2],
                start,
                start + span_s,
            ]
            for n, start in enumerate(starts)
        ]
        write_rows(folder / f"{clips}.csv", ["clip_id", "subject_id", "video", "label", "start_s", "end_s"], rows)
        config(folder / f"{clips}.yaml", folder / "recordings", manifest=str(folder / f"{clips}.csv"))
    write_folder(folder / "generated", FolderPlan(subjects=6, trials=1, fps=5), seed=0)
    config(folder / "fit.yaml", folder / "generated")
    fit = ["fit", "--config", str(folder / "fit.yaml"), "--out", str(folder / "fit"), "--trainer.accelerator", "cpu"]
    subprocess.run([sys.executable, "-m", "painseq", *fit], check=True, capture_output=True)


def config(path: Path, root: Path, **table: str) -> None:
    """Write a configuration of a data set without faces, and a tiny network."""
    face = {"class_path": "painseq.faces.FaceCrops", "init_args": {"locator": FULL_FRAME, "size_px": 64}}
    split = {"protocol": "subject_holdout", "validation_share": 0.2, "test_share": 0.2}
    options = {"labels": "native", "fps": 5, "view": "pixels", "batch_size": 16, "face": face, "split": split}
    network = {"model": "test_resnet", "weights": None, "input_size_px": 64, "trainable": ["all"]}
    content = {
        "data": {
            "class_path": "Folder",
            "init_args": {"root": str(root), "name": "mine", "options": options, **table},
        },
        "model": {
            "extractor": {"class_path": "painseq.extractors.TimmBackbone", "init_args": network},
            "head": {"class_path": "painseq.heads.LinearFrames"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        },
        "trainer": {"max_epochs": 1},
    }
    path.write_text(yaml.safe_dump(content))


FULL_FRAME = {"class_path": "painseq.faces.FullFrame"}


def jobs(folder: Path) -> list[Job]:
    a, b, out = str(folder / "a.csv"), str(folder / "b.csv"), folder / "out"
    people, values = str(folder / "people.csv"), str(folder / "values.csv")
    best = str(folder / "fit" / "best.ckpt")
    short, long = (str(folder / "recordings" / f"{seconds}.mp4") for seconds in (SHORT_S, VIDEO_S))
    predictions = f"{CLIPS:,} predictions of {SUBJECTS:,} subjects"
    spans = ["--config", str(folder / f"{SPANS}.yaml")]
    extracted = ["--config", str(folder / f"{EXTRACTED}.yaml"), "--device", "cpu", "--out", str(out / "store")]
    predict = ["predict", "--checkpoint", best, "--device", "cpu"]
    return [
        Job(f"evaluate, {predictions}", ["evaluate", "--predictions", a, "--out", str(out / "a")], 20, 600),
        Job(
            "evaluate, with sex and age",
            ["evaluate", "--predictions", a, "--subjects", people, "--out", str(out / "people")],
            20,
            600,
        ),
        Job("evaluate, values", ["evaluate", "--predictions", values, "--out", str(out / "values")], 20, 600),
        Job(f"compare, twice {predictions}", ["compare", a, b, "--out", str(out / "compare")], 15, 600),
        Job(f"audit check, {CLIPS:,} clips", ["audit", "check", str(folder / "parts.csv")], 20, 600),
        Job(f"data check, {SPANS:,} clips of one video", ["data", "check", *spans], 60),
        Job(f"split, {SPANS:,} clips of one video", ["split", *spans, "--out", str(out / "split.json")], 20),
        Job(f"extract, {EXTRACTED} clips of one video, 3 frames each", ["extract", *extracted], 60),
        Job(f"predict, {SHORT_S // 60} minutes", [*predict, short], SHORT_S),
        Job(f"predict, {VIDEO_S // 60} minutes", [*predict, long], VIDEO_S),
    ]


def measured(job: Job) -> tuple[float, float, float]:
    """Wall time and processor time in seconds, and peak memory in MB of a command."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", IN_FRESH_PROCESS, *job.arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    # `data check` exits with 1 if it finds anything.
    if done.returncode not in (0, 1) or "peak " not in done.stdout:
        raise SystemExit(f"{job.name} failed:\n{done.stderr[-2000:]}")
    peak_kb, processor_s = done.stdout.rsplit("peak ", 1)[1].split()
    return seconds, float(processor_s), int(peak_kb) / 1000


def row(job: Job, seconds: float, processor_s: float, peak_mb: float) -> str:
    met = seconds <= job.most_s and (job.most_mb is None or peak_mb <= job.most_mb)
    goal = f"{job.most_s:g} s" + ("" if job.most_mb is None else f", {job.most_mb:g} MB")
    return f"| {job.name} | {seconds:.1f} | {processor_s:.1f} | {peak_mb:.0f} | {goal} | {'met' if met else 'MISSED'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commands", nargs="*", help="measure the commands that begin with these words; default: all")
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md; all commands")
    args = parser.parse_args()
    if args.write and args.commands:
        parser.error("--write records all commands; name none.")
    rows, peaks = [], {}
    with tempfile.TemporaryDirectory(prefix="scale") as work:
        folder = Path(work)
        (folder / "out").mkdir()
        write_predictions(folder)
        chosen = [job for job in jobs(folder) if not args.commands or job.name.startswith(tuple(args.commands))]
        if any(not job.name.startswith(("evaluate", "compare", "audit")) for job in chosen):
            write_recordings(folder)
        for job in chosen:
            seconds, processor_s, peaks[job.name] = measured(job)
            rows.append(row(job, seconds, processor_s, peaks[job.name]))
            print(rows[-1], flush=True)
    memory = [peak for name, peak in peaks.items() if name.startswith("predict")]
    if len(memory) == 2:
        ratio = memory[1] / memory[0]
        rows.append(
            f"| peak memory of predict, {VIDEO_S // 60} minutes over {SHORT_S // 60} | | | {ratio:.2f} times "
            f"| 1.1 times | {'met' if ratio <= 1.1 else 'MISSED'} |"
        )
    heads = [
        "| command | wall time, s | processor time, s | peak memory, MB | goal: at most | |",
        "|---|---|---|---|---|---|",
    ]
    table = "\n".join([machine(), "", *heads, *rows])
    print(table)
    if args.write:
        write_between(RESULTS, "scale", table)


if __name__ == "__main__":
    main()
