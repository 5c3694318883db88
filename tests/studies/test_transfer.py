"""The transfer table: plans, and one small table from videos to the page."""

import csv
import dataclasses
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from painseq.errors import LeakError, PainseqError
from painseq.evaluation import Predictions, read_predictions, score
from painseq.evaluation.transfer import TransferCell
from painseq.extractors import TimmBackbone, save_weights
from painseq.studies.experiment import Experiment, read_experiment
from painseq.studies.transfer import _warnings_once, transfer, transfer_work
from painseq.studies.transfer_plan import (
    TransferData,
    TransferExtractor,
    TransferFit,
    TransferPlan,
    fit_of,
    read_plan,
)
from painseq.studies.transfer_report import note_on_controls, seen_videos, unknown_people

TRAINING = {"heat": 5, "electrical": 3}
NOTHING = Experiment({})


def extractor(trained_on, **stores):
    return TransferExtractor(NOTHING, trained_on, stores)


def plan(**other):
    """A plan that names nothing real."""
    given = {
        "data": {"heat": TransferData(NOTHING), "electrical": TransferData(NOTHING)},
        "extractors": {
            "cnn": extractor("heat"),
            "shocks": extractor("electrical"),
            "untrained": extractor("nothing"),
        },
        "heads": {"lstm": NOTHING},
        "sources": ("heat", "electrical"),
        "targets": ("heat", "electrical"),
        "fps": 8.0,
        "k": (1, 2, 4),
        "draws": 3,
    }
    return TransferPlan(**{**given, **other})


def test_the_table_has_every_pair_and_its_controls():
    cells = plan().cells(TRAINING)
    assert len(set(cells)) == len(cells)
    models = [c for c in cells if c.question == "model"]
    assert {(c.source, c.target, c.extractor) for c in models} == {
        (source, target, extractor)
        for source, own in (("heat", "cnn"), ("electrical", "shocks"))
        for extractor in (own, "untrained")
        for target in ("heat", "electrical")
    }
    features = [(c.source, c.extractor, c.target) for c in cells if c.question == "features"]
    assert (
        ("nothing", "untrained", "heat") in features
        and ("heat", "cnn", "electrical") in features
        and len(features) == 6
    )
    curves = [(c.source, c.target, c.k) for c in cells if c.question == "subjects"]
    assert curves == [("heat", "electrical", k) for k in (0, 1, 2, 3)] + [
        ("electrical", "heat", k) for k in (0, 1, 2, 4, 5)
    ]
    for cell in cells:
        assert plan().within_cell(cell) in cells and set(plan().controls_of(cell)) <= set(cells)


def test_what_is_asked_in_two_cells_is_fitted_once():
    asked = plan(seeds=(0, 1))
    assert fit_of(TransferCell("model", "heat", "heat", "cnn", "lstm"), 1, 0) == TransferFit("cnn", "heat", "lstm", 1)
    assert fit_of(TransferCell("features", "heat", "heat", "cnn", "lstm"), 1, 0) == TransferFit(
        "cnn", "heat", "lstm", 1
    )
    assert fit_of(TransferCell("subjects", "heat", "electrical", "cnn", "lstm", 0), 1, 0) == TransferFit(
        "cnn", "heat", "lstm", 1
    )
    few = fit_of(TransferCell("subjects", "heat", "electrical", "cnn", "lstm", 2), 1, 2)
    assert few.on == "electrical" and few.start == TransferFit("cnn", "heat", "lstm", 1)
    assert asked.runs(TransferCell("subjects", "heat", "electrical", "cnn", "lstm", 2), TRAINING) == [
        (seed, draw) for seed in (0, 1) for draw in (0, 1, 2)
    ]
    for k in (0, 3):
        assert asked.runs(TransferCell("subjects", "heat", "electrical", "cnn", "lstm", k), TRAINING) == [
            (0, 0),
            (1, 0),
        ]
    fits = [fit_of(cell, *run) for cell in asked.cells(TRAINING) for run in asked.runs(cell, TRAINING)]
    assert len({fit.folder for fit in fits}) == len(set(fits))


def test_a_target_without_an_extractor_of_its_own_is_compared_with_the_control():
    lacking = plan(sources=("heat",), extractors={"cnn": extractor("heat"), "untrained": extractor("nothing")})
    assert lacking.within_extractor("electrical") == "untrained"
    assert re.search(r"\belectrical\b.*\buntrained\b.*\bnothing\b", lacking.within_is("electrical"))
    named = plan(within={"electrical": "cnn"})
    assert named.within_cell(TransferCell("model", "electrical", "electrical", "shocks", "lstm")).extractor == "cnn"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"sources": ("clinical",)}, "sources.*'clinical'.*heat, electrical"),
        ({"targets": ()}, "target"),
        ({"seeds": (1, 1)}, r"seeds.*\[1, 1\]"),
        ({"seeds": (0, -1)}, r"seeds.*\[0, -1\].*\b0\b"),
        ({"fps": 0.0}, r"fps.*\b0\.0\b"),
        ({"k": (0, 1)}, r"\bk\b.*\[0, 1\].*\b1\b"),
        ({"draws": 0}, r"draws.*\b0\b.*\b1\b"),
        ({"epochs": 0}, r"epochs.*\b0\b.*\b1\b"),
        ({"heads": {}}, "heads"),
        ({"heads": {"a/b": NOTHING}}, "heads.*'a/b'.*_to_"),
        ({"within": {"heat": "vgg"}}, "within.*'vgg'.*cnn, shocks, untrained"),
        ({"extractors": {"cnn": extractor("heat", x="store")}}, "stores.*cnn.*'x'.*heat, electrical"),
        ({"extractors": {"cnn": extractor("heat"), "u": extractor("nothing")}}, "trained_on: electrical"),
        ({"extractors": {"cnn": extractor("heat"), "s": extractor("electrical")}}, "trained_on: nothing"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(other, words):
    with pytest.raises(PainseqError, match=words):
        plan(**other)


@pytest.mark.parametrize(
    ("text", "words"),
    [("fps: [", "plan.yaml"), ("fsp: 8", "fsp"), ("fps: eight", "fps"), ("k: [a]", "k"), ("- fps", "plan.yaml")],
)
def test_a_plan_that_is_none_is_one_message(tmp_path, text, words):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PainseqError, match=words):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(PainseqError, match=r"none\.yaml.*configs/demo"):
        read_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (TransferExtractor(None, "tool", {"heat": Path("a")}), "store.*electrical"),
        (TransferExtractor(None, "heat", {"heat": Path("a"), "electrical": Path("b")}), "trained_on.*heat"),
    ],
)
def test_features_of_another_tool_that_cannot_be_are_refused(features, words):
    with pytest.raises(PainseqError, match=words):
        plan(extractors={"tool": features})


def test_features_of_another_tool_are_transferred_without_videos(tmp_path):
    random, data, stores = np.random.default_rng(0), {}, {}
    for name in ("heat", "electrical"):
        rows = ["clip_id,subject_id,label"]
        stores[name] = tmp_path / name
        stores[name].mkdir()
        (stores[name] / "source.json").write_text('{"trained_on": null}')
        for person, label in ((person, label) for person in range(5) for label in ("no", "yes")):
            arrays = {"features": random.normal(size=(4, 3)), "present": np.ones(4, bool), "times_s": np.arange(4) / 5}
            np.savez(stores[name] / f"{person}_{label}", **arrays)
            rows.append(f"{person}_{label},{person},{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        folder = {"root": str(tmp_path / "absent"), "name": name, "manifest": str(tmp_path / f"{name}.csv")}
        options = {"labels": {"no_pain": ["no"], "pain": ["yes"]}, "fps": 5}
        data[name] = TransferData(
            read_experiment({"data": {"class_path": "Folder", "init_args": {**folder, "options": options}}})
        )
    quick = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    probe = read_experiment("configs/head/linear_probe.yaml", {"trainer": quick})
    tool = TransferExtractor(None, "tool", stores)
    names = ("heat", "electrical")
    found = transfer(TransferPlan(data, {"tool": tool}, {"probe": probe}, names, names, fps=5, k=()), tmp_path / "out")
    models = {(one.cell.source, one.cell.target) for one in found.cells if one.cell.question == "model"}
    assert models == {(a, b) for a in names for b in names} and not found.generated
    told = json.loads((tmp_path / "out" / "transfer.json").read_text())["plan"]
    assert len(unknown_people(told)) == 1
    assert told["extractors"]["tool"]["given"] is True
    other = TransferExtractor(None, "tool", {**stores, "electrical": tmp_path / "wide"})
    (tmp_path / "wide").mkdir()
    for file in stores["electrical"].glob("*.npz"):
        np.savez(tmp_path / "wide" / file.name, **{**np.load(file), "features": np.ones((4, 7))})
    with pytest.raises(PainseqError, match=r"wide.*shape"):
        transfer(TransferPlan(data, {"tool": other}, {"probe": probe}, names, names, fps=5, k=()), tmp_path / "two")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data", {"heat": {"options": ["--config=heat.yaml"]}}, r"data\.heat\b.*`config`.*`set`"),
        ("extractors", {"cnn": {"options": [], "trained_on": "heat"}}, r"extractors\.cnn\b.*`config`.*`set`"),
        ("heads", {"lstm": ["--config=configs/head/lstm.yaml"]}, r"heads\.lstm\b.*`config`.*`set`"),
        ("extract", ["--precision=fp32"], r"\bextract\b.*extract: {precision: fp32}"),
    ],
)
def test_a_plan_of_command_line_arguments_says_how_to_write_it_now(tmp_path, key, value, words):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({key: value}))
    with pytest.raises(PainseqError, match=f"plan.yaml.*{words}"):
        read_plan(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("k", None, r"\bk\b.*null"),
        ("extract", {"precision": "half"}, "precision.*half"),
        ("extract", {"bogus": 1}, "bogus"),
        ("heads", {"linear": {"set": {"trainer": {"max_epochs": "two"}}}}, r"heads\.linear.*max_epochs.*two"),
        ("heads", {"linear": {"config": ["configs/head/none.yaml"]}}, r"heads\.linear.*head/none\.yaml"),
        ("extractors", {"cnn": {"set": {}}}, "trained_on"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path, key, value, words):
    path = tmp_path / "plan.yaml"
    content = yaml.safe_load(Path("configs/demo/transfer.yaml").read_text())
    path.write_text(yaml.safe_dump({**content, key: value}))
    with pytest.raises(PainseqError, match=f"(?s)plan.yaml.*{words}"):
        read_plan(path)


def test_what_every_store_warns_of_is_logged_once(caplog):
    log, seen = logging.getLogger("painseq"), set()
    with caplog.at_level(logging.INFO, "painseq"):
        for store in ("one", "two"):
            with _warnings_once(seen, quiet=False):
                log.warning("clinical: no class for %s", 3)
                log.info("into %s", store)
            with _warnings_once(seen, quiet=True):
                log.warning("clinical: no class for %s", 3)
                log.info("started")
    assert caplog.messages == ["clinical: no class for 3", "into one", "into two"]


def test_the_shipped_plan_can_be_read():
    shown = read_plan(Path("configs/demo/transfer.yaml"))
    assert shown.sources == shown.targets == ("heat", "electrical", "clinical") and shown.controls == ("untrained",)
    assert shown.data["electrical"].truth is not None and shown.extract.precision == "fp32"
    assert shown.data["heat"].experiment.data().root == Path("runs/transfer_demo/heat")
    assert shown.extractors["untrained"].experiment.extractor().trained_on == ()


def test_what_the_table_cannot_show_is_noted():
    assert re.search(r"\buntrained\b.*\bnothing\b.*ImageNet", note_on_controls(plan()))
    pictures = {**plan().extractors, "pictures": extractor("imagenet")}
    assert re.search(
        r"\buntrained\b.*\bnothing\b.*\bpictures\b.*\bimagenet\b", note_on_controls(plan(extractors=pictures))
    )
    networks = {"cnn": ("heat", 3), "mine": ("heat", 0), "untrained": ("nothing", 0)}
    told = {name: {"trained_on": on, "people": people} for name, (on, people) in networks.items()}
    (line,) = unknown_people({"data": {"heat": {}}, "extractors": told})
    assert "mine" in line and "cnn" not in line and "untrained" not in line
    told["cnn"]["people_known"] = False
    assert len(unknown_people({"data": {"heat": {}}, "extractors": told})) == 2


def test_test_clips_whose_videos_were_seen_under_another_name_are_told():
    (line,) = seen_videos({"same_videos": {"heat": ["a", "b"], "electrical": []}})
    assert "heat" in line and "LEAK" in line and "2" in line and seen_videos({}) == []


# ---- a small table, from videos to the page ----


QUICK = {"trainer": {"max_epochs": 2}, "early_stopping": {"patience": 1}}


def network(**init):
    init = {"model": "test_resnet", "input_size_px": 32, **init}
    return {"model": {"extractor": {"class_path": "painseq.extractors.TimmBackbone", "init_args": init}}}


def data_keys(**init):
    return {"data": {"init_args": init}}


@pytest.fixture(scope="module")
def small(heat, electrical, tiny, tmp_path_factory):
    """The arguments of a small plan."""
    folder = tmp_path_factory.mktemp("transfer")
    share = {"split": {"test_share": 0.4}}
    pain = read_experiment("configs/data/biovid.yaml", tiny, data_keys(root=str(heat), options=share))
    shocks = read_experiment(
        "configs/data/ai4pain.yaml", tiny, data_keys(root=str(electrical), options={"labels": "binary"})
    )
    trained = TimmBackbone("test_resnet", input_size_px=32, seed=1)
    trained.trained_on = tuple(sorted(pain.data().subjects_seen()))
    save_weights(trained, folder / "heat_cnn.safetensors")
    cnn = read_experiment(network(weights=str(folder / "heat_cnn.safetensors")))
    truth = electrical.parent / "electrical_truth" / "labels.csv"
    return {
        "fps": 3.0,
        "data": {"heat": TransferData(pain), "electrical": TransferData(shocks, truth)},
        "extractors": {
            "cnn": TransferExtractor(cnn, "heat"),
            "untrained": TransferExtractor(read_experiment(network()), "nothing"),
        },
        "heads": {"linear": read_experiment("configs/head/linear_probe.yaml", QUICK)},
        "sources": ("heat",),
        "targets": ("heat", "electrical"),
        "k": (1,),
        "draws": 2,
        "epochs": 1,
    }


@pytest.fixture(scope="module")
def planned(small):
    """The small plan, with changes."""
    return lambda **other: TransferPlan(**{**small, **other})


def test_a_table_of_features_normalised_by_person_says_so(small, planned, tmp_path):
    by_person = {
        name: dataclasses.replace(data, experiment=data.experiment.changed(data_keys(options={"normalise": "subject"})))
        for name, data in small["data"].items()
    }
    with pytest.raises(PainseqError, match="normalise"):
        transfer_work(planned(data={**small["data"], "heat": by_person["heat"]}), tmp_path / "mixed")
    result = transfer(planned(data=by_person, k=()), tmp_path / "table")
    assert "TRANSDUCTIVE" in result.page.read_text()
    assert json.loads((tmp_path / "table" / "transfer.json").read_text())["transductive"] is True


@pytest.fixture(scope="module")
def filled(planned, tmp_path_factory):
    """The folder of the finished table."""
    out = tmp_path_factory.mktemp("runs") / "transfer"
    work = transfer_work(planned(), out)
    assert not out.exists() and (work.stores, work.fits, work.continued_fits, work.cells) == (
        (4, 0),
        (4, 0),
        (3, 0),
        11,
    )
    steps = []
    result = transfer(planned(), out, lambda done, total, note="": steps.append((done, total)))
    assert len(result.cells) == 11 and result.page == out / "report.html"
    assert result.generated == ("heat", "electrical")
    assert steps == sorted(steps) and steps[0] == (0, 11) and steps[-1] == (11, 11)
    return out


def to_be_scored(planned, out):
    data = transfer_work(planned(), out).data
    return {name: {f"{each.name}/{s}" for s in each.split.test} for name, each in data.items()}


def cells_of(out):
    return json.loads((out / "transfer.json").read_text())["cells"]


@pytest.mark.slow
def test_nothing_of_the_test_subjects_is_in_any_fit(filled, planned):
    scored = to_be_scored(planned, filled)
    records = list((filled / "predictions").rglob("fit.json"))
    assert len(records) == 7
    for path in records:
        told = json.loads(path.read_text())
        seen = {*told["fitted_on"], *told["extractor_trained_on"]}
        for predictions in path.parent.glob("*.csv"):
            assert seen and not seen & scored[predictions.stem]
            subjects = set(read_predictions(predictions).subject_ids)
            assert {name.partition("/")[2] for name in scored[predictions.stem]} == subjects


@pytest.mark.slow
def test_the_table_tells_whose_training_subjects_are_known_and_which_videos_were_seen(filled):
    told = json.loads((filled / "transfer.json").read_text())["plan"]
    assert {name: each["people_known"] for name, each in told["extractors"].items()} == {"cnn": True, "untrained": True}
    assert told["same_videos"] == {"heat": [], "electrical": []}


def trees():
    head = {"class_path": "painseq.heads.RandomForest", "init_args": {"trees": 3}}
    return {"trees": read_experiment({"model": {"head": head}})}


def test_trees_cannot_be_fine_tuned_on_subjects_of_the_target(planned, tmp_path):
    with pytest.raises(PainseqError, match=r"trees.*RandomForest.*\[1\].*k: \[\]"):
        transfer(planned(heads=trees()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tuned_thresholds_stand_beside_one_half_in_the_table(planned, small, filled, tmp_path):
    tuned = small["heads"]["linear"].changed({"threshold": {"metric": "balanced_accuracy", "inner_folds": 2}})
    heads = {"linear": tuned}
    with pytest.raises(PainseqError, match=r"linear.*threshold.*\[1\].*k: \[\]"):
        transfer(planned(heads=heads), tmp_path / "out")
    with pytest.raises(PainseqError, match=r"linear.*heat.*cnn.*biovid/"):
        transfer(planned(heads=heads, k=()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    stores = {name: filled / "stores" / f"untrained_{name}" for name in ("heat", "electrical")}
    tool = {"tool": TransferExtractor(None, "tool", stores)}
    result = transfer(planned(heads=heads, extractors=tool, k=()), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "transfer.json").read_text())["cells"]
    for cell, plain in zip(result.cells, written, strict=True):
        assert cell.threshold is not None and plain["threshold"]["thresholds"] == list(cell.threshold.thresholds)
        assert cell.threshold.tuned.balanced_accuracy == pytest.approx(cell.value)
        assert {"sensitivity", "specificity"} <= set(plain["threshold"]["at_half"])
    assert "Tuned threshold" in result.page.read_text()
    tested = set(small["data"]["heat"].experiment.data().split.test)
    inner = list((tmp_path / "out" / "fits").rglob("threshold/*/run.json"))
    assert len(inner) == 4
    for run in inner:
        split = json.loads(run.read_text())["data"]["split"]
        assert not {*split["train"], *split["test"]} & tested


@pytest.mark.slow
def test_trees_on_landmarks_are_transferred(small, tmp_path):
    landmarks = data_keys(options={"streams": ["landmarks"]})
    data = {
        name: dataclasses.replace(part, experiment=part.experiment.changed(landmarks))
        for name, part in small["data"].items()
    }
    result = transfer(TransferPlan(**{**small, "data": data, "heads": trees(), "k": ()}), tmp_path / "out")
    assert {cell.cell.question for cell in result.cells} == {"model", "features"}
    assert all(cell.value is not None for cell in result.cells)


def test_a_head_of_the_plan_may_not_start_from_weights_of_its_own(planned, small, tmp_path):
    start = small["heads"]["linear"].changed({"model": {"start_from": ["head.pth"]}})
    with pytest.raises(PainseqError, match=r"linear.*start_from.*head\.pth"):
        transfer(planned(heads={"linear": start}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_each_question_is_fitted_on_whom_it_says(filled):
    def fitted_on(*parts):
        told = json.loads(filled.joinpath("predictions", *parts, "fit.json").read_text())
        return {kind: [p for p in told["fitted_on"] if p.startswith(kind)] for kind in ("biovid", "ai4pain")}, told

    model, _ = fitted_on("cnn", "heat", "linear", "seed0")
    assert len(model["biovid"]) == 3 and not model["ai4pain"]
    features, told = fitted_on("cnn", "electrical", "linear", "seed0")
    assert len(features["ai4pain"]) == 4 and not features["biovid"] and len(told["extractor_trained_on"]) == 3
    for draw in (0, 1):
        few, told = fitted_on("cnn", "heat_to_electrical", "linear", "seed0", f"k1_draw{draw}")
        assert len(few["ai4pain"]) == 1 and few["biovid"] == model["biovid"]
        assert told["started_from"][0].endswith("fits/cnn/heat/linear/seed0/best.ckpt")
    everybody, _ = fitted_on("cnn", "heat_to_electrical", "linear", "seed0", "k3_draw0")
    assert len(everybody["ai4pain"]) == 3
    assert not list(filled.glob("fits/cnn/heat_to_electrical/**/*.ckpt"))


@pytest.mark.slow
def test_every_cell_stands_beside_what_it_is_read_with(filled):
    cells = cells_of(filled)
    assert [(c["question"], c["source"], c["target"], c["extractor"], c["k"]) for c in cells] == [
        ("model", "heat", "heat", "cnn", None),
        ("model", "heat", "electrical", "cnn", None),
        ("model", "heat", "heat", "untrained", None),
        ("model", "heat", "electrical", "untrained", None),
        ("features", "heat", "heat", "cnn", None),
        ("features", "heat", "electrical", "cnn", None),
        ("features", "nothing", "heat", "untrained", None),
        ("features", "nothing", "electrical", "untrained", None),
        ("subjects", "heat", "electrical", "cnn", 0),
        ("subjects", "heat", "electrical", "cnn", 1),
        ("subjects", "heat", "electrical", "cnn", 3),
    ]
    for cell in cells:
        beside = cell["beside"]
        assert set(beside) == {"within", "untrained", "majority_class", "chance"}
        assert beside["chance"] == 0.5 and cell["subjects"] == 2
        value = cell["scores"]["balanced_accuracy"]
        if (cell["target"], cell["extractor"]) == ("heat", "cnn"):
            # Extractor and head of the target itself: this is what the others are compared with.
            assert cell["gap"] is None and value == beside["within"]
            own = cell["within"]
        elif (cell["question"], cell["target"], cell["extractor"]) == ("features", "electrical", "untrained"):
            assert cell["gap"] is None
        else:
            assert cell["gap"]["difference"] == pytest.approx(beside["within"] - value)
            assert cell["within"] != own
    model, start = (next(c for c in cells if (c["question"], c["target"], c["k"], c["extractor"]) == key) for key in (
        ("model", "electrical", None, "cnn"), ("subjects", "electrical", 0, "cnn")))  # fmt: skip
    assert model["scores"] == start["scores"]


@pytest.mark.slow
def test_the_files_agree(filled):
    with (filled / "transfer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (filled / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    cells = cells_of(filled)
    assert len(rows) == len(cells) == 11 and len(runs) == 12
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["balanced_accuracy"]) == cell["scores"]["balanced_accuracy"]
        assert row["gap"] == ("" if cell["gap"] is None else str(cell["gap"]["difference"]))
        assert row["seed"] == row["draw"] == "mean"
    drawn = [float(row["balanced_accuracy"]) for row in runs if row["k"] == "1"]
    mean = next(float(row["balanced_accuracy"]) for row in rows if row["k"] == "1")
    assert len(drawn) == 2 and mean == pytest.approx(sum(drawn) / 2)
    alone = score(read_predictions(filled / "predictions" / "cnn" / "heat" / "linear" / "seed0" / "heat.csv"))
    assert float(rows[0]["balanced_accuracy"]) == alone.scores.balanced_accuracy
    page = (filled / "report.html").read_text()
    for words in ("no_pain: BL1", "High_Pain", "electrical", "untrained", "generated", "image/svg"):
        assert words in page


@pytest.mark.slow
def test_run_again_it_fits_only_what_is_missing(filled, planned, monkeypatch):
    write = Predictions.write_csv

    def write_csv(self, path):
        # A fit that is killed when its predictions are whole counts as done: on whom it was fitted is told by then.
        assert (path.parent / "fit.json").is_file()
        write(self, path)

    monkeypatch.setattr(Predictions, "write_csv", write_csv)
    lost = Path("cnn", "heat_to_electrical", "linear", "seed0", "k1_draw1")
    told = (filled / "predictions" / lost / "electrical.csv").read_text()
    (filled / "predictions" / lost / "electrical.csv").unlink()
    (filled / "fits" / lost / "run.json").unlink()
    (filled / "predictions" / lost / "fit.json").unlink()
    kinds = (".csv", ".ckpt", ".safetensors")
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*") if path.suffix in kinds}
    cells = cells_of(filled)
    assert transfer_work(planned(), filled).continued_fits == (3, 2)
    transfer(planned(), filled)
    assert cells_of(filled) == cells and (filled / "predictions" / lost / "electrical.csv").read_text() == told
    changed = {path.relative_to(filled) for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path for path in changed if path.parts[0] in ("stores", "fits", "predictions")} == {
        Path("fits") / lost / "metrics.csv"
    }


@pytest.mark.slow
def test_another_plan_takes_another_folder(filled, planned, small):
    with pytest.raises(PainseqError, match=r"(?s)transfer\b.*\bepochs\b.*\b1\b.*\b2\b"):
        transfer(planned(epochs=2), filled)
    slower = {"linear": small["heads"]["linear"].changed({"model": {"optimizer": {"init_args": {"lr": 0.1}}}})}
    with pytest.raises(PainseqError, match=r"heads\.linear\.model\.optimizer\.init_args\.lr\b.*\b0\.001\b.*\b0\.1\b"):
        transfer(planned(heads=slower), filled)


@pytest.mark.slow
def test_a_store_that_the_plan_names_is_of_the_extractor_and_of_the_data_set(filled, planned, small, tmp_path):
    def with_stores(**stores):
        named = {name: filled / "stores" / folder for name, folder in stores.items()}
        cnn = dataclasses.replace(small["extractors"]["cnn"], stores=named)
        return planned(extractors={**small["extractors"], "cnn": cnn})

    transfer_work(with_stores(heat="cnn_heat", electrical="cnn_electrical"), tmp_path)
    for stores, words in (
        ({"heat": "untrained_heat"}, r"untrained_heat\b.*\bcnn\b.*\bheat\b.*extractor\.fingerprint"),
        ({"heat": "cnn_electrical"}, r"cnn_electrical\b.*\bcnn\b.*\bheat\b.*\b4\b"),
        ({"heat": "none"}, r"none\b.*\bcnn\b.*\bheat\b"),
    ):
        with pytest.raises(PainseqError, match=f"(?s){words}"):
            transfer(with_stores(**stores), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_whoever_a_second_store_was_trained_on_is_not_scored(planned, small, tmp_path):
    tested = small["data"]["electrical"].experiment.data()
    person = f"{tested.name}/{tested.split.test[0]}"
    np.savez(tmp_path / "a.npz", features=np.zeros((1, 3)), present=np.ones(1, bool), times_s=np.zeros(1))
    (tmp_path / "source.json").write_text(json.dumps({"trained_on": [person]}))
    second = {"class_path": "painseq.data.streams.StoreStream", "init_args": {"folder": str(tmp_path)}}
    options = data_keys(options={"streams": ["cnn", second]})
    data = {
        name: dataclasses.replace(each, experiment=each.experiment.changed(options))
        for name, each in small["data"].items()
    }
    with pytest.raises(LeakError, match=rf"\bstream\b.*{person}"):
        transfer(planned(data=data), tmp_path / "out")


@pytest.mark.slow
def test_mistakes_are_found_before_anything_is_extracted(planned, small, tmp_path):
    rows = small["data"]["electrical"].truth.read_text().splitlines()
    first = next(row for row in rows if row.startswith("Test/"))
    (tmp_path / "few.csv").write_text(f"{rows[0]}\n{first}\n")
    clip, who, _, part = first.split(",")
    odd = [f"{clip},{who},agony,{part}" if row == first else row for row in rows]
    (tmp_path / "odd.csv").write_text("\n".join(odd) + "\n")

    def changed(name, **other):
        return planned(data={**small["data"], name: dataclasses.replace(small["data"][name], **other)})

    def with_options(name, **options):
        experiment = small["data"][name].experiment.changed(data_keys(options=options))
        return changed(name, experiment=experiment)

    for plan, words in (
        (with_options("electrical", labels="three"), r"heat\b.*\bbinary\b.*\belectrical\b.*\bthree\b"),
        (changed("electrical", truth=None), r"\b6\b.*\belectrical\b.*\btruth: "),
        (changed("electrical", truth=tmp_path / "few.csv"), r"electrical\b.*\b5\b.*\b6\b"),
        (changed("electrical", truth=tmp_path / "odd.csv"), r"electrical\b.*Test/.*'agony'.*no_pain, high_pain"),
        (with_options("heat", store="there"), r"biovid\b.*\bstore\b"),
        (with_options("heat", split={"validation_share": 0}), r"heat\b.*\bsubject_holdout\b.*\b3\b.*\b0\b"),
        (changed("heat", experiment=read_experiment()), "heat.*configs/data"),
        (planned(heads={"linear": read_experiment(QUICK)}), r"head\b.*\blinear\b.*configs/head"),
    ):  # fmt: skip
        with pytest.raises(PainseqError, match=f"(?s){words}"):
            transfer(plan, tmp_path / "out")
    # Another seed of the split: the extractor has seen some of those who would be tested now.
    with pytest.raises(LeakError, match=r"\bcnn\b.*\bheat\b"):
        transfer(with_options("heat", split={"seed": 3}), tmp_path / "out")

    def with_control(experiment):
        return planned(extractors={**small["extractors"], "untrained": TransferExtractor(experiment, "nothing")})

    with pytest.raises(PainseqError, match=r"\buntrained\b.*\bnothing\b.*\b3\b"):
        transfer(with_control(small["extractors"]["cnn"].experiment), tmp_path / "out")
    with pytest.raises(PainseqError, match=r"\buntrained\b.*configs/extractor"):
        transfer(with_control(read_experiment()), tmp_path / "out")
    save_weights(TimmBackbone("test_resnet", input_size_px=32), tmp_path / "faces.safetensors")
    weights = read_experiment(network(weights=str(tmp_path / "faces.safetensors")))
    with pytest.raises(PainseqError, match=r"\buntrained\b.*\bnothing\b.*faces\.safetensors"):
        transfer(with_control(weights), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(PainseqError, match=r"\bout\b"):
        transfer(planned(), tmp_path / "out")
