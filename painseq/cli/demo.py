"""`painseq demo`: the whole job of Prajod et al. 2024 on generated data, as the commands a user would type."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.evaluation import Difference, Evaluation, Predictions
    from painseq.report import Figure

HEAT, ELECTRICAL = "configs/demo/heat.yaml", "configs/demo/electrical.yaml"
MODELS = {
    "frame ANN, majority vote": ("ann", "heat", "configs/head/frame_ann.yaml"),
    "LSTM": ("lstm", "heat", "configs/head/lstm.yaml"),
    "LSTM on an untrained extractor": ("lstm_untrained", "untrained", "configs/head/lstm.yaml"),
}
"""Name -> run folder, store, head. The predictions handed in are those of the LSTM, the paper's second model."""
SUBMITTED = "LSTM"
NOTES = (
    "The faces are generated. The figures prove that the machinery works from video to score; they say nothing about "
    "patients, and are not comparable with figures from real data.",
    "To run in minutes on two cores, the demo takes a small network (timm's test_resnet, random weights), crops "
    "of 80 pixels, videos of 8 frames a second, and the generator's own face boxes. The recipe for real data is "
    "VGG16 at 224 pixels and 30 frames a second with YuNet or face-alignment: the same code.",
    "Every model was stopped early on subjects taken out of Train, and scored once, on Test subjects whose labels lie "
    "outside the data set's folder.",
    "The untrained extractor is the same network with its random starting weights: what its features give, heat pain "
    "has not taught.",
)


@dataclass(frozen=True)
class Size:
    """How much the demo generates.

    Args:
        heat_subjects: people of the heat data set, all seen in training or early stopping.
        heat_trials: clips a class (no pain, high pain) and subject.
        train, validation, test: people of the electrical data set.
        trials: low pain clips, and as many high pain clips, a subject.
        baseline_s: length of the no-pain recordings, cut into pieces of 10 s for training.
    """

    heat_subjects: int = 40
    heat_trials: int = 4
    train: int = 40
    validation: int = 2
    test: int = 20
    trials: int = 3
    baseline_s: float = 60.0
    fps: float = 8.0


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "painseq demo",
        description="Do the whole job on generated data: heat-pain CNN, features of electrical pain, heads, scores on "
        "unseen people, Grad-CAM, report. Interrupted, it goes on where it was when run again.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder to write; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of data, heads and order; default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw faces")
    args = parser.parse_args(argv)
    demo(args.out, args.seed, args.workers)
    return 0


def demo(out: Path, seed: int = 0, workers: int = 2, size: Size | None = None) -> Path:
    """Do the whole job in `out`; steps that are finished there are not done again.

    Returns:
        The path of `report.html`. Beside it: `metrics.json` (every model, score, interval, baseline, difference),
        `predictions.csv` and `submission.csv` of the LSTM, `config.yaml`, `run.json` (versions, seed, split),
        `figures/` (the numbers of the page), and a run folder for each model.

    Raises:
        PainseqError: `out` holds a demo with another seed or size.
    """
    job = Demo(out, seed, workers, size or Size())
    job.start()
    job.generate()
    job.train_heat_cnn()
    job.extract()
    job.fit_heads()
    job.score()
    return job.report()


class Demo:
    """The steps of the demo, in order; each leaves its result in `out` and is skipped if that is there."""

    def __init__(self, out: Path, seed: int, workers: int, size: Size) -> None:
        self.out = out
        self.seed = seed
        self.workers = workers
        self.size = size
        self.console = Console()
        self.seconds: dict[str, float] = {}
        self.predictions: dict[str, Predictions] = {}
        self.evaluations: dict[str, Evaluation] = {}

    def start(self) -> None:
        """Make the folder, or check that it holds this very demo."""
        import torch

        from painseq.runs import check_same_run

        # Sums differ with the number of threads, and training makes other networks of it: with one, the same seed gives
        # the same figures on machines with other numbers of cores. It also spares the stalls of threads that wait for
        # each other on a busy machine.
        torch.set_num_threads(1)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        config = {"seed": self.seed, "size": asdict(self.size), "models": {k: list(v) for k, v in MODELS.items()}}
        path = self.out / "config.yaml"
        if path.is_file():
            check_same_run(self.out, yaml.safe_load(path.read_text(encoding="utf-8")), config)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise PainseqError(f"The demo's folder {self.out} cannot be written: {error}.") from error

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self.console.rule(f"[bold]{title}", align="left")
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start

    def _command(self, name: str, args: Sequence[str]) -> list[str]:
        self.console.print(f"$ painseq {name} {' '.join(args)}", style="dim", soft_wrap=True, markup=False)
        return list(args)

    def generate(self) -> None:
        """Two data sets, of different people, as mp4 files in the real layouts."""
        from painseq.synthetic import AI4PainPlan, BioVidPlan, write_ai4pain, write_biovid

        size = self.size
        heat = BioVidPlan(size.heat_subjects, size.heat_trials, ("BL1", "PA4"), fps=size.fps)
        electrical = AI4PainPlan(size.train, size.validation, size.test, size.trials, size.baseline_s, fps=size.fps)
        with self._step("1. Generate heat pain (BioVid's layout) and electrical pain (AI4Pain's layout)"):
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
            with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console) as bar:
                for name in ("heat", "electrical"):
                    task = bar.add_task(name, note="")

                    def show(done: int, total: int, note: str = "", task: object = task) -> None:
                        bar.update(task, completed=done, total=total, note=f"{done:,} of {total:,} frames")  # type: ignore[arg-type]

                    if name == "heat":
                        write_biovid(self.out / name, heat, self.seed, self.workers, show)
                    else:
                        write_ai4pain(self.out / name, electrical, self.seed, self.workers, show)

    def train_heat_cnn(self) -> None:
        """No pain against high pain on single frames of heat subjects."""
        with self._step("2. Train the heat-pain CNN, no pain against high pain, on frames of heat training subjects"):
            self._extract(HEAT, "heat_crops", "--model.extractor", "Pixels", "--model.extractor.input_size_px", "80")
            self._fit("heat_cnn", HEAT, f"--data.options.store={self.out / 'heat_crops'}")

    def extract(self) -> None:
        """Features of the electrical videos: through the heat-pain CNN, and through the same network untrained."""
        with self._step("3. Freeze it, and extract features of the electrical videos; and through it untrained"):
            weights = self.out / "heat_cnn" / "extractor.safetensors"
            self._extract(ELECTRICAL, "heat_features", f"--model.extractor.init_args.weights={weights}")
            self._extract(ELECTRICAL, "untrained_features")

    def fit_heads(self) -> None:
        """Three classes on electrical training subjects, stopping early on an inner subject split of Train."""
        with self._step("4. Train heads for three classes, stopping early on subjects taken out of Train"):
            for folder, store, head in MODELS.values():
                self._fit(folder, ELECTRICAL, f"--config={head}", f"--data.options.store={self._store(store)}")

    def score(self) -> None:
        """Once, on Test subjects, with the truth that the generator keeps outside the data set's tree."""
        from painseq.cli.evaluate import evaluate_checkpoints
        from painseq.evaluation import Evaluation, Predictions
        from painseq.studies.submit import SubmissionFormat, native_labels, write_submission

        truth = self.out / "electrical_truth" / "labels.csv"
        with self._step("5. Score them on the Test subjects"):
            for name, (folder, store, _) in MODELS.items():
                scored = self.out / f"{folder}_test"
                shutil.rmtree(scored, ignore_errors=True)
                args = [
                    f"--config={ELECTRICAL}",
                    f"--data.root={self.out / 'electrical'}",
                    f"--data.options.store={self._store(store)}",
                    "--model.extractor=null",
                    f"--checkpoint={self.out / folder / 'best.ckpt'}",
                    f"--truth={truth}",
                    f"--out={scored}",
                ]
                (result,) = evaluate_checkpoints(self._command("evaluate", args)).values()
                assert isinstance(result.predictions, Predictions) and isinstance(result.evaluation, Evaluation)
                self.predictions[name], self.evaluations[name] = result.predictions, result.evaluation
        with self._step("6. Write the test predictions as a challenge CSV"):
            submitted = self.predictions[SUBMITTED]
            submitted.write_csv(self.out / "predictions.csv")
            layout = SubmissionFormat(native_labels("ai4pain", "three"))
            rows = write_submission(submitted, self.out / "submission.csv", layout, fill="no_pain")
            self.console.print(f"{rows} items in {self.out / 'submission.csv'}")

    def report(self) -> Path:
        """Grad-CAM over two clips, the numbers as JSON, and one page that tells all."""
        from painseq.cli.evaluate import show
        from painseq.evaluation import paired_difference, published_rows
        from painseq.files import write_json
        from painseq.report import Report, write_figures, write_report
        from painseq.runs import read_history, versions

        with self._step("7. Draw Grad-CAM over two clips"):
            figures = self._pictures()
        lstm, untrained = self.predictions["LSTM"], self.predictions["LSTM on an untrained extractor"]
        difference = paired_difference(lstm, untrained)["balanced_accuracy"]
        splits, facts = self._facts()
        page = self.out / "report.html"
        with self._step("8. Write the report"):
            write_json(
                self.out / "metrics.json",
                {
                    "models": {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()},
                    "differences": {"LSTM minus LSTM on an untrained extractor": difference.to_dict()},
                    "generated": True,
                    "seed": self.seed,
                },
            )
            write_json(
                self.out / "run.json",
                {"versions": versions(), "seed": self.seed, "split": splits, "seconds": self.seconds, "facts": facts},
            )
            report = Report(
                title="painseq demo: from heat pain to electrical pain",
                subtitle="Three classes, people the models have never seen, generated faces",
                dataset="generated faces",
                notes=[*NOTES, _in_words(difference)],
                evaluations=self.evaluations,
                predictions=self.predictions,
                histories={name: read_history(self.out / folder) for name, (folder, _, _) in MODELS.items()},
                figures=figures,
                facts=facts,
                published=published_rows(),
            )
            write_report(page, report)
            write_figures(self.out / "figures", report)
        self.console.rule()
        show(self.evaluations)
        self.console.print(_in_words(difference))
        self.console.print("Generated faces: these figures prove the machinery, and say nothing about patients.")
        self.console.print(f"{facts['time']}; {facts['peak memory']}.", style="dim")
        self.console.print(f"Report: {page}", soft_wrap=True)
        return page

    def _store(self, name: str) -> Path:
        return self.out / f"{name}_features"

    def _extract(self, config: str, store: str, *more: str) -> None:
        from painseq.cli.extract import main as extract

        root = self.out / ("heat" if config == HEAT else "electrical")
        # The same figures on processors with and without bfloat16.
        args = [f"--config={config}", f"--data.root={root}", f"--out={self.out / store}", "--precision=fp32", *more]
        extract(self._command("extract", args))

    def _fit(self, folder: str, config: str, *more: str) -> None:
        from painseq.cli.fit import fit
        from painseq.training.fitting import LAST

        run = self.out / folder
        if (run / "run.json").is_file():
            self.console.print(f"{run} is there already.")
            return
        if run.exists() and not (run / LAST).is_file():
            shutil.rmtree(run)
        root = self.out / ("heat" if config == HEAT else "electrical")
        args = [f"--config={config}", f"--data.root={root}", *more, f"--out={run}", f"--seed_everything={self.seed}"]
        args.append("--trainer.enable_model_summary=false")
        if config == ELECTRICAL:
            args.append("--model.extractor=null")
        if run.exists():
            args.append("--resume=true")
        fit(self._command("fit", args))

    def _pictures(self) -> list[Figure]:
        from painseq.model.checkpoint import load
        from painseq.report import Figure
        from painseq.studies.explain_video import ExplainVideoOptions, explain_video

        model = load(self.out / "lstm" / "best.ckpt")
        predictions = self.predictions[SUBMITTED]
        figures = []
        for name in ("high_pain", "no_pain"):
            index = predictions.class_names.index(name)
            right = (predictions.truth == index) & (predictions.label == index)
            rows = [row for row in range(len(predictions)) if right[row]] or list(range(len(predictions)))
            row = max(rows, key=lambda row: float(predictions.probabilities[row, index]))
            clip_id = predictions.clip_ids[row]
            video = self.out / "electrical" / f"{clip_id}.mp4"
            png = explain_video(model, video, options=ExplainVideoOptions(end_s=10.0, class_name="high_pain")).picture()
            (self.out / f"gradcam_{name}.png").write_bytes(png)
            truth = predictions.class_names[predictions.truth[row]]
            figures.append(
                Figure(
                    f"Grad-CAM for high pain, clip {clip_id}",
                    f"True class {truth}, predicted {predictions.class_names[predictions.label[row]]}. Above, face "
                    "crops of generated faces; below, where in each frame the LSTM's score for high pain comes from, "
                    "on one scale over the clip; the LSTM is read after the last frame, so most falls on those. "
                    "A map shows what the network used, not that it is right to use it.",
                    png,
                )
            )
        return figures

    def _facts(self) -> tuple[dict[str, object], dict[str, str]]:
        import json

        from painseq.runs import versions

        runs = {folder: json.loads((self.out / folder / "run.json").read_text()) for folder in ("heat_cnn", "lstm")}
        splits: dict[str, object] = {folder: run["data"]["split"] for folder, run in runs.items()}
        own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        # Kilobytes on Linux, bytes on macOS.
        scale = 1e9 if sys.platform == "darwin" else 1e6
        heat, electrical = runs["heat_cnn"]["data"], runs["lstm"]["data"]
        store = json.loads((self.out / "heat_features" / "run.json").read_text())
        facts = {
            "seed": str(self.seed),
            "heat subjects": f"{len(heat['split']['train'])} trained on, "
            f"{len(heat['split']['validation'])} early stopping",
            "electrical subjects": f"{len(electrical['split']['train'])} trained on, "
            f"{len(electrical['split']['validation'])} early stopping, {len(electrical['split']['test'])} tested",
            "electrical training clips": ", ".join(f"{k} {v}" for k, v in electrical["train_counts"].items()),
            "data fingerprint": f"heat {heat['fingerprint']}, electrical {electrical['fingerprint']}",
            "extractor fingerprint": str(runs["lstm"]["extractor"]["fingerprint"]),
            "backends": ", ".join(f"{k} {v}" for k, v in store["summary"]["backends"].items()),
            "time": f"{sum(self.seconds.values()):.0f} s in this run ("
            + ", ".join(f"step {title.partition('.')[0]}: {s:.0f} s" for title, s in self.seconds.items())
            + ")",
            "peak memory": f"{own / scale:.1f} GB, and {children / scale:.1f} GB in the largest child process",
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        }
        return splits, facts


def _in_words(difference: Difference) -> str:
    value, interval = difference.value, difference.interval
    if value is None or interval.low is None or interval.high is None:
        return "Heat features could not be compared with untrained ones: too few subjects were scored."
    span = f"balanced accuracy {value:+.3f}, 95 % interval over subjects {interval.low:+.3f} to {interval.high:+.3f}"
    if interval.low > 0:
        return f"Features learned on heat pain help the LSTM on electrical pain, against untrained ones: {span}."
    if interval.high < 0:
        return f"Features learned on heat pain do worse than untrained ones: {span}."
    return (
        f"Whether features learned on heat pain help against untrained ones cannot be told from these subjects: {span}."
    )
