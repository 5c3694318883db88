"""The whole job of Prajod et al. 2024 on generated data, from videos to a report."""

from __future__ import annotations

import logging
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from painseq.errors import PainseqError
from painseq.evaluation import Difference, Evaluation, Predictions, paired_difference, published_rows, read_truth
from painseq.extractors import Extractor, Pixels
from painseq.features import ExtractOptions
from painseq.files import write_json
from painseq.model.checkpoint import load
from painseq.report import Figure, Report, write_figures, write_report
from painseq.runs import OnProgress, check_same_run, no_progress, pick_device, read_history, read_json, versions
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
"""Name -> run folder, store, head. The predictions handed in are those of the LSTM, the paper's second model."""
SUBMITTED = "LSTM"
CROP_PX = 80
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


@dataclass(frozen=True)
class DemoResult:
    """What came of the demo.

    Args:
        page: `report.html`.
        evaluations: model -> scores on the Test subjects.
        difference: balanced accuracy of the LSTM on heat features minus that of the LSTM on an untrained extractor.
        facts: what the page tells of the run: subjects, fingerprints, time, memory, versions.
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
    """Do the whole job in `out`; steps that are finished there are not done again.

    Args:
        out: gets `report.html`, `metrics.json` (every model, score, interval, baseline, difference), `predictions.csv`
            and `submission.csv` of the LSTM, `config.yaml`, `run.json` (versions, seed, split), `figures/` (the numbers
            of the page), and a run folder for each model.
        seed: of data, heads and order.
        workers: processes that draw faces.
        on_step: called with the title of each step.
        on_progress: called with (frames or clips done, in all, what they are).

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
    """The steps of the demo, in order; each leaves its result in `out` and is skipped if that is there."""

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
        """Make the folder, or check that it holds this very demo."""
        # Sums differ with the number of threads, and training makes other networks of it: with one, the same seed gives
        # the same figures on machines with other numbers of cores. It also spares the stalls of threads that wait for
        # each other on a busy machine.
        torch.set_num_threads(1)
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
        self.on_step(title)
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start

    def generate(self) -> None:
        """Two data sets, of different people, as mp4 files in the real layouts."""
        size = self.size
        heat = BioVidPlan(size.heat_subjects, size.heat_trials, ("BL1", "PA4"), fps=size.fps)
        electrical = AI4PainPlan(size.train, size.validation, size.test, size.trials, size.baseline_s, fps=size.fps)
        with self._step("1. Generate heat pain (BioVid's layout) and electrical pain (AI4Pain's layout)"):
            write_biovid(self.out / "heat", heat, self.seed, self.workers, self._counting("frames of heat pain"))
            show = self._counting("frames of electrical pain")
            write_ai4pain(self.out / "electrical", electrical, self.seed, self.workers, show)

    def train_heat_cnn(self) -> None:
        """No pain against high pain on single frames of heat subjects."""
        with self._step("2. Train the heat-pain CNN, no pain against high pain, on frames of heat training subjects"):
            self._extract(self._experiment(HEAT), "heat_crops", Pixels(CROP_PX))
            self._fit(self._experiment(HEAT, _on_store(self.out / "heat_crops")), "heat_cnn")

    def extract(self) -> None:
        """Features of the electrical videos: through the heat-pain CNN, and through the same network untrained."""
        with self._step("3. Freeze it, and extract features of the electrical videos; and through it untrained"):
            weights = str(self.out / "heat_cnn" / "extractor.safetensors")
            untrained = self._experiment(ELECTRICAL)
            trained = untrained.changed({"model": {"extractor": {"init_args": {"weights": weights}}}})
            for experiment, name in ((trained, "heat"), (untrained, "untrained")):
                self._extract(experiment, f"{name}_features", experiment.extractor())

    def fit_heads(self) -> None:
        """Three classes on electrical training subjects, stopping early on an inner subject split of Train."""
        with self._step("4. Train heads for three classes, stopping early on subjects taken out of Train"):
            for folder, store, head in MODELS.values():
                self._fit(self._on_features(store, head), folder)

    def score(self) -> None:
        """Once, on Test subjects, with the truth that the generator keeps outside the data set's tree."""
        truth = read_truth(self.out / "electrical_truth" / "labels.csv")
        with self._step("5. Score them on the Test subjects"):
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
        """Grad-CAM over two clips, the numbers as JSON, and one page that tells all."""
        with self._step("7. Draw Grad-CAM over two clips"):
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
            subtitle="Three classes, people the models have never seen, generated faces",
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
        changes = (_on_store(self.out / f"{store}_features"), {"model": {"extractor": None}})
        return self._experiment(ELECTRICAL, head, *changes)

    def _extract(self, experiment: Experiment, store: str, extractor: Extractor) -> None:
        # The same figures on processors with and without bfloat16.
        options = ExtractOptions(device=pick_device("auto"), precision="fp32")
        show = self._counting(f"clips for {store}")
        data = experiment.data()
        extract_data_set(data, extractor, self.out / store, options, on_progress=lambda now: show(now.done, now.total))

    def _fit(self, experiment: Experiment, folder: str) -> None:
        fit_unless_done(experiment, self.out / folder)

    def _counting(self, what: str) -> OnProgress:
        def show(done: int, total: int, note: str = "") -> None:
            self.on_progress(done, total, what)

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
        runs = {folder: read_json(self.out / folder / "run.json") or {} for folder in ("heat_cnn", "lstm")}
        splits: dict[str, object] = {folder: run["data"]["split"] for folder, run in runs.items()}
        own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        # Kilobytes on Linux, bytes on macOS.
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
    """Whether features learned on heat pain help, in a sentence."""
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
