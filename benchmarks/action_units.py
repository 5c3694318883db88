"""Action units, a CNN's features and both together under boosted trees, on generated heat pain; preset seeds.

    python benchmarks/action_units.py --assets ASSETS            # seeds 0, 1, 2; about 5 minutes each on two cores
    python benchmarks/action_units.py --assets ASSETS --write    # and record the tables in benchmarks/RESULTS.md

For each seed other people are generated. Tables of action units stand for those of a detector: the generator's own
intensities, with noise, as py-feat writes them. The CNN is ImageNet's VGG16 of ASSETS, on crops of 64 pixels, as no
ResNet-18 can be had here. Landmarks are the generator's own: the face mesh does not find drawn faces. Each model is a
`HistogramBoosting` head over a clip, fitted and stopped on training and validation subjects, with a threshold tuned on
inner folds of the training subjects for the weighted F1, and scored on test subjects: at 0.5 and at the threshold. The
landmark model is then scored on electrical pain of other people. Agreement with scikit-learn's probabilities is held by
tests/heads/test_trees.py.
"""

import argparse
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from results import RESULTS, machine, write_between
from safetensors.numpy import load_file

from painseq.data import DataOptions, PainDataModule, SplitOptions
from painseq.data_modules import AI4Pain, BioVid
from painseq.evaluation import Evaluation
from painseq.extractors import VGG16
from painseq.faces import FaceCrops, Sidecar
from painseq.features import ExtractOptions
from painseq.files import write_csv
from painseq.heads import HistogramBoosting
from painseq.model.checkpoint import load
from painseq.model.pain_model import PainModel
from painseq.studies.compare import compare_runs
from painseq.studies.evaluate import EvaluateOptions, evaluate
from painseq.studies.extract import extract_data_set
from painseq.synthetic import AI4PainPlan, BioVidPlan, write_ai4pain, write_biovid
from painseq.synthetic.expression import AUS
from painseq.training import FitOptions, PainClassifier, ThresholdTuning, fit
from painseq.video.generated import truth_folder

SEEDS = (0, 1, 2)
HEAT = BioVidPlan(subjects=30, trials=3, levels=("BL1", "PA4"), fps=8, size_px=128)
ELECTRICAL = AI4PainPlan(train=2, validation=12, test=1, trials=3, baseline_s=30, fps=8)
SPLIT = SplitOptions(protocol="subject_holdout", validation_share=0.2, test_share=0.4)
NOISE = 0.15
FPS, SIZE_PX = 4.0, 64
MODELS = {
    "action units": ("action_units",),
    "CNN": ("cnn",),
    "CNN and action units": ("cnn", "action_units"),
    "landmarks": ("landmarks",),
}
WEIGHTS = "weights/backbone/vgg16_imagenet_features_tvnorm_fp16.safetensors"


def write_tables(root: Path, out: Path, seed: int) -> None:
    """Write a table of action units for each generated video, as py-feat would."""
    truth = truth_folder(root)
    random = np.random.default_rng(seed)
    names = ["frame", *(f"AU{int(unit[2:]):02d}" for unit in AUS)]
    for file in sorted(truth.rglob("*.safetensors")):
        units = load_file(file)["au"] / 5
        rows = np.clip(units + random.normal(0, NOISE, units.shape), 0, 1).round(4)
        place = (out / file.relative_to(truth)).with_suffix(".csv")
        place.parent.mkdir(parents=True, exist_ok=True)
        write_csv(place, [names, *([frame, *row.tolist()] for frame, row in enumerate(rows))])


def options(store: Path | None = None) -> DataOptions:
    """How both data sets are read."""
    face = FaceCrops(Sidecar(), size_px=SIZE_PX)
    return DataOptions(labels="binary", fps=FPS, face=face, split=SPLIT, store=store)


def measured(seed: int, out: Path, assets: Path) -> tuple[dict[str, list[str]], list[str], str]:
    """Cells of each model, sentences of the pairs, and the transfer's score, of one seed."""
    heat, electrical, tables = out / "heat", out / "electrical", out / "tables"
    workers = os.cpu_count() or 1
    write_biovid(heat, HEAT, seed, workers)
    write_ai4pain(electrical, ELECTRICAL, seed + 100, workers)
    write_tables(heat, tables, seed)
    stores = {"heat": out / "heat_store", "electrical": out / "electrical_store"}
    vgg16 = VGG16(str(assets / WEIGHTS), input_size_px=SIZE_PX)
    for data in (BioVid(heat, options()), AI4Pain(electrical, options())):
        store = stores["heat" if isinstance(data, BioVid) else "electrical"]
        extract_data_set(data, vgg16, store, ExtractOptions(precision="fp32"))
    cells: dict[str, list[str]] = {}
    for name, streams in MODELS.items():
        run, scored = out / f"fit {name}", out / f"test {name}"
        for folder in (run, scored):
            shutil.rmtree(folder, ignore_errors=True)
        folder_of_tables = tables if "action_units" in streams else None
        chosen = replace(options(stores["heat"]), streams=streams, action_units=folder_of_tables)
        model = PainClassifier(head=partial(HistogramBoosting, min_rows=5), class_weights="inverse_frequency")
        tuned = FitOptions(seed=seed, accelerator="cpu", tune_threshold=ThresholdTuning("weighted_f1", 3))
        fit(model, BioVid(heat, chosen), run, tuned)
        model_of_run = load(run / "best.ckpt")
        cells[name] = row_of(scores_of(model_of_run, BioVid(heat, chosen), scored, EvaluateOptions()))
    pairs = {"CNN and action units": "CNN", "CNN": "action units"}
    pairs_text = []
    for better, other in [*pairs.items(), ("CNN and action units", "action units")]:
        found = compare_runs({better: out / f"test {better}", other: out / f"test {other}"}).pairs[0]
        pairs_text.append(f"seed {seed}: {found.sentence}")
    return cells, pairs_text, transferred(electrical, stores["electrical"], out)


def with_interval(evaluation: Evaluation) -> str:
    """Balanced accuracy with its interval over subjects."""
    interval = evaluation.intervals["balanced_accuracy"]
    return f"{evaluation.scores.balanced_accuracy:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def row_of(evaluation: Evaluation) -> list[str]:
    """Balanced accuracy with its interval, and at 0.5 and the tuned threshold with sensitivity and specificity."""
    both = evaluation.threshold
    assert both is not None
    points = [
        f"{point.balanced_accuracy:.3f} ({point.sensitivity:.2f}, {point.specificity:.2f})"
        for point in (both.at_half, both.tuned)
    ]
    return [with_interval(evaluation), *points, both.shown]


def transferred(electrical: Path, store: Path, out: Path) -> str:
    """Balanced accuracy of the heat landmark model on electrical pain."""
    official = replace(options(store), streams=("landmarks",), split=SplitOptions(protocol="official"))
    scored = out / "electrical_test"
    shutil.rmtree(scored, ignore_errors=True)
    model = load(out / "fit landmarks" / "best.ckpt")
    return with_interval(scores_of(model, AI4Pain(electrical, official), scored, EvaluateOptions(part="validation")))


def scores_of(model: PainModel, data: PainDataModule, out: Path, chosen: EvaluateOptions) -> Evaluation:
    """The scores of a model on a part of a data set."""
    evaluation = evaluate(model, data, out, chosen).evaluation
    assert isinstance(evaluation, Evaluation)
    return evaluation


def main() -> None:
    """Measure, print and, if asked to, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the ImageNet VGG16")
    parser.add_argument("--out", type=Path, default=Path("runs/action_units"), help="folder for data and runs")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md")
    args = parser.parse_args()
    lines = ["| seed | model | balanced accuracy | at 0.5 (sensitivity, specificity) | at the threshold | threshold |"]
    lines.append("|---|---|---|---|---|---|")
    sentences, moved = [], []
    for seed in args.seeds:
        cells, pairs, transfer = measured(seed, args.out / f"seed{seed}", args.assets.resolve())
        lines += [f"| {seed} | {name} | " + " | ".join(row) + " |" for name, row in cells.items()]
        sentences += pairs
        moved.append(f"seed {seed}: {transfer}")
    text = (
        f"{machine()}\n\n"
        + "\n".join(lines)
        + "\n\nPaired by subject:\n\n"
        + "\n".join(f"- {s}" for s in sentences)
        + "\n\nThe landmark model of heat pain, on electrical pain of other people: "
        + "; ".join(moved)
        + "."
    )
    print(text)
    if args.write:
        write_between(RESULTS, "action_units", text)


if __name__ == "__main__":
    main()
