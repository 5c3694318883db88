"""The demo, small: every step, what it leaves behind, and going on where it was."""

import csv
import json
import logging
import shutil
from contextlib import suppress
from threading import Event

import pytest
import yaml

import painseq.studies.demo as module
from painseq.errors import PainseqError
from painseq.studies.demo import MODELS, Demo, Size, demo

pytestmark = pytest.mark.slow

TINY = Size(
    heat_subjects=5, heat_trials=1, train=5, validation=1, test=3, trials=1, baseline_s=10.0, fps=4.0, size_px=64
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished demo, whose heads learned for few epochs."""
    out = tmp_path_factory.mktemp("demo") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HEAD_EPOCHS", 2)
        demo(out, seed=5, workers=1, size=TINY)
        yield out


def test_it_leaves_the_files_that_other_tools_read(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert list(metrics["models"]) == list(MODELS)
    for model in metrics["models"].values():
        assert 0 <= model["scores"]["balanced_accuracy"] <= 1
        assert model["intervals"]["balanced_accuracy"]["subjects"] == 3
        assert {"majority class", "chance"} <= set(model["baselines"])
    run = json.loads((finished / "run.json").read_text())
    assert run["seed"] == 5 and run["versions"]["painseq"]
    assert set(run["split"]) == {"heat_cnn", "lstm"}
    assert yaml.safe_load((finished / "config.yaml").read_text())["size"]["test"] == 3
    page = (finished / "report.html").read_text()
    assert "generated" in page and len(page) < 5_000_000
    assert {"scores", "baselines", "published"} <= set(json.loads((finished / "figures" / "figures.json").read_text()))
    assert len(list(finished.glob("gradcam_*.png"))) == 2


def test_predictions_and_submission_hold_every_test_item_once_and_no_other(finished):
    items = {
        path.relative_to(finished / "electrical").with_suffix("").as_posix() for path in finished.rglob("Test/*/*.mp4")
    }
    for name, column in (("predictions.csv", "clip_id"), ("submission.csv", "item")):
        with (finished / name).open() as file:
            rows = [row[column] for row in csv.DictReader(file)]
        assert sorted(rows) == sorted(items)


def test_nobody_is_on_two_sides_and_the_truth_lies_outside_the_data_set(finished):
    splits = json.loads((finished / "run.json").read_text())["split"]
    for split in splits.values():
        parts = [set(split[part]) for part in ("train", "validation", "test")]
        assert len(set.union(*parts)) == sum(map(len, parts))
    assert not list((finished / "electrical").rglob("labels.csv"))


def test_run_again_it_trains_nothing_that_is_there_and_redoes_what_is_missing(finished, caplog):
    trained = (finished / "lstm" / "best.ckpt").stat().st_mtime_ns
    before = json.loads((finished / "metrics.json").read_text())["models"]
    (finished / "report.html").unlink()
    shutil.rmtree(finished / "ann")
    demo(finished, seed=5, workers=1, size=TINY)
    assert (finished / "report.html").is_file()
    assert (finished / "lstm" / "best.ckpt").stat().st_mtime_ns == trained
    again = json.loads((finished / "metrics.json").read_text())["models"]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any("test_resnet" in message for message in told), "the network was trained on what it is fed with"
    assert again == before, "the same seed gives the same result, also for the head that was fitted again"


def test_another_seed_does_not_go_on_in_the_same_folder(finished):
    with pytest.raises(PainseqError, match="seed: 5, not 6"):
        demo(finished, seed=6, workers=1, size=TINY)


def test_work_beside_a_step_ends_with_it_and_its_error_is_the_steps(tmp_path):
    job = Demo(tmp_path, seed=5, workers=1, size=TINY)
    ended = Event()

    def endless(on_progress):
        with suppress(PainseqError):
            while True:
                on_progress(0, 1)
        ended.set()

    with pytest.raises(KeyboardInterrupt), job._meanwhile(endless, "frames"):
        raise KeyboardInterrupt
    assert ended.is_set()

    def failing(on_progress):
        raise PainseqError("the disk is full")

    with pytest.raises(PainseqError, match="the disk is full"), job._meanwhile(failing, "frames"):
        pass
