"""`painseq crossval`: every fold fitted and scored, once, the same however it was run."""

import csv
import html
import json
from pathlib import Path

import numpy as np
import pytest

from painseq.cli.crossval import main
from painseq.evaluation import read_predictions
from painseq.evaluation.value_predictions import read_value_predictions

HEAD = ["--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "2"]
LOSO = ["--data.options.split.protocol", "loso", "--data.options.split.validation_share", "0.25"]


@pytest.fixture(scope="module")
def options(on_electrical: list[str], store: Path) -> list[str]:
    return [*on_electrical, *LOSO, "--data.options.store", str(store)]


@pytest.fixture(scope="module")
def run(options: list[str], work: Path) -> Path:
    """Five folds, of a subject each; the two subjects of the hidden part are in none."""
    assert main([*options, *HEAD, "--out", str(work / "crossval"), "--jobs", "1"]) == 0
    return work / "crossval"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("predictions.csv")}


def splits_below(folder: Path) -> list[dict[str, list[str]]]:
    return [json.loads(path.read_text())["data"]["split"] for path in sorted(folder.rglob("run.json"))]


def test_each_clip_is_scored_once_by_the_fold_that_did_not_see_its_subject(run):
    together = read_predictions(run / "predictions.csv")
    folds = [read_predictions(run / f"fold-{number:02d}" / "predictions.csv") for number in range(5)]
    assert together.clip_ids == tuple(clip_id for fold in folds for clip_id in fold.clip_ids)
    assert len(set(together.clip_ids)) == len(together) == 19 and together.scored.all()
    assert np.array_equal(together.probabilities, np.concatenate([fold.probabilities for fold in folds]))
    for number, fold in enumerate(folds):
        split = json.loads((run / f"fold-{number:02d}" / "run.json").read_text())["data"]["split"]
        assert set(fold.subject_ids) == set(split["test"])
        assert not set(split["test"]) & {*split["train"], *split["validation"]}
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["test"] for row in metrics["folds"]] == [[f"S0{number}"] for number in range(1, 6)]
    assert metrics["folds_left_out"] == 0 and metrics["spread"]["remark"]
    accuracies = [float((fold.truth == fold.label).mean()) for fold in folds]
    assert [row["accuracy"] for row in metrics["folds"]] == pytest.approx(accuracies)
    assert metrics["spread"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert metrics["spread"]["accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    figures = json.loads((run / "figures" / "figures.json").read_text())
    assert len(figures["folds"]["rows"]) == 5 and all((run / "figures" / f"{name}.csv").is_file() for name in figures)
    (model,) = metrics["models"].values()
    assert model["scores"]["accuracy"] == pytest.approx((together.truth == together.label).mean())
    page = (run / "report.html").read_text()
    assert "generated" in page and metrics["spread"]["remark"] in html.unescape(page) and "S05" in page


def test_a_fold_is_what_fit_and_evaluate_give(run, options, tmp_path):
    from painseq.cli.evaluate import main as evaluate
    from painseq.cli.fit import fit

    fold = [*options, "--data.options.split.fold", "2"]
    best = fit([*fold, *HEAD, "--out", str(tmp_path / "fit")]) / "best.ckpt"
    evaluate([*fold, "--checkpoint", str(best), "--out", str(tmp_path / "scored")])
    assert (tmp_path / "scored" / "predictions.csv").read_bytes() == (run / "fold-02" / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_processes_that_share_the_features_give_the_same(run, options, painseq, tmp_path):
    result = painseq("crossval", *options, *HEAD, "--out", tmp_path / "two", "--jobs", "2")
    assert result.code == 0 and result.log.names(5, 2)
    assert files(tmp_path / "two") == files(run)


def test_an_interrupted_run_goes_on_at_the_fold(run, options, painseq, tmp_path, monkeypatch):
    import painseq.studies.fold_fits as module

    fit_fold, fitted = module.fit_fold, []

    def until_the_third(make, data, out, *rest):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(out.name)
        return fit_fold(make, data, out, *rest)

    monkeypatch.setattr(module, "fit_fold", until_the_third)
    command = ["crossval", *options, *HEAD, "--out", tmp_path / "cut", "--jobs", "1"]
    result = painseq(*command)
    assert result.code == 130 and result.err.names("painseq crossval")
    assert not (tmp_path / "cut" / "metrics.json").exists()

    def counted(make, data, out, *rest):
        if not (out / "run.json").is_file():
            fitted.append(out.name)
        return fit_fold(make, data, out, *rest)

    monkeypatch.setattr(module, "fit_fold", counted)
    assert painseq(*command).code == 0
    assert fitted == ["fold-00", "fold-01", "fold-02", "fold-03", "fold-04"]
    assert files(tmp_path / "cut") == files(run)


def test_the_folds_it_writes_can_be_audited(run, painseq):
    result = painseq("audit", "check", run / "folds.json")
    assert result.code == 0 and not result.out.names("LEAK")


def test_a_folder_takes_no_other_run(run, options, painseq, tmp_path):
    before = files(run)
    result = painseq("crossval", *options, *HEAD, "--out", run, "--data.options.batch_size", "3")
    assert result.code == 1 and result.err.names(run, "data.init_args.options.batch_size", 32, 3)
    assert files(run) == before
    (tmp_path / "mine.txt").write_text("mine")
    result = painseq("crossval", *options, *HEAD, "--out", tmp_path)
    assert result.code == 1 and result.err.names(tmp_path)


@pytest.mark.parametrize("candidates", [[], ["lstm", "linear_probe"]])
def test_what_is_chosen_inside_a_fold_never_sees_its_test_subjects(candidates, options, painseq, tmp_path):
    out = tmp_path / "nested"
    head = ["--candidates", *(f"configs/head/{name}.yaml" for name in candidates)] if candidates else HEAD[:2]
    protocol = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    limit = ["--trainer.max_epochs", "3", "--inner-folds", "2", "--jobs", "1"]
    assert painseq("crossval", *options, *protocol, *head, *limit, "--out", out).code == 0
    everybody = {f"S0{number}" for number in range(1, 6)}
    for fold in (out / "fold-00", out / "fold-01"):
        final = json.loads((fold / "run.json").read_text())
        tested = set(final["data"]["split"]["test"])
        assert tested and set(final["data"]["split"]["train"]) == everybody - tested
        assert final["data"]["split"]["validation"] == []
        inner = splits_below(fold / "inner")
        assert len(inner) == 2 * max(1, len(candidates))
        assert all(
            not split["test"] and {*split["train"], *split["validation"]} == everybody - tested for split in inner
        )
        choice = json.loads((fold / "choice.json").read_text())
        assert choice["name"] in (candidates or ["LSTM"])
        epochs = []
        for run in sorted((fold / "inner").glob(f"{choice['name']}-*")):
            with (run / "metrics.csv").open() as file:
                losses = [float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]]
            epochs.append(losses.index(min(losses)) + 1)
        assert choice["inner_epochs"] == epochs and choice["epochs"] == sorted(epochs)[0]
        assert final["epochs"] == final["settings"]["epochs"] == choice["epochs"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["how"]["choice"]
    assert read_predictions(out / "predictions.csv").scored.sum() == 19


def test_repeats_draw_other_folds_and_are_scored_apart(options, painseq, tmp_path):
    protocol = ["--data.options.split.protocol", "subject_kfold", "--data.options.split.folds", "2"]
    head = ["--config", "configs/head/linear_probe.yaml", "--trainer.max_epochs", "1", "--jobs", "1"]
    assert painseq("crossval", *options, *protocol, *head, "--repeats", "2", "--out", tmp_path / "twice").code == 0
    drawn = json.loads((tmp_path / "twice" / "folds.json").read_text())["folds"]
    assert [(fold["repeat"], fold["fold"]) for fold in drawn] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {tuple(fold["test"]) for fold in drawn[:2]} != {tuple(fold["test"]) for fold in drawn[2:]}
    tables = [read_predictions(tmp_path / "twice" / f"repeat-{repeat}" / "predictions.csv") for repeat in (0, 1)]
    assert all(len(set(table.clip_ids)) == 19 for table in tables)
    models = json.loads((tmp_path / "twice" / "metrics.json").read_text())["models"]
    for repeat, table in enumerate(tables):
        found = models[f"LinearProbe, repeat {repeat}"]["scores"]["accuracy"]
        assert found == pytest.approx((table.truth == table.label).mean())


# ---- clips of one's own, as features in npz ----


def own_data(root: Path, labels: dict[str, list[object]], seed: int = 0) -> list[str]:
    """Options for a folder of features: each subject's clips have these labels, which the first feature tells."""
    (root / "npz").mkdir(parents=True)
    random = np.random.default_rng(seed)
    with (root / "clips.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["clip_id", "subject_id", "video", "label"])
        for subject, each in labels.items():
            for number, label in enumerate(each):
                rows.writerow([f"{subject}_{number}", subject, f"{subject}_{number}.mp4", label])
                features = random.standard_normal((4, 3)).astype(np.float32)
                features[:, 0] = hash_of(label)
                where = root / "npz" / f"{subject}_{number}.npz"
                np.savez(where, features=features, present=np.ones(4, bool), times_s=np.arange(4.0))
    (root / "npz" / "source.json").write_text(json.dumps({"trained_on": []}))
    data = {"root": str(root), "name": "own", "manifest": str(root / "clips.csv")}
    data["options"] = {
        "labels": "native",
        "store": str(root / "npz"),
        "split": {"protocol": "loso", "validation_share": 0.4},
    }
    config = root / "own.yaml"
    config.write_text(
        json.dumps(
            {
                "data": {"class_path": "painseq.data_modules.Folder", "init_args": data},
                "trainer": {"accelerator": "cpu"},
            }
        )
    )
    return [
        "--config",
        str(config),
        "--config",
        "configs/head/linear_probe.yaml",
        "--trainer.max_epochs",
        "2",
        "--jobs",
        "1",
    ]


def hash_of(label: object) -> float:
    return float(label) if isinstance(label, int | float) else float(len(str(label)))


def test_a_fold_that_cannot_be_fitted_is_told_and_counted(painseq, tmp_path, monkeypatch):
    from painseq.features import NpzFolder

    made = own_data(tmp_path / "own", {"a": ["calm", "agony"], "b": ["calm"], "c": ["calm"], "d": ["calm", "calm"]})
    read = NpzFolder.__init__

    def with_a_failure(self: NpzFolder, path: Path) -> None:
        read(self, path)
        self.failed = {"b_0": "cut short"}

    monkeypatch.setattr(NpzFolder, "__init__", with_a_failure)
    result = painseq("crossval", *made, "--data.options.split.validation_share", "0.3", "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    splits = {fold["test"][0]: fold for fold in json.loads((tmp_path / "out" / "folds.json").read_text())["folds"]}
    reasons = {row["test"][0]: row.get("left_out") for row in metrics["folds"]}
    for subject, split in splits.items():
        expected = None
        if "a" not in split["train"]:
            expected = ("training", "agony")
        elif split["validation"] == ["b"]:
            expected = ("validation",)
        elif subject == "b":
            expected = ("test",)
        reason = reasons[subject]
        assert (reason is None) == (expected is None) and all(fact in reason for fact in expected or ())
    left_out = {subject for subject, reason in reasons.items() if reason is not None}
    assert {"a", "b"} <= left_out < set("abcd") and metrics["folds_left_out"] == len(left_out)
    assert result.code == 0 and result.out.names(len(left_out))
    assert set(read_predictions(tmp_path / "out" / "predictions.csv").subject_ids) == set("abcd") - left_out


def test_no_fold_at_all_is_an_error(painseq, tmp_path):
    made = own_data(tmp_path / "own", {"a": ["agony"], "b": ["calm"], "c": ["calm"]})
    result = painseq("crossval", *made, "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names("training", "agony", 3)


def test_values_on_a_scale_are_cross_validated_too(painseq, tmp_path):
    labels = {subject: [float(value) for value in range(place, place + 4)] for place, subject in enumerate("abcd")}
    made = own_data(tmp_path / "own", labels)
    scale = ["--data.options.labels", "0..8", "--model.loss", "mse", "--model.class_weights", "none"]
    assert painseq("crossval", *made, *scale, "--inner-folds", "2", "--out", tmp_path / "out").code == 0
    table = read_value_predictions(tmp_path / "out" / "predictions.csv")
    assert len(table) == 16 and table.scored.all() and set(table.subject_ids) == set("abcd")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    (model,) = metrics["models"].values()
    assert model["scores"]["mse"] == pytest.approx(((table.truth - table.value) ** 2).mean())
    errors = [
        np.abs(table.truth - table.value)[[who == subject for who in table.subject_ids]].mean() for subject in "abcd"
    ]
    assert metrics["spread"]["mae"]["max"] == pytest.approx(max(errors))
    assert metrics["spread"]["mae"]["mean"] == pytest.approx(np.mean(errors))
    assert all(subject in (tmp_path / "out" / "report.html").read_text() for subject in "abcd")


def test_an_extractor_that_saw_the_subjects_stops_all_folds(painseq, tmp_path):
    made = own_data(tmp_path / "own", {subject: ["calm", "agony"] for subject in "abcd"})
    (tmp_path / "own" / "npz" / "source.json").write_text(json.dumps({"trained_on": ["own/b"]}))
    result = painseq("crossval", *made, "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names("extractor", 1, "own/b")
    assert not (tmp_path / "out" / "metrics.json").exists()
    (tmp_path / "own" / "npz" / "source.json").write_text(json.dumps({"trained_on": []}))
    assert painseq("crossval", *made, "--trainer.max_epochs", "1", "--out", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("more", "facts"),
    [
        (["--data.options.split.protocol", "official"], ("official", "subject_kfold", "loso")),
        (["--data.options.split.fold", "1"], ("split.fold", "split.fold_subject")),
        (["--data.options.split.validation_share", "0"], ("split.validation_share", "inner_folds")),
        (["--candidates", "configs/head/lstm.yaml"], ("--candidates", "--inner-folds")),
        (["--candidates", "configs/head/lstm.yaml", "--inner-folds", "2"], ("head", "--candidates")),
        (["--inner-folds", "1"], ("inner_folds", 1, 2)),
        (["--repeats", "0"], ("repeats", 0)),
        (["--jobs", "0"], ("jobs", 0)),
        (["--trainer.accumulate_grad_batches", "2"], ("trainer.accumulate_grad_batches", "max_epochs")),
        (["--early_stopping.min_delta", "0.1"], ("early_stopping.min_delta", "max_epochs")),
    ],
)
def test_mistakes_are_told_before_anything_is_fitted(more, facts, options, painseq, tmp_path):
    result = painseq("crossval", *options, *HEAD, *more, "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names(*facts)
    assert not list(tmp_path.rglob("run.json"))
