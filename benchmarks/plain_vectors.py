"""Do painseq's heads keep up with scikit-learn on plain vectors, with and without normalisation?

    python benchmarks/plain_vectors.py            # some minutes on one core
    python benchmarks/plain_vectors.py --write    # records the table in benchmarks/RESULTS.md

680 columns with scales from 1e-3 to 1e3; each person has an offset in every column, larger than what pain changes, and
pain changes a few columns. scikit-learn is given the same rows of the same people, normalised in the same way. First
the tree heads are checked to give scikit-learn's probabilities.
"""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from results import RESULTS, machine, write_between
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from painseq.data.datamodule import PainDataModule
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import Split, every_fold
from painseq.evaluation import Predictions, score
from painseq.evaluation.comparison import compare
from painseq.evaluation.score import number
from painseq.heads import HistogramBoosting, RandomForest
from painseq.heads.head import Rows
from painseq.records import Clip, Manifest
from painseq.studies.crossval_report import pooled
from painseq.studies.experiment import read_experiment
from painseq.studies.predict_part import predict_part
from painseq.training.fitting import fit_fold

PEOPLE, CLIPS, FRAMES, COLUMNS, INFORMATIVE = 32, 16, 4, 680, 20
OFFSET, PAIN, NOISE = 1.5, 0.4, 1.0
"""Standard deviation of a person's offset; what pain adds to an informative column; noise of a frame, in units of a
column's scale."""
FOLDS, EPOCHS, HIDDEN, TREES = 4, 40, (128, 32), 25
NORMALISE = ("none", "train", "subject")
CLASSES = ("no", "high")
Floats = NDArray[np.float64]


def generated(seed: int) -> dict[str, NDArray[np.float32]]:
    """Clip id -> (FRAMES, COLUMNS); even clips are without pain."""
    random = np.random.default_rng(seed)
    scales = 10 ** random.uniform(-3, 3, COLUMNS)
    informative = random.choice(COLUMNS, INFORMATIVE, replace=False)
    signs = random.choice([-1.0, 1.0], INFORMATIVE)
    found = {}
    for person in range(PEOPLE):
        offset = OFFSET * random.standard_normal(COLUMNS)
        for clip in range(CLIPS):
            x = offset + NOISE * (
                random.standard_normal((FRAMES, COLUMNS)) + random.standard_normal((1, COLUMNS))
            ) / np.sqrt(2)
            x[:, informative] += PAIN * signs * (clip % 2)
            found[f"p{person:02d}_{clip:02d}"] = (x * scales).astype(np.float32)
    return found


class Vectors(PainDataModule):
    """The generated vectors, as a folder of .npz."""

    name = "vectors"
    classes = CLASSES

    def read_manifest(self) -> Manifest:
        """List the clips."""
        ids = sorted(path.stem for path in self.root.glob("*.npz"))
        clips = [Clip(name, name[:3], f"{name}.mp4", label=CLASSES[int(name[-2:]) % 2]) for name in ids]
        return Manifest(self.name, self.root, tuple(clips))


@dataclass(frozen=True)
class Contest:
    """A head, and what scikit-learn has for it.

    Args:
        config: the head's YAML.
        changes: what is smaller here, of the head and its equivalent alike.
        theirs: makes scikit-learn's estimator.
        of_frames: whether both learn frames, and vote.
    """

    config: str
    changes: Mapping[str, Any]
    theirs: Callable[[], Any]
    of_frames: bool


TREES_ARE = {"init_args": {"trees": TREES, "level": "frame"}}
CONTESTS = {
    "linear probe, logistic regression": Contest(
        "linear_probe", {}, lambda: LogisticRegression(max_iter=1000), of_frames=False
    ),
    "frame ANN, MLP": Contest(
        "frame_ann",
        {"init_args": {"hidden": list(HIDDEN)}},
        lambda: MLPClassifier(HIDDEN, max_iter=EPOCHS, random_state=0),
        of_frames=True,
    ),
    "histogram boosting": Contest(
        "histogram_boosting",
        TREES_ARE,
        lambda: HistGradientBoostingClassifier(
            max_iter=TREES, learning_rate=0.05, max_depth=3, max_leaf_nodes=None, early_stopping=False, random_state=0
        ),
        of_frames=True,
    ),
    "random forest": Contest(
        "random_forest", TREES_ARE, lambda: RandomForestClassifier(TREES, random_state=0), of_frames=True
    ),
}


def agreement() -> dict[str, float]:
    """Largest difference of a tree head's probabilities from those of scikit-learn, fitted on the same rows."""
    rows = np.stack([x[0] for x in generated(1).values()])[:400]
    y = np.arange(len(rows)) % 2
    makers = {
        "HistogramBoosting": (
            HistogramBoosting((COLUMNS,), 2, "frame", trees=TREES),
            lambda seed: HistGradientBoostingClassifier(
                max_iter=TREES,
                learning_rate=0.05,
                max_depth=3,
                max_leaf_nodes=None,
                early_stopping=False,
                random_state=seed,
            ),
        ),
        "RandomForest": (
            RandomForest((COLUMNS,), 2, "frame", trees=TREES),
            lambda seed: RandomForestClassifier(TREES, random_state=seed),
        ),
    }
    apart = {}
    for name, (head, theirs) in makers.items():
        torch.manual_seed(0)
        seed = int(torch.randint(2**31 - 1, ()))
        torch.manual_seed(0)
        x, ones = torch.from_numpy(rows[:300]), torch.ones(300)
        head.fit_rows(Rows(x, ones.bool(), torch.from_numpy(y[:300]), ones), None)
        expected = theirs(seed).fit(rows[:300], y[:300], np.ones(300)).predict_proba(rows[300:])
        found = head.row_logits(torch.from_numpy(rows[300:])).softmax(dim=-1)
        apart[name] = float(np.abs(found.numpy() - expected).max())
    return apart


def ours(contest: Contest, data: PainDataModule, splits: list[Split], normalise: str, out: Path) -> Predictions:
    """Fit the head on each fold, and predict its test people."""
    epochs = {"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"}} if not _at_once(contest) else {}
    model: dict[str, Any] = {"normalise": "train" if normalise == "train" else "none"}
    if contest.changes:
        model["head"] = dict(contest.changes)
    experiment = read_experiment(f"configs/head/{contest.config}.yaml", {"model": model, **epochs})
    parts = []
    for number_, split in enumerate(splits):
        of_fold = data.with_split(split)
        fitted = fit_fold(experiment.classifier, of_fold, out / str(number_), experiment.fit_options())
        parts.append(predict_part(fitted, of_fold, "test"))
    return pooled(parts)


def _at_once(contest: Contest) -> bool:
    return contest.config in ("histogram_boosting", "random_forest")


def theirs(
    contest: Contest, vectors: Mapping[str, NDArray[np.float32]], splits: list[Split], normalise: str, like: Predictions
) -> Predictions:
    """Fit scikit-learn's estimator on the training people of each fold, and predict its test people."""
    label, probabilities = np.zeros_like(like.label), np.zeros_like(like.probabilities)
    for split in splits:
        scaled = _scaled(vectors, split, normalise)
        names = [name for name in vectors if name[:3] in split.train]
        x = [scaled[name] if contest.of_frames else scaled[name].mean(axis=0, keepdims=True) for name in names]
        y = np.repeat([int(name[-2:]) % 2 for name in names], [len(rows) for rows in x])
        fitted = contest.theirs().fit(np.concatenate(x).astype(np.float32), y)
        for row, (name, person) in enumerate(zip(like.clip_ids, like.subject_ids, strict=True)):
            if person not in split.test:
                continue
            rows = scaled[name] if contest.of_frames else scaled[name].mean(axis=0, keepdims=True)
            found = fitted.predict_proba(rows.astype(np.float32))
            votes = np.bincount(found.argmax(axis=1), minlength=2)
            probabilities[row] = found.mean(axis=0)
            # A tie of votes goes to the larger mean probability, as with painseq's heads.
            label[row] = np.lexsort((probabilities[row], votes))[-1]
    return replace(like, label=label, probabilities=probabilities, votes=None)


def _scaled(vectors: Mapping[str, NDArray[np.float32]], split: Split, normalise: str) -> dict[str, Floats]:
    if normalise == "none":
        return {name: x.astype(np.float64) for name, x in vectors.items()}
    if normalise == "train":
        scaler = StandardScaler().fit(np.concatenate([x for name, x in vectors.items() if name[:3] in split.train]))
        return {name: scaler.transform(x) for name, x in vectors.items()}
    scaled = {}
    for person in {name[:3] for name in vectors}:
        own = {name: x for name, x in vectors.items() if name[:3] == person}
        scaler = StandardScaler().fit(np.concatenate(list(own.values())))
        scaled |= {name: scaler.transform(x) for name, x in own.items()}
    return scaled


def table(seed: int, folder: Path) -> tuple[str, list[str]]:
    """One row a head and normalisation; and the contests that scikit-learn won."""
    vectors = generated(seed)
    for name, x in vectors.items():
        np.savez(folder / f"{name}.npz", features=x, present=np.ones(len(x), bool), times_s=np.arange(len(x)) / FRAMES)
    lines = [
        "| heads | normalise | painseq | scikit-learn | difference, 95 % interval | s |",
        "|---|---|---|---|---|---|",
    ]
    lost = []
    for title, contest in CONTESTS.items():
        for normalise in NORMALISE:
            begun = time.perf_counter()
            options = DataOptions(
                labels={"no_pain": ["no"], "high_pain": ["high"]},
                store=folder,
                split=SplitOptions(protocol="subject_kfold", folds=FOLDS, validation_share=0.2),
                normalise="subject" if normalise == "subject" else "none",
            )
            data = Vectors(folder, options)
            splits = every_fold(data.manifest, options.split, data.scheme)
            found = ours(contest, data, splits, normalise, folder / "runs" / contest.config / normalise)
            of_theirs = theirs(contest, vectors, splits, normalise, found)
            difference = compare({"painseq": found, "scikit-learn": of_theirs}, "balanced_accuracy")[0].difference
            interval = difference.interval
            if interval.high is not None and interval.high < 0:
                lost.append(f"{title}, {normalise}")
            lines.append(
                f"| {title} | {normalise} | {_score(found)} | {_score(of_theirs)} | {number(difference.value)} "
                f"({number(interval.low)} to {number(interval.high)}) | {time.perf_counter() - begun:.0f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines), lost


def _score(predictions: Predictions) -> str:
    evaluation = score(predictions)
    interval = evaluation.intervals["balanced_accuracy"]
    return f"{number(evaluation.scores.balanced_accuracy)} ({number(interval.low)} to {number(interval.high)})"


def main() -> int:
    """Measure, print, and record on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the vectors")
    parser.add_argument("--write", action="store_true", help="record the table in benchmarks/RESULTS.md")
    args = parser.parse_args()
    for name in ("pytorch_lightning", "painseq"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    apart = agreement()
    for name, value in apart.items():
        print(f"{name}: probabilities differ from scikit-learn's by at most {value:.1e}")
    if max(apart.values()) > 1e-6:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        rows, lost = table(args.seed, Path(folder))
    if args.write:
        agreed = ", ".join(f"{name} {value:.0e}" for name, value in apart.items())
        text = f"{machine()} Tree heads and scikit-learn on the same rows differ by at most: {agreed}.\n\n{rows}"
        write_between(RESULTS, "plain_vectors", text)
    print(f"scikit-learn is ahead beyond the interval in: {'; '.join(lost) or 'none'}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
