"""`painseq reproduce`: recipes run whole on small generated data, go on where they were, and say what they are."""

import csv
import json
import shutil

import numpy as np
import pytest

from painseq.cli.reproduce import main
from painseq.evaluation import read_predictions
from painseq.studies.experiment import read_experiment

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
    assert read_experiment(out / "fit" / "config.yaml").fit_options().max_epochs == 1
    result = painseq(*call, "--out", out, *options)
    assert result.code == 0 and result.log.names(out / "fit", out / "validation") and "Fitting" not in result.log
    shards = {path for path in before if path.suffix == ".safetensors" or "store" not in path.parts}
    after = files(out / "fit", out / "validation", out / "store")
    assert {path: before[path] for path in shards} == {path: after[path] for path in shards}

    text = words(result.out)
    assert text.count("Macro F1") == 1
    assert "prajod2024_lstm" in text and "validation" in text and "generated" in text.lower()
    published = json.loads((out / "reproduction.json").read_text())["published"]["validation"]
    assert published and "0.48" in text and "ANN + vote" in text
    notes = [note["heading"] for note in json.loads((out / "reproduction.json").read_text())["notes"]]
    assert notes and all(" ".join(note.split()) in text for note in notes) and "trainer.max_epochs: 1, not 100" in text


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
    assert result.code == 0 and "Resuming" in result.log and (out / "fit" / "run.json").is_file()
    assert (out / "validation" / "metrics.json").is_file()


def test_a_fit_without_a_checkpoint_is_begun_anew(copied, painseq):
    out, call, options = copied
    for name in ("run.json", "last.ckpt", "best.ckpt"):
        (out / "fit" / name).unlink()
    result = painseq(*call, *options)
    assert result.code == 0 and "Fitting" in result.log and "Resuming" not in result.log


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
