"""How often does a 95 % interval hold the true value, by its method and the number of subjects?

    python benchmarks/coverage.py --quick     # 200 studies and three numbers of subjects
    python benchmarks/coverage.py --write     # 1,000 studies each, and record the tables in benchmarks/RESULTS.md

Each study draws its subjects anew. A model's score of class k for a clip of class y is `skill * (k == y)` of the
subject, plus the subject's leaning to k, plus Gumbel noise; the label is the highest. So a subject's share of right
labels is a softmax, and skill lies on the logit scale: a random effect. The true value is that of all people that could
be drawn, not of those in the study. Clips come as in BioVid (balanced), as in AI4Pain's validation part (1, 12 and 12
of each subject), and uneven: 5 to 40 a subject, each subject with another mix of classes.

Methods beside the default of `painseq.evaluation`: other ways of taking an interval from the same draws of subjects,
and taking clips as if each were of another person. Exits with 1 if the default is not within 93 to 97 % with 40 or more
subjects; a quick run has too few studies to say so.

A second part has what strains the default: a good model, whose few failures are of few people, so that the subjects'
values lie far to one side; and scores of values on a scale, where people and errors are skewed too.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from results import RESULTS, machine, write_between
from scipy.special import logit, ndtr, ndtri, stdtrit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from painseq.evaluation import STATISTICS, intervals
from painseq.evaluation.intervals import DRAWS, Interval, bootstrap_interval, confusion_intervals
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.evaluation.value_scores import VALUE_STATISTICS, sums_by_subject

SUBJECTS = (6, 8, 12, 20, 40, 87)
STUDIES = 1000
TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "quadratic_weighted_kappa": "quadratic kappa",
    "auroc": "AUROC",
}
VALUE_TITLES = {"mse": "mean squared error", "mae": "mean absolute error", "pearson": "Pearson", "icc_3_1": "ICC(3,1)"}
VALUES = "4 to 20 clips, values on a scale"
CLIPS = "clips as if independent"
DEFAULT = "**default**"
ORDINARY, GOOD = (0.8, 0.8), (3.5, 1.0)
"""Mean and standard deviation of the subjects' skill: right half of the time, or nine times out of ten."""
LEANING = 0.5
GOAL = (0.93, 0.97)

draw_subjects = cache(intervals.draw_subjects)


@dataclass(frozen=True)
class Study:
    subject: np.ndarray  # (n,) whom each clip shows
    truth: np.ndarray  # (n,)
    score: np.ndarray  # (n, 3) softmax

    @property
    def confusion(self) -> np.ndarray:
        """(S, 3, 3)"""
        counts = np.zeros((self.subject.max() + 1, 3, 3))
        np.add.at(counts, (self.subject, self.truth, self.score.argmax(1)), 1)
        return counts


# ---- Studies, and the truth about them ----


def even(per_class: tuple[int, ...]) -> Callable[[int, np.random.Generator], np.ndarray]:
    return lambda subjects, rng: np.tile(per_class, (subjects, 1))


def uneven(subjects: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(rng.integers(5, 41, subjects), rng.dirichlet((2, 2, 2), subjects))


DESIGNS = {
    "20 clips of each class": even((20, 20, 20)),
    "1, 12 and 12 clips": even((1, 12, 12)),
    "5 to 40 clips, uneven mix": uneven,
}


def people(subjects: int, model: tuple[float, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(*model, subjects), rng.normal(0, LEANING, (subjects, 3))


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def study(clips: np.ndarray, model: tuple[float, float], rng: np.random.Generator) -> Study:
    """`clips` (S, 3): how many of each class, a subject."""
    skill, leaning = people(len(clips), model, rng)
    subject, truth = (np.repeat(index.ravel(), clips.ravel()) for index in np.indices(clips.shape))
    values = leaning[subject] + skill[subject, None] * np.eye(3)[truth] + rng.gumbel(size=(len(truth), 3))
    return Study(subject, truth, softmax(values))


def true_values(design: str, model: tuple[float, float], persons: int = 1_000_000) -> dict[str, float]:
    """Of so many people: of the confusion matrix in closed form a person, of AUROC by one clip of each."""
    rng = np.random.default_rng(2)
    mix = DESIGNS[design](100_000, rng).mean(0)
    skill, leaning = people(persons, model, rng)
    recall = np.stack([softmax(leaning + skill[:, None] * np.eye(3)[y]).mean(0) for y in range(3)])
    values = {name: float(statistic(mix[:, None] * recall)) for name, statistic in STATISTICS.items() if name in TITLES}
    one_each = np.eye(3, dtype=int)[rng.choice(3, persons, p=mix / mix.sum())]
    clips = study(one_each, model, rng)
    return values | {"auroc": float(roc_auc_score(clips.truth, clips.score, multi_class="ovr"))}


def auroc(clips: Study) -> Callable[[np.ndarray], np.ndarray]:
    """Macro one-against-rest AUROC as a function of how often each subject is drawn, (draws, S).

    Pairs are counted once, by the subject of either clip: a draw is then a quadratic form.
    """
    subjects = clips.subject.max() + 1
    parts = []
    for k in range(3):
        order = clips.score[:, k].argsort()
        positive = clips.truth[order] == k
        whose = np.eye(subjects)[clips.subject[order]]
        below = np.cumsum(whose * ~positive[:, None], axis=0)
        parts.append((whose[positive].T @ below[positive], whose[positive].sum(0), whose[~positive].sum(0)))

    def statistic(times: np.ndarray) -> np.ndarray:
        times = times.astype(float)
        with np.errstate(invalid="ignore"):
            return np.mean(
                [((times @ pairs) * times).sum(-1) / ((times @ p) * (times @ n)) for pairs, p, n in parts], axis=0
            )

    return statistic


# ---- Methods, each the two ends of an interval ----


def percentile(values: np.ndarray, subjects: int) -> np.ndarray:
    return np.quantile(values, [0.025, 0.975])


def expanded(values: np.ndarray, subjects: int) -> np.ndarray:
    """Hesterberg 2015: percentiles as far out as Student's t and the divisor S - 1 would go."""
    tail = ndtr(np.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, 0.025))
    return np.quantile(values, [tail, 1 - tail])


def bca(values: np.ndarray, left_out: np.ndarray, estimate: float, widen: bool) -> np.ndarray:
    """Bias-corrected and accelerated, as `scipy.stats.bootstrap` has it; `widen` as `expanded` does."""
    subjects = len(left_out)
    z = np.sqrt(subjects / (subjects - 1)) * stdtrit(subjects - 1, 0.975) if widen else ndtri(0.975)
    bias = ndtri(np.clip(((values < estimate).mean() + (values <= estimate).mean()) / 2, 1e-4, 1 - 1e-4))
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5) if pull.any() else 0.0
    shifted = bias + np.array([-z, z])
    return np.quantile(values, ndtr(bias + shifted / (1 - acceleration * shifted)))


def jackknife(left_out: np.ndarray, estimate: float) -> np.ndarray:
    subjects = len(left_out)
    error = np.sqrt((subjects - 1) / subjects * ((left_out - left_out.mean()) ** 2).sum())
    return estimate + stdtrit(subjects - 1, 0.975) * error * np.array([-1, 1])


def jackknife_logit(left_out: np.ndarray, estimate: float, low: float) -> np.ndarray:
    """On the logit scale of a score between `low` and 1."""
    share = np.clip((np.append(left_out, estimate) - low) / (1 - low), 1e-3, 1 - 1e-3)
    ends = jackknife(logit(share[:-1]), logit(share[-1]))
    return low + (1 - low) / (1 + np.exp(-ends))


def bootstrap_t(confusion: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Studentised draws; each draw's error by the delta method, its derivative by finite differences."""
    subjects = len(confusion)
    step = 1e-4 * confusion.sum()

    def value_and_error(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = np.tensordot(times, confusion, axes=1)
        cells = step * np.eye(9).reshape(9, 3, 3)
        value = statistic(sums)
        slope = (statistic(sums[:, None] + cells) - value[:, None]) / step
        pull = slope @ confusion.reshape(subjects, 9).T
        pull -= (times * pull).sum(1, keepdims=True) / subjects
        return value, np.sqrt((times * pull**2).sum(1) * subjects / (subjects - 1))

    value, error = value_and_error(np.ones((1, subjects)))
    drawn, errors = value_and_error(draw_subjects(subjects, DRAWS, 0).astype(float))
    sure = errors > 1e-9
    ends = np.quantile((drawn[sure] - value) / errors[sure], [0.975, 0.025])
    return value - error * ends


def clips_alone(clips: Study, name: str, rng: np.random.Generator) -> np.ndarray:
    """Resampled clips; for AUROC the error of DeLong 1988, which takes clips as independent too."""
    n = len(clips.truth)
    if name != "auroc":
        total = clips.confusion.sum(0)
        draws = rng.multinomial(n, total.ravel() / n, size=DRAWS).reshape(-1, 3, 3)
        return np.quantile(STATISTICS[name](draws.astype(float)), [0.025, 0.975])
    value, pull = 0.0, np.zeros(n)
    for k in range(3):
        positive, score = clips.truth == k, clips.score[:, k]
        ranks, p = rankdata(score), positive.sum()
        area = (ranks[positive].sum() - p * (p + 1) / 2) / (p * (n - p))
        pull[positive] += ((ranks[positive] - rankdata(score[positive])) / (n - p) - area) / (3 * p)
        pull[~positive] += (1 - (ranks[~positive] - rankdata(score[~positive])) / p - area) / (3 * (n - p))
        value += area / 3
    return value + ndtri(0.975) * np.sqrt((pull**2).sum()) * np.array([-1, 1])


def ends(interval: Interval) -> np.ndarray:
    return np.array([interval.low, interval.high], dtype=float)


def default(clips: Study, name: str, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    confusion = clips.confusion
    if name == "auroc":
        return ends(bootstrap_interval(statistic, len(confusion)))
    return ends(confusion_intervals(confusion, [name])[name])


def methods(clips: Study, name: str, statistic: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    confusion = clips.confusion
    subjects = len(confusion)
    values = statistic(draw_subjects(subjects, DRAWS, 0))
    values = values[~np.isnan(values)]
    left_out = statistic(np.ones((subjects, subjects)) - np.eye(subjects))
    left_out = left_out[~np.isnan(left_out)]
    estimate = float(statistic(np.ones((1, subjects)))[0])
    found = {
        DEFAULT: default(clips, name, statistic),
        "percentile": percentile(values, subjects),
        "expanded percentile": expanded(values, subjects),
        "BCa": bca(values, left_out, estimate, widen=False),
        "BCa, expanded": bca(values, left_out, estimate, widen=True),
        "jackknife, t": jackknife(left_out, estimate),
        "jackknife, t, logit": jackknife_logit(left_out, estimate, -1 if "kappa" in name else 0),
        CLIPS: clips_alone(clips, name, np.random.default_rng(0)),
    }
    if name != "auroc":
        found["bootstrap-t"] = bootstrap_t(confusion, STATISTICS[name])
    return found


def statistics(clips: Study) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    confusion = clips.confusion

    def summed(statistic: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda times: statistic(np.tensordot(times.astype(float), confusion, axes=1))

    return {name: auroc(clips) if name == "auroc" else summed(STATISTICS[name]) for name in TITLES}


# ---- Counting ----

Cells = dict[tuple[str, str, str, int], tuple[float, float]]
"""Coverage and mean width by design, statistic, method and number of subjects."""


def measure(design: str, subjects: int, studies: int, model: tuple[float, float], truth: dict[str, float]) -> Cells:
    """All methods for an ordinary model, the default alone for a good one."""
    held: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    rng = np.random.default_rng((subjects, list(DESIGNS).index(design)))
    for _ in range(studies):
        clips = study(DESIGNS[design](subjects, rng), model, rng)
        for name, statistic in statistics(clips).items():
            ours = {DEFAULT: default(clips, name, statistic)} if model == GOOD else methods(clips, name, statistic)
            for method, (low, high) in ours.items():
                held.setdefault((name, method), []).append((low <= truth[name] <= high, high - low))
    return {(design, *key, subjects): tuple(np.mean(rows, axis=0).tolist()) for key, rows in held.items()}


def values_on_a_scale(subjects: int, rng: np.random.Generator) -> np.ndarray:
    """(S, 8) sums by subject of 4 to 20 clips each: skewed truths, of people whom the model reads more or less well."""
    subject = np.repeat(np.arange(subjects), rng.integers(4, 21, subjects))
    truth = (rng.gamma(2, 1, subjects)[subject] * rng.gamma(1, 1, len(subject))).round()
    slope, offset = rng.lognormal(-0.5, 0.4, subjects), rng.normal(1, 1, subjects)
    value = slope[subject] * truth + offset[subject] + rng.normal(0, 1.5, len(subject))
    none, names = np.zeros(len(subject), np.int64), tuple(map(str, range(len(subject))))
    return sums_by_subject(ValuePredictions("pspi", names, tuple(map(str, subject)), truth, value, none, none))


def measure_values(subjects: int, studies: int, truth: dict[str, float]) -> Cells:
    held: dict[str, list[tuple[bool, float]]] = {}
    rng = np.random.default_rng(subjects)
    for _ in range(studies):
        sums = values_on_a_scale(subjects, rng)
        for name, statistic in VALUE_STATISTICS.items():
            low, high = ends(bootstrap_interval(lambda times, of=statistic, sums=sums: of(times @ sums), subjects))
            held.setdefault(name, []).append((low <= truth[name] <= high, high - low))
    return {(VALUES, name, DEFAULT, subjects): tuple(np.mean(rows, axis=0).tolist()) for name, rows in held.items()}


def by_size(cells: Cells, sizes: tuple[int, ...], rows: list[tuple[str, str, str]]) -> list[str]:
    lines = ["| clips | score | method | " + " | ".join(map(str, sizes)) + " |", "|---" * (3 + len(sizes)) + "|"]
    for design, name, method in rows:
        shown = [
            f"{100 * cells[design, name, method, s][0]:.1f} ({cells[design, name, method, s][1]:.2f})" for s in sizes
        ]
        lines.append("| " + " | ".join([design, (TITLES | VALUE_TITLES)[name], method, *shown]) + " |")
    return lines


def ranges(cells: Cells, sizes: tuple[int, ...]) -> list[str]:
    """Lowest, mean and highest coverage of each bootstrap over the cells whose default is one."""
    lines = ["| method | " + " | ".join(map(str, sizes)) + " |", "|---" * (1 + len(sizes)) + "|"]
    for method in dict.fromkeys(key[2] for key in cells):
        shown = []
        for size in sizes:
            found = [
                100 * coverage
                for (design, name, m, s), (coverage, _) in cells.items()
                if (m, s) == (method, size) and (design == list(DESIGNS)[2] or name not in intervals.MEANS)
            ]
            shown.append(f"{min(found):.1f} / {np.mean(found):.1f} / {max(found):.1f}")
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return lines


def compare_methods(sizes: tuple[int, ...], studies: int) -> tuple[str, list[str]]:
    """The page's text, and where the default missed its goal."""
    cells: Cells = {}
    for design in DESIGNS:
        truth = true_values(design, ORDINARY)
        for size in sizes:
            cells |= measure(design, size, studies, ORDINARY, truth)
            print(f"done: {design}, {size} subjects", flush=True)
    all_methods = list(dict.fromkeys(key[2] for key in cells))
    main_rows = [(d, "balanced_accuracy", m) for d in DESIGNS for m in all_methods]
    other_rows = [(d, name, m) for d in DESIGNS for name in list(TITLES)[1:] for m in (DEFAULT, "percentile", CLIPS)]
    missed = [
        f"{key[0]}, {TITLES[key[1]]}, {key[3]} subjects: {100 * coverage:.1f} %"
        for key, (coverage, _) in cells.items()
        if key[2] == DEFAULT and key[3] >= 40 and not GOAL[0] <= coverage <= GOAL[1]
    ]
    lines = [
        *said_of_all(studies),
        "Coverage in %, and the mean width, of 95 % intervals of balanced accuracy, by number of subjects:",
        "",
        *by_size(cells, sizes, main_rows),
        "",
        "The other scores:",
        "",
        *by_size(cells, sizes, other_rows),
        "",
        "Lowest / mean / highest coverage over all scores and clips that are no mean of subjects' values, which is "
        "where the default is a bootstrap:",
        "",
        *ranges(cells, sizes),
        "",
        f"- default within {100 * GOAL[0]:.0f} to {100 * GOAL[1]:.0f} % with 40 or more subjects, in every row: "
        + ("not judged" if studies < STUDIES else f"MISSED ({'; '.join(missed)})" if missed else "met"),
    ]
    return "\n".join(lines), missed


def strain(sizes: tuple[int, ...], studies: int) -> str:
    cells: Cells = {}
    for design in DESIGNS:
        truth = true_values(design, GOOD)
        for size in sizes:
            cells |= measure(design, size, studies, GOOD, truth)
            print(f"done: good model, {design}, {size} subjects", flush=True)
    large = values_on_a_scale(200_000, np.random.default_rng(2)).sum(0)
    truth = {name: float(statistic(large)) for name, statistic in VALUE_STATISTICS.items()}
    for size in sizes:
        cells |= measure_values(size, studies, truth)
    lines = [
        *said_of_all(studies),
        "Coverage in %, and the mean width, of the default, for a model that is right nine times out of ten:",
        "",
        *by_size(cells, sizes, [(design, name, DEFAULT) for design in DESIGNS for name in TITLES]),
        "",
        "And for values on a scale, skewed as PSPI is:",
        "",
        *by_size(cells, sizes, [(VALUES, name, DEFAULT) for name in VALUE_TITLES]),
    ]
    return "\n".join(lines)


def said_of_all(studies: int) -> list[str]:
    error = 100 * np.sqrt(0.95 * 0.05 / studies)
    return [
        f"{machine()} {studies:,} studies a cell, {DRAWS:,} draws an interval. Monte Carlo error of a coverage of "
        f"95 %: {error:.1f} points (one standard error).",
        "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 studies, three numbers of subjects")
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md")
    parser.add_argument("--only", choices=("methods", "strain"), help="one part alone")
    args = parser.parse_args()
    if args.quick and args.write:
        parser.error("a quick run is not recorded: take --write without --quick")
    sizes, studies = ((6, 20, 40), 200) if args.quick else (SUBJECTS, STUDIES)
    # Every interval of so many subjects uses the same draws, as the seed is the same: they need not be made again.
    intervals.draw_subjects = draw_subjects
    parts: dict[str, str] = {}
    missed: list[str] = []
    if args.only != "strain":
        parts["coverage"], missed = compare_methods(sizes, studies)
    if args.only != "methods":
        parts["coverage_strain"] = strain(sizes, studies)
    for marker, text in parts.items():
        print(text)
        if args.write:
            write_between(RESULTS, marker, text)
    return 1 if missed and not args.quick else 0


if __name__ == "__main__":
    raise SystemExit(main())
