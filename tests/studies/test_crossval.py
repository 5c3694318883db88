"""Cross-validation from Python: any model, its settings chosen inside the folds, and the pieces."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.cli.crossval import parsed_grid
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import Split
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_predictions
from painseq.evaluation.value_predictions import ValuePredictions
from painseq.heads import LSTM, HistogramBoosting, LinearProbe
from painseq.studies.crossval import CrossValidation, choices_of, cross_validate
from painseq.studies.crossval_report import fold_scores, pooled, spread_of
from painseq.studies.experiment import read_experiment
from painseq.studies.fold_fits import Candidate, FitResult, FoldFit, default_jobs, grid_of, run_fit
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions
from painseq.training.tuning import ThresholdTuning

SHORT = FitOptions(max_epochs=1, accelerator="cpu")
ONE_JOB = CrossValidation(jobs=1)


@pytest.fixture
def data(electrical, store):
    split = SplitOptions(protocol="subject_kfold", folds=2, validation_share=0.25)
    return AI4Pain(electrical, DataOptions(store=store, split=split))


def of_ones_own(head: type = LSTM) -> Candidate:
    """A model whose factory is made here, so that no other process could be sent it."""
    return Candidate(head.__name__, lambda: PainClassifier(head=head), SHORT)


def test_a_model_of_ones_own(data, tmp_path):
    seen = []
    result = cross_validate(
        [of_ones_own()],
        data,
        tmp_path / "run",
        ONE_JOB,
        on_progress=lambda done, total, note="": seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    table = read_predictions(tmp_path / "run" / "predictions.csv", data.scheme.class_names)
    assert table.clip_ids == result.predictions["LSTM"].clip_ids and len(table) == 19
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["models"] == {"LSTM": json.loads(json.dumps(result.evaluations["LSTM"].to_dict()))}
    assert written["folds"] == list(result.folds) and not result.warnings


def test_a_factory_that_cannot_be_sent_to_other_processes(data, tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)'LSTM'.*\bjobs=1\b"):
        cross_validate([of_ones_own()], data, tmp_path / "run", CrossValidation(jobs=2))


def test_a_folder_goes_on_with_the_same_model_only(data, tmp_path):
    cross_validate([of_ones_own()], data, tmp_path / "run", ONE_JOB)
    before = (tmp_path / "run" / "predictions.csv").read_bytes()
    other = replace(of_ones_own(LinearProbe), name="LSTM")
    with pytest.raises(PainseqError, match="head"):
        cross_validate([other], data, tmp_path / "run", ONE_JOB)
    with pytest.raises(PainseqError, match=r"crossval\.candidates\.LSTM\.max_epochs"):
        cross_validate([replace(of_ones_own(), options=replace(SHORT, max_epochs=2))], data, tmp_path / "run", ONE_JOB)
    assert cross_validate([of_ones_own()], data, tmp_path / "run", ONE_JOB).folds
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == before


def test_candidates_are_chosen_inside_the_folds(data, tmp_path):
    candidates = [of_ones_own(), of_ones_own(LinearProbe)]
    with pytest.raises(PainseqError, match="inner_folds"):
        cross_validate(candidates, data, tmp_path / "run", ONE_JOB)
    with pytest.raises(PainseqError, match="name"):
        cross_validate([of_ones_own()] * 2, data, tmp_path / "run", CrossValidation(inner_folds=2, jobs=1))
    result = cross_validate(candidates, data, tmp_path / "run", CrossValidation(inner_folds=2, jobs=1))
    for number, row in enumerate(result.folds):
        choice = json.loads((tmp_path / "run" / f"fold-{number:02d}" / "choice.json").read_text())
        assert choice["name"] == row["model"] == ("LSTM", "LinearProbe")[choice["recipe"]]
        assert choice["epochs"] == row["epochs"] == 1


class AtOnce(LinearProbe):
    fitted_by_gradients = False


def test_inner_folds_need_a_head_that_is_fitted_in_epochs(data, tmp_path):
    with pytest.raises(PainseqError, match=r"AtOnce.*inner_folds"):
        cross_validate([of_ones_own(AtOnce)], data, tmp_path / "run", CrossValidation(inner_folds=2, jobs=1))
    assert not (tmp_path / "run").exists()


# ---- the pieces ----


def history(out: Path, losses: list[float], scores: list[float], name: str = "val_balanced_accuracy") -> Path:
    out.mkdir(parents=True)
    rows = [f"{epoch},{loss},{score}" for epoch, (loss, score) in enumerate(zip(losses, scores, strict=True))]
    (out / "metrics.csv").write_text("\n".join([f"epoch,val_loss,{name}", *rows]) + "\n")
    return out


def done(out: Path, candidate: int, left_out: str | None = None) -> FitResult:
    return FitResult(FoldFit(out, Split("inner", ("a",), ("b",), ()), candidate), left_out)


def test_the_candidate_with_the_best_mean_score_at_its_best_epochs_is_chosen(tmp_path):
    candidates = [Candidate(name, lambda: pytest.fail("not fitted")) for name in ("one", "two", "three")]
    inner = [
        done(history(tmp_path / "a0", [3, 1, 2], [0.9, 0.5, 0.9]), 0),
        done(history(tmp_path / "a1", [2, 2, 1, 1], [0.9, 0.9, 0.7, 0.0]), 0),
        done(history(tmp_path / "b0", [30, 40, 50], [0.6, 0.1, 0.1]), 1),
        done(history(tmp_path / "b1", [30, 20], [0.1, 0.6]), 1),
        done(tmp_path / "c0", 2, "no training clip of class high_pain"),
    ]
    chosen, second = choices_of(inner, candidates)
    assert second.candidate == 1 and (chosen.candidate, chosen.epochs, chosen.inner_epochs) == (0, 2, (2, 3))
    assert chosen.score == pytest.approx(0.6)
    (with_a_tie,) = choices_of(inner[2:], candidates)
    assert (with_a_tie.candidate, with_a_tie.epochs) == (1, 1)
    assert choices_of(inner[4:], candidates) == []
    errors = [done(history(tmp_path / f"e{n}", [1], [error], "val_mse"), n) for n, error in enumerate((2.0, 1.0))]
    smaller, _ = choices_of(errors, candidates)
    assert (smaller.candidate, smaller.score) == (1, -1.0)


def predictions(clips: int, seed: int, frames_vote: bool = True) -> Predictions:
    random = np.random.default_rng(seed)
    shares = random.dirichlet([1.0, 1.0, 1.0], clips)
    label = shares.argmax(1)
    label[:1], shares[:1] = -1, math.nan
    return Predictions(
        class_names=("no", "low", "high"),
        clip_ids=tuple(f"{seed}-{n}" for n in range(clips)),
        subject_ids=tuple(f"s{seed}" for _ in range(clips)),
        truth=random.integers(-1, 3, clips),
        label=label,
        probabilities=shares,
        frames=np.full(clips, 3),
        faceless=np.zeros(clips, np.int64),
        votes=shares if frames_vote else None,
    )


@pytest.mark.parametrize("frames_vote", [True, False])
def test_pooled_predictions_are_the_parts_one_behind_the_other(frames_vote, tmp_path):
    parts = [predictions(clips, seed, frames_vote) for seed, clips in enumerate((4, 1, 3))]
    together, first = pooled(parts), 0
    for part in parts:
        again = together.only(range(first, first + len(part)))
        again.write_csv(tmp_path / "again.csv")
        part.write_csv(tmp_path / "part.csv")
        assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "part.csv").read_bytes()
        first += len(part)
    assert len(together) == first


def test_folds_that_chose_heads_with_votes_and_without_are_pooled():
    one, other = predictions(4, 0), replace(predictions(3, 1, frames_vote=False), clip_ids=("x", "y", "z"))
    for parts in ((one, other), (other, one)):
        together = pooled(parts)
        assert len(together) == 7 and together.votes is None


def test_the_spread_leaves_out_what_is_not_defined():
    found = spread_of([{"a": 0.5, "b": None}, {"a": None, "b": None}, {"a": 1.0, "b": None}])
    assert found == {
        "a": {"mean": 0.75, "std": pytest.approx(np.std([0.5, 1], ddof=1)), "min": 0.5, "max": 1.0, "folds": 2}
    }
    assert spread_of([{"a": 0.5}])["a"]["std"] is None
    nothing = replace(predictions(2, 0), truth=np.array([-1, -1]))
    assert set(fold_scores(nothing).values()) == {None}
    hidden = ValuePredictions(
        "vas", ("x",), ("s",), np.array([math.nan]), np.array([1.0]), np.array([1]), np.array([0])
    )
    assert fold_scores(hidden) == {"mse": None, "mae": None}


def test_a_finished_fold_tells_its_warnings_again(tmp_path):
    fit = FoldFit(tmp_path, Split("subject_kfold", ("a",), ("b",), ("c",)))
    fit.predictions.touch()
    (tmp_path / "warnings.json").write_text('["the loss flatters"]')
    assert run_fit(fit, [], None) == FitResult(fit, None, ("the loss flatters",))


def test_as_many_processes_as_fill_the_cores(monkeypatch):
    """Those that a batch system gave, not all of the machine's."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    cpu = torch.device("cpu")
    assert [default_jobs(cpu, threads, fits) for threads, fits in ((1, 20), (3, 20), (1, 5), (16, 5))] == [8, 2, 5, 1]
    assert default_jobs(torch.device("cuda", 0), 1, 20) == 1


# ---- heads that are fitted at once ----


@pytest.fixture
def in_four(electrical, store):
    """Data with enough training people for folds of them."""
    split = SplitOptions(protocol="subject_kfold", folds=4, validation_share=0.25)
    return AI4Pain(electrical, DataOptions(store=store, split=split))


def trees(name: str, count: int, **arguments: object) -> Candidate:
    made = partial(PainClassifier, head=partial(HistogramBoosting, trees=count, min_rows=1, **arguments))
    return Candidate(name, made, FitOptions(accelerator="cpu"))


def test_trees_are_chosen_on_people_that_neither_fitted_nor_cut_them(in_four, tmp_path):
    candidates = [trees("few", 3, level="frame"), trees("boosted", 20, level="frame", learning_rate=0.3)]
    tuned = FitOptions(accelerator="cpu", tune_threshold=ThresholdTuning("balanced_accuracy", 2))
    binary = AI4Pain(in_four.root, replace(in_four.options, labels="binary"))
    candidates = [replace(each, options=tuned) for each in candidates]
    options = CrossValidation(inner_folds=2, jobs=1)
    result = cross_validate(candidates, binary, tmp_path / "run", options)
    for number, row in enumerate(result.folds):
        folder = tmp_path / "run" / f"fold-{number:02d}"
        choice = json.loads((folder / "choice.json").read_text())
        assert choice["name"] == row["model"] and choice["epochs"] is None and row["epochs"] is None
        assert set(choice["candidates"]) == {"few", "boosted"}
        assert choice["score"] == max(choice["candidates"].values()) == choice["candidates"][choice["name"]]
        fold = json.loads((folder / "run.json").read_text())
        split, seen = fold["data"]["split"], set()
        assert fold["threshold"]["inner_folds"] == 2
        for inner in sorted((folder / "inner").glob("boosted-*")):
            run = json.loads((inner / "run.json").read_text())
            parts = run["data"]["split"]
            assert parts["validation"] == split["validation"] and not {*parts["train"]} & {*parts["test"]}
            assert not {*parts["train"], *parts["test"]} & {*split["test"]} and run["threshold"] is None
            seen |= {*parts["test"]}
        assert seen == {*split["train"]}
    with pytest.raises(PainseqError, match="candidates"):
        cross_validate(candidates[:1], binary, tmp_path / "one", options)


def test_heads_of_both_kinds_are_chosen_alike(in_four, tmp_path):
    options = CrossValidation(inner_folds=2, jobs=1)
    result = cross_validate([of_ones_own(), trees("boosted", 5)], in_four, tmp_path / "run", options)
    for number, row in enumerate(result.folds):
        choice = json.loads((tmp_path / "run" / f"fold-{number:02d}" / "choice.json").read_text())
        assert choice["name"] == row["model"] and set(choice["candidates"]) == {"LSTM", "boosted"}
        assert (tmp_path / "run" / f"fold-{number:02d}" / "inner" / "LSTM-1" / "predictions.csv").is_file()
    settings = json.loads((tmp_path / "run" / "metrics.json").read_text())["how"]
    assert "predicted by a fit without it" in settings["choice"]


def test_a_grid_has_a_candidate_for_each_combination():
    experiment = read_experiment("configs/head/histogram_boosting.yaml")
    grid = grid_of(experiment, {"max_depth": [2, 3], "learning_rate": [0.1, 0.3]})
    assert [candidate.name for candidate in grid] == [
        f"max_depth={depth},learning_rate={rate}" for depth in (2, 3) for rate in (0.1, 0.3)
    ]
    heads = [candidate.make().head_factory((4,), 2) for candidate in grid]
    assert [(head.max_depth, head.learning_rate) for head in heads] == [(2, 0.1), (2, 0.3), (3, 0.1), (3, 0.3)]
    with pytest.raises(PainseqError, match="max_depth"):
        grid_of(experiment, {"max_depth": [2]})
    with pytest.raises(PainseqError, match="deepness"):
        grid_of(experiment, {"deepness": [2, 3]})
    assert parsed_grid(["trees=10,20", "level=frame,video"]) == {"trees": [10, 20], "level": ["frame", "video"]}
    for wrong in (["trees"], ["=3"], ["trees="], ["trees=1,2", "trees=3,4"]):
        with pytest.raises(PainseqError, match="--grid"):
            parsed_grid(wrong)
