"""The pipeline of Prajod et al. 2024 on generated data, from videos to a report."""

from __future__ import annotations

import logging
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
import yaml

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.evaluation import Difference, Evaluation, Predictions, paired_difference, published_rows, read_truth
from painseq.extractors import Extractor, Pixels
from painseq.features import ExtractOptions, ExtractProgress
from painseq.files import read_yaml, write_atomically, write_json
from painseq.model.checkpoint import load
from painseq.report import Figure, Report, write_figures, write_report
from painseq.runs import (
    OnProgress,
    check_same_run,
    locked_folder,
    no_progress,
    pick_device,
    read_history,
    read_json,
    versions,
)
from painseq.studies.evaluate import EvaluateOptions, evaluate
from painseq.studies.experiment import Experiment, read_experiment
from painseq.studies.explain_video import ExplainVideoOptions, explain_video
from painseq.studies.extract import extract_data_set
from painseq.studies.resumed_fit import fit_unless_done
from painseq.studies.submit import SubmissionFormat, native_labels, write_submission
from painseq.synthetic import AI4PainPlan, BioVidPlan, write_ai4pain, write_biovid
from painseq.training.fitting import BEST

log = logging.getLogger("painseq")

HEAT, ELECTRICAL = "configs/demo/heat.yaml", "configs/demo/electrical.yaml"
MODELS = {
    "frame ANN, majority vote": ("ann", "heat", "configs/head/frame_ann.yaml"),
    "LSTM": ("lstm", "heat", "configs/head/lstm.yaml"),
    "LSTM on an untrained extractor": ("lstm_untrained", "untrained", "configs/head/lstm.yaml"),
}
"""Name -> run folder, store, head. The submission has the predictions of the LSTM, the paper's second model."""
SUBMITTED = "LSTM"
CROP_PX = 80
HEAD_EPOCHS = 30
"""By then the frame network's validation loss changes by less than 0.01 in ten epochs."""
NOTES = (
    "The faces are generated. The scores show that the software works from video to score; they say nothing about "
    "patients, and are not comparable with scores on real data.",
    "To run in minutes on two cores, the demo uses a small network (timm's test_resnet, random weights), crops "
    "of 80 pixels, videos of 128 pixels and 8 (heat: 4) frames per second, and the generator's face boxes. For real "
    "data, use VGG16 at 224 pixels and 30 frames per second with YuNet or face-alignment; the code is the same.",
    "Every model was stopped early on subjects of the training part, and scored once, on test subjects whose labels "
    "are "
    "outside the data set's folder.",
    "The untrained extractor is the same network with its random initial weights: a control without training on heat "
    "pain.",
)


@dataclass(frozen=True)
class Size:
    """Size of the generated data.

    Args:
        heat_subjects: subjects of the heat data set, all used for training or early stopping.
        heat_trials: clips per class (no pain, high pain) and subject.
        train, validation, test: subjects of the electrical data set.
        trials: clips of low pain, and of high pain, per subject.
        baseline_s: duration of the no-pain recordings, cut into clips of 10 s for training.
        fps: frames per second of the electrical videos.
        heat_fps: frames per second of the heat videos, of which single frames are used.
        size_px: height and width of the videos; at 128, a face is slightly larger than its crop.
    """

    heat_subjects: int = 40
    heat_trials: int = 4
    train: int = 40
    validation: int = 2
    test: int = 20
    trials: int = 3
    baseline_s: float = 30.0
    fps: float = 8.0
    heat_fps: float = 4.0
    size_px: int = 128


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo.

    Args:
        page: path of `report.html`.
        evaluations: model -> scores on the test subjects.
        difference: balanced accuracy of the LSTM on heat features minus that of the LSTM on an untrained extractor.
        facts: facts of the run in the report: subjects, fingerprints, time, memory, versions.
    """

    page: Path
    evaluations: Mapping[str, Evaluation]
    difference: Difference
    facts: Mapping[str, str]


def demo(
    out: str | Path,
    seed: int = 0,
    workers: int = 2,
    size: Size = Size(),
    on_step: Callable[[str], None] = log.info,
    on_progress: OnProgress = no_progress,
) -> DemoResult:
    """Run the whole pipeline in `out`. Repeat an interrupted call to resume.

    Args:
        out: folder for `report.html`, `metrics.json` (every model, score, interval, baseline, difference),
            `predictions.csv` and `submission.csv` of the LSTM, `config.yaml`, `run.json` (versions, seed, split),
            `figures/` (the numbers of the report), and a run folder for each model.
        seed: seed of data, heads and order.
        workers: number of processes that draw faces. The result does not depend on it.
        size: size of the generated data.
        on_step: called with the title of each step.
        on_progress: called with (frames or clips done, their total, their unit), also from another thread.

    Raises:
        PainseqError: `out` holds a demo with another seed or size.

    Example:
        >>> from painseq.studies.demo import demo
        >>> demo(Path("runs/demo")).evaluations["LSTM"].scores.balanced_accuracy
    """
    out = Path(out)
    threads = torch.get_num_threads()
    job = Demo(out, seed, workers, size, on_step, on_progress)
    try:
        with locked_folder(out):
            job.start()
            job.generate()
            job.train_heat_cnn()
            job.extract()
            job.fit_heads()
            job.score()
            return job.report()
    finally:
        torch.set_num_threads(threads)


class Demo:
    """The steps of the demo, in order; each writes its result to `out`, and is skipped if it is finished."""

    def __init__(
        self,
        out: Path,
        seed: int,
        workers: int,
        size: Size,
        on_step: Callable[[str], None] = log.info,
        on_progress: OnProgress = no_progress,
    ) -> None:
        self.out = out
        self.seed = seed
        self.workers = workers
        self.size = size
        self.on_step = on_step
        self.on_progress = on_progress
        self.seconds: dict[str, float] = {}
        self.predictions: dict[str, Predictions] = {}
        self.evaluations: dict[str, Evaluation] = {}

    def start(self) -> None:
        """Create the folder, or check that it holds the same demo."""
        # With one thread, the same seed gives the same scores for any number of cores: sums depend on the number of
        # threads, and training amplifies the differences. It also avoids threads that wait for each other on a busy
        # machine.
        torch.set_num_threads(1)
        config = {"seed": self.seed, "size": asdict(self.size), "models": {k: list(v) for k, v in MODELS.items()}}
        path = self.out / "config.yaml"
        if path.is_file():
            check_same_run(self.out, read_yaml(path), config)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(path, yaml.safe_dump(config, sort_keys=False).encode())
        except OSError as error:
            raise PainseqError(f"The demo's folder {self.out} cannot be written: {error}.") from error

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self.on_step(title)
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start

    @contextmanager
    def _meanwhile(self, work: Callable[[OnProgress], object], unit: str) -> Iterator[None]:
        """Run `work` in a thread during the body, with a function to report progress to; wait for it at the end.

        If the body fails, the work ends with its next report. It must not draw global random numbers.
        """
        stop = Event()
        show = self._counting(unit)

        def report(done: int, total: int, note: str = "") -> None:
            if stop.is_set():
                raise PainseqError("The demo was stopped.")
            show(done, total)

        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
            running = thread.submit(work, report)
            try:
                yield
                running.result()
            finally:
                stop.set()

    def generate(self) -> None:
        """Generate heat pain as mp4 files in the layout of a real data set."""
        size = self.size
        heat = BioVidPlan(size.heat_subjects, size.heat_trials, ("BL1", "PA4"), fps=size.heat_fps, size_px=size.size_px)
        with self._step("1. Generate heat pain (BioVid's layout)"):
            write_biovid(self.out / "heat", heat, self.seed, self.workers, self._counting("frames of heat pain"))

    def train_heat_cnn(self) -> None:
        """Train the heat-pain CNN: no pain against high pain on single frames of heat subjects.

        Meanwhile, electrical pain of other subjects is generated: training uses one core.
        """
        title = "2. Train the heat-pain CNN on frames of heat subjects; generate electrical pain (AI4Pain's layout)"
        with self._step(title), self._meanwhile(self._generate_electrical, "frames of electrical pain"):
            heat = self._experiment(HEAT)
            self._extract(heat.data(), Pixels(CROP_PX), "heat_crops")
            self._fit(self._experiment(HEAT, _on_store(self.out / "heat_crops")), "heat_cnn")

    def _generate_electrical(self, on_progress: OnProgress) -> None:
        size = self.size
        plan = AI4PainPlan(
            size.train, size.validation, size.test, size.trials, size.baseline_s, fps=size.fps, size_px=size.size_px
        )
        write_ai4pain(self.out / "electrical", plan, self.seed, max(1, self.workers - 1), on_progress)

    def extract(self) -> None:
        """Extract features of the electrical videos with the heat-pain CNN, and at once with the untrained network."""
        weights = str(self.out / "heat_cnn" / "extractor.safetensors")
        untrained = self._experiment(ELECTRICAL)
        trained = untrained.changed({"model": {"extractor": {"init_args": {"weights": weights}}}})
        control, extractor = untrained.data(), untrained.extractor()

        def extract_control(on_progress: OnProgress) -> None:
            self._extract(control, extractor, "untrained_features", on_progress)

        title = "3. Extract features of the electrical videos with the frozen CNN, and with the untrained network"
        with self._step(title):
            heat_data, heat_cnn = trained.data(), trained.extractor()
            with self._meanwhile(extract_control, "clips for each network"):
                self._extract(heat_data, heat_cnn, "heat_features")

    def fit_heads(self) -> None:
        """Fit heads for three classes on electrical training subjects, with early stopping on some of them."""
        with self._step("4. Train heads for three classes, with early stopping on subjects of the training part"):
            for folder, store, head in MODELS.values():
                self._fit(self._on_features(store, head), folder)

    def score(self) -> None:
        """Score the heads on the test subjects, with the generator's truth outside the data set's folder."""
        truth = read_truth(self.out / "electrical_truth" / "labels.csv")
        with self._step("5. Score the heads on the test subjects"):
            for name, (folder, store, head) in MODELS.items():
                scored, checkpoint = self.out / f"{folder}_test", self.out / folder / BEST
                shutil.rmtree(scored, ignore_errors=True)
                experiment, model = self._on_features(store, head), load(checkpoint, device=pick_device("auto"))
                options = EvaluateOptions(truth=truth, checkpoints=(checkpoint,))
                result = evaluate(model, experiment.data(), scored, options, experiment)
                assert isinstance(result.predictions, Predictions) and isinstance(result.evaluation, Evaluation)
                self.predictions[name], self.evaluations[name] = result.predictions, result.evaluation
        with self._step("6. Write the test predictions as a challenge CSV"):
            submitted = self.predictions[SUBMITTED]
            submitted.write_csv(self.out / "predictions.csv")
            layout = SubmissionFormat(native_labels("ai4pain", "three"))
            rows = write_submission(submitted, self.out / "submission.csv", layout, fill="no_pain")
            log.info("%d items in %s.", rows, self.out / "submission.csv")

    def report(self) -> DemoResult:
        """Draw Grad-CAM of two clips, and write the scores as JSON and the report."""
        with self._step("7. Draw Grad-CAM of two clips"):
            figures = self._pictures()
        lstm, untrained = self.predictions["LSTM"], self.predictions["LSTM on an untrained extractor"]
        difference = paired_difference(lstm, untrained)["balanced_accuracy"]
        splits, facts = self._facts()
        result = DemoResult(self.out / "report.html", self.evaluations, difference, facts)
        with self._step("8. Write the report"):
            models = {name: evaluation.to_dict() for name, evaluation in self.evaluations.items()}
            metrics = {
                "models": models,
                "differences": {"LSTM minus LSTM on an untrained extractor": difference.to_dict()},
                "generated": True,
                "seed": self.seed,
            }
            write_json(self.out / "metrics.json", metrics)
            run = {"versions": versions(), "seed": self.seed, "split": splits, "seconds": self.seconds, "facts": facts}
            write_json(self.out / "run.json", run)
            self._write_page(result, figures)
        return result

    def _write_page(self, result: DemoResult, figures: list[Figure]) -> None:
        report = Report(
            title="painseq demo: from heat pain to electrical pain",
            subtitle="Three classes, held-out subjects, generated faces",
            dataset="generated faces",
            notes=[*NOTES, in_words(result.difference)],
            evaluations=self.evaluations,
            predictions=self.predictions,
            histories={name: read_history(self.out / folder) for name, (folder, _, _) in MODELS.items()},
            figures=figures,
            facts=result.facts,
            published=published_rows(),
        )
        write_report(result.page, report)
        write_figures(self.out / "figures", report)

    def _experiment(self, config: str, *more: str | Mapping[str, Any]) -> Experiment:
        root = self.out / ("heat" if config == HEAT else "electrical")
        own = {"seed_everything": self.seed, "data": {"init_args": {"root": str(root)}}}
        return read_experiment(config, *more, own)

    def _on_features(self, store: str, head: str) -> Experiment:
        limit = {"trainer": {"max_epochs": HEAD_EPOCHS}, "model": {"extractor": None}}
        changes = (limit, _on_store(self.out / f"{store}_features"))
        return self._experiment(ELECTRICAL, head, *changes)

    def _extract(
        self, data: PainDataModule, extractor: Extractor, store: str, on_progress: OnProgress = no_progress
    ) -> None:
        # For the same scores on processors with and without bfloat16; larger batches are faster for a small network.
        options = ExtractOptions(device=pick_device("auto"), precision="fp32", batch_frames=32)

        def show(progress: ExtractProgress) -> None:
            on_progress(progress.done, progress.total)

        extract_data_set(data, extractor, self.out / store, options, on_progress=show)

    def _fit(self, experiment: Experiment, folder: str) -> None:
        fit_unless_done(experiment, self.out / folder)

    def _counting(self, unit: str) -> OnProgress:
        def show(done: int, total: int, note: str = "") -> None:
            self.on_progress(done, total, unit)

        return show

    def _pictures(self) -> list[Figure]:
        model = load(self.out / "lstm" / BEST)
        predictions = self.predictions[SUBMITTED]
        figures = []
        for name in ("high_pain", "no_pain"):
            index = predictions.class_names.index(name)
            right = (predictions.truth == index) & (predictions.label == index)
            rows = [row for row in range(len(predictions)) if right[row]] or list(range(len(predictions)))
            row = max(rows, key=lambda row: float(predictions.probabilities[row, index]))
            clip_id = predictions.clip_ids[row]
            video = self.out / "electrical" / f"{clip_id}.mp4"
            options = ExplainVideoOptions(end_s=10.0, class_name="high_pain")
            png = explain_video(model, video, options=options).picture()
            write_atomically(self.out / f"gradcam_{name}.png", png)
            truth = predictions.class_names[predictions.truth[row]]
            figures.append(
                Figure(
                    f"Grad-CAM for high pain, clip {clip_id}",
                    f"True class {truth}, predicted {predictions.class_names[predictions.label[row]]}. Top: crops "
                    "of generated faces. Bottom: places in each frame that contribute to the LSTM's score for high "
                    "pain, on one scale over the clip. The LSTM's output is taken after the last frame, so the last "
                    "frames count most. A map shows what the network used, not that this is justified.",
                    png,
                )
            )
        return figures

    def _facts(self) -> tuple[dict[str, object], dict[str, str]]:
        runs = {folder: read_json(self.out / folder / "run.json") or {} for folder in ("heat_cnn", "lstm")}
        splits: dict[str, object] = {folder: run["data"]["split"] for folder, run in runs.items()}
        own, children = (
            resource.getrusage(processes).ru_maxrss for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        # ru_maxrss is in kilobytes on Linux, in bytes on macOS.
        scale = 1e9 if sys.platform == "darwin" else 1e6
        heat, electrical = runs["heat_cnn"]["data"], runs["lstm"]["data"]
        store = read_json(self.out / "heat_features" / "run.json") or {}
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


def _on_store(store: Path) -> Mapping[str, Any]:
    return {"data": {"init_args": {"options": {"store": str(store)}}}}


def in_words(difference: Difference) -> str:
    """Return as a sentence whether features learned on heat pain help."""
    value, interval = difference.value, difference.interval
    if value is None or interval.low is None or interval.high is None:
        return "Features learned on heat pain could not be compared with untrained ones: too few subjects were scored."
    span = f"balanced accuracy {value:+.3f}, 95 % interval over subjects {interval.low:+.3f} to {interval.high:+.3f}"
    if interval.low > 0:
        return f"Features learned on heat pain are better than untrained ones for the LSTM on electrical pain: {span}."
    if interval.high < 0:
        return f"Features learned on heat pain are worse than untrained ones for the LSTM on electrical pain: {span}."
    return f"There is no clear difference between features learned on heat pain and untrained ones: {span}."
