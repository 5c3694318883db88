"""Recipes from Python: folds and phases in their order, and what recipes say of themselves."""

import json
import re

import pytest
import yaml

import painseq.studies.reproduce as module
from painseq.errors import PainseqError
from painseq.evaluation import read_predictions
from painseq.evaluation.published import AI4PAIN, BIOVID
from painseq.model.checkpoint import read_checkpoint
from painseq.studies.recipe import parse_comment, read_recipe, shipped_recipes
from painseq.studies.reproduce import published_beside, reproduce

HEAD = "clip_id,subject_id,truth,label,prob_a,prob_b,prob_c,prob_d,prob_e\n"


@pytest.fixture
def calls(monkeypatch):
    """Steps that only note what they are given, and write what the next one needs."""
    steps = []

    def extract(data, extractor, store, options, on_progress):
        steps.append(("extract", data, store))

    def fit(experiment, run):
        steps.append(("fit", experiment.config, run))

    def evaluate(model, data, folder, options, experiment, on_progress):
        fold = experiment.config["data"]["init_args"]["options"]["split"]["fold"]
        steps.append(("evaluate", experiment.config, folder, options.checkpoints))
        folder.mkdir(parents=True)
        rows = [f"c{fold}{k},s{fold},{name},{name},{','.join('1' if j == k else '0' for j in range(5))}" for k, name in
                enumerate("abcde")]  # fmt: skip
        (folder / "predictions.csv").write_text(HEAD + "\n".join(rows) + "\n")
        (folder / "metrics.json").write_text('{"models": {"LSTM": {}}}')

    monkeypatch.setattr(module, "extract_data_set", extract)
    monkeypatch.setattr(module, "fit_unless_done", fit)
    monkeypatch.setattr(module, "load", lambda path, device: None)
    monkeypatch.setattr(module, "evaluate", evaluate)
    return steps


def options_of(config):
    return config["data"]["init_args"]["options"]


def test_folds_and_phases_run_in_order_and_are_scored_together(calls, heat, tiny, tmp_path):
    out = tmp_path / "out"
    changes = [tiny, {"data": {"init_args": {"options": {"split": {"folds": 2}}}}}]
    result = reproduce("elghaish2025", heat, out, changes)
    assert [step[0] for step in calls] == ["extract"] + 2 * ["fit", "fit", "fit", "evaluate"]
    for fold, (cnn, landmarks, fused, scored) in enumerate((calls[1:5], calls[5:9])):
        folder = out / f"fold{fold}"
        assert [step[2] for step in (cnn, landmarks, fused, scored)] == [
            folder / "cnn", folder / "landmarks", folder / "fit", folder / "test",
        ]  # fmt: skip
        streams = [options_of(step[1])["streams"] for step in (cnn, landmarks, fused)]
        assert streams == [["cnn"], ["landmarks"], ["cnn", "landmarks"]]
        assert [step[1]["model"]["head"]["init_args"]["only"] for step in (cnn, landmarks)] == ["cnn", "landmarks"]
        sources = [str(folder / name / "best.ckpt") for name in ("cnn", "landmarks")]
        assert list(fused[1]["model"]["start_from"]) == sources and scored[3] == (folder / "fit" / "best.ckpt",)
        for step in (cnn, landmarks, fused, scored):
            assert options_of(step[1])["split"]["fold"] == fold and options_of(step[1])["store"] == str(out / "store")
            assert step[1]["data"]["init_args"]["root"] == str(heat) and step[1]["trainer"]["max_epochs"] == 2
    predictions = read_predictions(out / "predictions_test.csv")
    assert len(predictions) == 10 and set(predictions.subject_ids) == {"s0", "s1"}
    reproduction = json.loads((out / "reproduction.json").read_text())
    assert reproduction["published"]["test"] and result.published["test"] and result.generated
    assert any(line.startswith("trainer.max_epochs: 2, not 100") for line in result.changes)

    calls.clear()
    reproduce("elghaish2025", heat, out, changes)
    assert [step[0] for step in calls] == ["extract"] + 2 * ["fit", "fit", "fit"]
    with pytest.raises(PainseqError, match="options"):
        reproduce("elghaish2025", heat, out, changes[:1])


def test_hidden_labels_are_reported(calls, electrical, tiny, tmp_path, monkeypatch):
    def evaluate(model, data, folder, options, experiment, on_progress):
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text("clip_id,subject_id,label,prob_a,prob_b\nx,s,a,1,0\n")

    monkeypatch.setattr(module, "evaluate", evaluate)
    changes = [tiny, {"data": {"init_args": {"options": {"split": {"protocol": "official"}}}}}]
    with pytest.raises(PainseqError, match=r"test.*truth"):
        reproduce("prajod2024_ann", electrical, tmp_path / "out", changes)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_says_what_was_chosen_and_how_it_is_run(name):
    recipe = read_recipe(name)
    assert recipe.title and not recipe.title.startswith("#")
    headings = " / ".join(note.heading for note in recipe.notes)
    assert "chosen" in headings.lower()
    assert sum(len(note.points) for note in recipe.notes) >= 3
    assert f"painseq reproduce {name} --root" in recipe.path.read_text()
    assert not any("painseq extract" in note.heading for note in recipe.notes)


@pytest.mark.parametrize("name", ["prajod2024_ann", "prajod2024_lstm", "elghaish2025"])
def test_recipes_locate_the_face_in_each_frame_and_start_as_keras_does(name):
    recipe = read_recipe(name)
    config = yaml.safe_load(recipe.path.read_text())
    face = options_of(config)["face"]["init_args"]
    assert face["every_s"] == face["max_gap_s"] == 0 and config["model"]["head"]["init_args"]["init"] == "keras"
    points = " ".join(point for note in recipe.notes for point in note.points)
    for declared in ("Initial weights", "no face is found|none is found", "weights of the epoch", "[Ww]eight decay"):
        assert re.search(declared, points), declared


def test_a_comment_is_parsed_into_paragraphs_and_points():
    comment = "# A title,\n# in two lines.\n#\n#   painseq ...\n#\n"
    comment += "# Chosen:\n#   - one,\n#     whole\n#   - two\n#\n# Not had.\n"
    title, (chosen, missing) = parse_comment(comment + "data: 1\n# - no note\n")
    assert title == "A title, in two lines."
    assert (chosen.heading, chosen.points) == ("Chosen:", ("one, whole", "two"))
    assert (missing.heading, missing.points) == ("Not had.", ())
    assert parse_comment("data: 1\n") == ("", ())


def test_published_rows_of_the_same_data_and_part_stand_published_beside():
    assert {row.dataset for row in published_beside(AI4PAIN, "test")} == {AI4PAIN}
    assert {row.part for row in published_beside(AI4PAIN, "test")} == {"test"}
    assert {row.dataset for row in published_beside(BIOVID, "test")} == {BIOVID}
    assert published_beside("", "test") == []


def test_a_recipe_that_is_not_there():
    with pytest.raises(PainseqError, match=r"nobody2020.*elghaish2025.*prajod2022_heat_cnn"):
        read_recipe("nobody2020")


def test_the_boosted_recipe_runs_whole(heat, tiny, tmp_path):
    small = {"landmarks": 68, "units": 4, "heads": 2, "head_width": 4, "dense_cnn": 8, "dense": 8}
    deep = {"class_path": "painseq.heads.TwoStream", "init_args": small}
    changes = [
        tiny,
        {"model": {"head": {"init_args": {"inner_folds": 2, "trees": 3, "deep": deep}}}},
        {"data": {"init_args": {"options": {"split": {"folds": 4}}}}, "trainer": {"max_epochs": 1}},
    ]
    result = reproduce("elghaish2025_adaboost", heat, tmp_path / "out", changes)
    assert result.evaluations["test"].counts.scored == 25
    for fold in range(4):
        folder = tmp_path / "out" / f"fold{fold}" / "fit"
        head = read_checkpoint(folder / "best.ckpt").record.head
        assert head["init_args"]["deep"]["init_args"]["landmarks"] == 68
        split = json.loads((folder / "run.json").read_text())["data"]["split"]
        told = json.loads((folder / "penultimate" / "folds.json").read_text())
        assert sorted(name for note in told["folds"] for name in note["held_out"]) == sorted(split["train"])
