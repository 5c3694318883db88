"""`painseq reproduce`: recipes run whole on small generated data, go on where they were, and say what they are."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from painseq.cli.recipe import parse_comment, read_recipe, shipped_recipes
from painseq.cli.reproduce import beside, main
from painseq.errors import PainseqError
from painseq.evaluation import read_predictions
from painseq.evaluation.published import AI4PAIN, BIOVID

SMALL_CROPS = """
model:
  extractor: {class_path: painseq.extractors.TimmBackbone,
    init_args: {model: test_resnet, weights: null, input_size_px: 32, trainable: [layer4]}}
data:
  init_args:
    options:
      batch_size: 16
      face:
        class_path: painseq.faces.FaceCrops
        init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}
trainer: {max_epochs: 1, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}
"""


def words(text):
    return " ".join(text.replace("│", " ").split())


def files(*folders):
    """Every file with the moment of its last change."""
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(electrical, tiny, tmp_path_factory):
    """A reproduction that ran from videos to a table, and its command line but for the folder."""
    out = tmp_path_factory.mktemp("finished") / "out"
    call = ["prajod2024_lstm", "--root", str(electrical)]
    options = ["--", "--config", tiny, "--trainer.max_epochs", "1"]
    main([*call, "--out", str(out), *options])
    return out, ["reproduce", *call], options


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, to be changed."""
    out, call, options = finished
    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out", [*call, "--out", tmp_path / "out"], options


def test_what_is_finished_is_not_done_again_and_the_table_is_printed(finished, painseq):
    out, call, options = finished
    before = files(out / "fit", out / "validation", out / "store")
    result = painseq(*call, "--out", out, *options)
    assert result.code == 0 and "painseq fit" not in result.out
    shards = {path for path in before if path.suffix == ".safetensors" or "store" not in path.parts}
    after = files(out / "fit", out / "validation", out / "store")
    assert {path: before[path] for path in shards} == {path: after[path] for path in shards}

    text = words(result.out)
    assert text.count("Macro F1") == 1
    assert "prajod2024_lstm" in text and "validation" in text and "generated" in text.lower()
    published = json.loads((out / "reproduction.json").read_text())["published"]["validation"]
    assert published and "0.48" in text and "ANN + vote" in text
    notes = [note["heading"] for note in json.loads((out / "reproduction.json").read_text())["notes"]]
    assert notes and all(" ".join(note.split()) in text for note in notes) and "--config" in text


def test_the_official_validation_part_is_scored_by_a_model_that_has_not_seen_it(finished):
    out, _, _ = finished
    content = json.loads((out / "reproduction.json").read_text())
    assert content["generated"] is True and list(content["parts"]) == ["validation"]
    assert {row["part"] for row in content["published"]["validation"]} == {"validation"}
    predictions = read_predictions(out / "predictions_validation.csv")
    assert set(predictions.subject_ids) == {"S05"} and len(predictions) == 3
    split = json.loads((out / "fit" / "run.json").read_text())["data"]["split"]
    assert "S05" not in {*split["train"], *split["validation"]} and len(split["validation"]) == 1


def test_other_options_in_the_same_folder_are_refused(finished, painseq):
    out, call, options = finished
    result = painseq(*call, "--out", out, *options, "--seed_everything", "1")
    assert result.code == 1 and result.err.names(out, "options")


def test_a_wrong_root_or_missing_weights_claim_no_folder(painseq, electrical, tmp_path):
    out = tmp_path / "out"
    no_weights = painseq("reproduce", "prajod2024_lstm", "--root", electrical, "--out", out)
    assert no_weights.code == 1 and no_weights.err.names("weights/heat_vgg16.h5") and not out.exists()
    options = ["--", "--model.extractor.init_args.weights", "null"]
    no_data = painseq("reproduce", "prajod2024_lstm", "--root", tmp_path / "none", "--out", out, *options)
    assert no_data.code == 1 and no_data.err.names("AI4Pain", tmp_path / "none") and not out.exists()


def test_what_was_interrupted_goes_on(copied, painseq):
    out, call, options = copied
    (out / "fit" / "run.json").unlink()
    (out / "validation" / "metrics.json").unlink()
    result = painseq(*call, *options)
    assert result.code == 0 and "--resume=true" in result.out and (out / "fit" / "run.json").is_file()
    assert (out / "validation" / "metrics.json").is_file()


def test_a_fit_without_a_checkpoint_is_begun_anew(copied, painseq):
    out, call, options = copied
    for name in ("run.json", "last.ckpt", "best.ckpt"):
        (out / "fit" / name).unlink()
    result = painseq(*call, *options)
    assert result.code == 0 and "painseq fit" in result.out and "--resume" not in result.out


def test_the_hidden_test_part_is_scored_with_its_truth(copied, painseq, electrical, tmp_path):
    out, call, options = copied
    with (electrical.parent / "electrical_truth" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    truth = tmp_path / "truth.csv"
    truth.write_text("clip_id,label\n" + "".join(f"{row['clip_id']},{row['label']}\n" for row in rows))
    # The test part was predicted before, while its labels were hidden.
    (out / "test").mkdir()
    (out / "test" / "metrics.json").write_text('{"models": {}}')
    result = painseq(*call, "--truth", truth, *options)
    assert result.code == 0 and result.out.names("test", "validation")
    assert set(json.loads((out / "reproduction.json").read_text())["parts"]) == {"validation", "test"}
    assert read_predictions(out / "predictions_test.csv").scored.all()


def test_the_network_that_is_trained_gets_crops(painseq, heat, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL_CROPS)
    out = tmp_path / "out"
    call = ["reproduce", "prajod2022_heat_cnn", "--root", heat, "--out", out, "--", "--config", tmp_path / "small.yaml"]
    result = painseq(*call)
    assert result.code == 0, result.err
    # `evaluate` has shown the scores; a run that finds them there shows them itself.
    assert result.out.count("Macro F1") == 1
    assert json.loads((out / "store" / "store.json").read_text())["dtype"] == "uint8"
    assert (out / "fit" / "extractor.safetensors").is_file()
    assert "0.991" in result.out
    assert len(set(read_predictions(out / "predictions_test.csv").subject_ids)) == 1


def test_the_network_of_single_frames_runs_from_videos_to_the_vote_over_a_clip(painseq, electrical, tiny, tmp_path):
    options = ["--", "--config", tiny, "--trainer.max_epochs", "1"]
    result = painseq("reproduce", "prajod2024_ann", "--root", electrical, "--out", tmp_path / "out", *options)
    assert result.code == 0 and "ANN + vote" in words(result.out) and result.out.count("Macro F1") == 1
    predictions = read_predictions(tmp_path / "out" / "predictions_validation.csv")
    assert predictions.votes is not None and predictions.votes.shape == (3, 3)
    np.testing.assert_allclose(predictions.votes.sum(axis=1), 1)


@pytest.fixture
def calls(monkeypatch):
    """Commands that only note what they are told, and write what the next one needs."""
    commands = []

    def folder(argv):
        path = Path(next(arg for arg in argv if arg.startswith("--out=")).removeprefix("--out="))
        path.mkdir(parents=True)
        return path

    def extract(argv):
        commands.append(("extract", argv))

    def fit(argv):
        commands.append(("fit", argv))
        (folder(argv) / "run.json").touch()

    def evaluate(argv):
        commands.append(("evaluate", argv))
        fold = next(arg for arg in argv if "split.fold=" in arg)[-1]
        path = folder(argv)
        rows = [f"c{fold}{k},s{fold},{name},{name},{','.join('1' if j == k else '0' for j in range(5))}" for k, name in
                enumerate("abcde")]  # fmt: skip
        (path / "predictions.csv").write_text(
            "clip_id,subject_id,truth,label,prob_a,prob_b,prob_c,prob_d,prob_e\n" + "\n".join(rows) + "\n"
        )
        (path / "metrics.json").write_text('{"models": {"LSTM": {}}}')

    monkeypatch.setattr("painseq.cli.extract.extract", extract)
    monkeypatch.setattr("painseq.cli.fit.fit", fit)
    monkeypatch.setattr("painseq.cli.evaluate.main", evaluate)
    return commands


def test_folds_and_phases_run_in_order_and_are_scored_together(painseq, calls, heat, tiny, tmp_path):
    out = tmp_path / "out"
    options = ["--config", tiny, "--data.options.split.folds", "2"]
    result = painseq("reproduce", "elghaish2025", "--root", heat, "--out", out, "--", *options)
    assert result.code == 0, result.err
    assert [command for command, _ in calls] == ["extract"] + 2 * ["fit", "fit", "fit", "evaluate"]
    for fold, (cnn, landmarks, fused, scored) in enumerate((calls[1:5], calls[5:9])):
        streams = [next((a for a in argv if "streams=" in a), None) for _, argv in (cnn, landmarks, fused)]
        assert streams == ["--data.options.streams=[cnn]", "--data.options.streams=[landmarks]", None]
        sources = f"{out / f'fold{fold}' / 'cnn' / 'best.ckpt'},{out / f'fold{fold}' / 'landmarks' / 'best.ckpt'}"
        assert f"--model.start_from=[{sources}]" in fused[1]
        assert f"--checkpoint={out / f'fold{fold}' / 'fit' / 'best.ckpt'}" in scored[1]
        for _, argv in (cnn, landmarks, fused, scored):
            assert f"--data.options.split.fold={fold}" in argv and f"--data.root={heat}" in argv
            assert argv[argv.index("--config") + 1] == tiny
    predictions = read_predictions(out / "predictions_test.csv")
    assert len(predictions) == 10 and set(predictions.subject_ids) == {"s0", "s1"}
    reproduction = json.loads((out / "reproduction.json").read_text())
    assert all(" ".join(note["heading"].split()) in words(result.out) for note in reproduction["notes"])
    assert reproduction["published"]["test"] and "100,000" in words(result.out)

    calls.clear()
    result = painseq("reproduce", "elghaish2025", "--root", heat, "--out", out, "--", *options)
    assert result.code == 0 and [command for command, _ in calls] == ["extract"]


def test_hidden_labels_are_told(painseq, calls, electrical, tiny, tmp_path, monkeypatch):
    def evaluate(argv):
        (tmp_path / "out" / "test").mkdir(parents=True)
        (tmp_path / "out" / "test" / "predictions.csv").write_text(
            "clip_id,subject_id,label,prob_a,prob_b\nx,s,a,1,0\n"
        )

    monkeypatch.setattr("painseq.cli.evaluate.main", evaluate)
    options = ["--config", tiny, "--data.options.split.protocol", "official"]
    result = painseq("reproduce", "prajod2024_ann", "--root", electrical, "--out", tmp_path / "out", "--", *options)
    assert result.code == 1 and result.err.names("test", "--truth")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_says_what_was_chosen_and_how_it_is_run(name):
    recipe = read_recipe(name)
    assert recipe.title and not recipe.title.startswith("#")
    headings = " / ".join(note.heading for note in recipe.notes)
    assert "chosen" in headings.lower()
    assert sum(len(note.points) for note in recipe.notes) >= 3
    assert f"painseq reproduce {name} --root" in recipe.path.read_text()
    assert not any("painseq extract" in note.heading for note in recipe.notes)


def test_a_comment_is_parsed_into_paragraphs_and_points():
    comment = "# A title,\n# in two lines.\n#\n#   painseq ...\n#\n"
    comment += "# Chosen:\n#   - one,\n#     whole\n#   - two\n#\n# Not had.\n"
    title, (chosen, missing) = parse_comment(comment + "data: 1\n# - no note\n")
    assert title == "A title, in two lines."
    assert (chosen.heading, chosen.points) == ("Chosen:", ("one, whole", "two"))
    assert (missing.heading, missing.points) == ("Not had.", ())
    assert parse_comment("data: 1\n") == ("", ())


def test_published_rows_of_the_same_data_and_part_stand_beside():
    assert {row.dataset for row in beside(AI4PAIN, "test")} == {AI4PAIN}
    assert {row.part for row in beside(AI4PAIN, "test")} == {"test"}
    assert {row.dataset for row in beside(BIOVID, "test")} == {BIOVID}
    assert beside("", "test") == []


def test_a_recipe_that_is_not_there():
    with pytest.raises(PainseqError, match=r"nobody2020.*elghaish2025.*prajod2022_heat_cnn"):
        read_recipe("nobody2020")
