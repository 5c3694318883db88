"""`painseq audit`: the inflation of a model as a page, and leaks planted in files."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from painseq.evaluation import read_predictions


def test_without_a_sub_command_it_tells_what_there_is(painseq):
    assert "model | check" in painseq("audit").out
    said = painseq("audit", "nothing")
    assert said.code == 1 and "`model` or `check`" in said.err


# ---- model ----

SHORT = ["--folds", "2", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]


@pytest.fixture
def model(on_electrical, store):
    return ["audit", "model", *on_electrical, "--data.options.store", store, *SHORT]


@pytest.fixture
def frames(model):
    return [*model, "--config", "configs/head/frame_ann.yaml", "--frames-per-clip", "2"]


def test_the_inflation_of_a_frame_head_is_written_and_marked(painseq, frames, tmp_path):
    out = tmp_path / "audit"
    said = painseq(*frames, "--out", out)
    assert said.code == 0, said.err
    assert "LEAKY" in said.out and "subject folds" in said.out
    content = json.loads((out / "audit.json").read_text())
    assert set(content["protocols"]) == {"frame_kfold_LEAKY", "clip_kfold_LEAKY", "subject_kfold"}
    assert content["overlap"]["subject_kfold"] == {"of_items_tested_clip_trained_on": 0, "person_trained_on": 0}
    assert content["overlap"]["clip_kfold_LEAKY"]["person_trained_on"] > 0
    with (out / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2
    for row in rows:
        assert ("LEAKY" in row["protocol"]) == (row["inflation"] != "")
    assert "LEAKY" in (out / "figures" / "figures.json").read_text()
    page = (out / "report.html").read_text()
    assert "LEAKY frame folds" in page and "person trained on" in page
    items = {}
    for name in content["protocols"]:
        path = out / f"predictions_{name}.csv"
        items[name] = read_predictions(path).clip_ids
        lines = path.read_text().splitlines()
        assert all(("LEAKY" in line) == ("LEAKY" in name) for line in lines[1:])
    assert len({frozenset(ids) for ids in items.values()}) == 1

    again = painseq(*frames, "--out", out)
    assert again.code == 1 and "holds a finished audit" in again.err
    leaky = painseq("audit", "check", out / "predictions_frame_kfold_LEAKY.csv")
    assert leaky.code == 1 and "marked LEAKY" in leaky.out


def test_a_video_head_is_audited_by_clips_and_goes_on_where_it_was(painseq, model, tmp_path):
    out, lstm = tmp_path / "audit", [*model, "--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "1"]
    assert painseq(*lstm, "--out", out).code == 0
    first = json.loads((out / "audit.json").read_text())
    assert set(first["protocols"]) == {"clip_kfold_LEAKY", "subject_kfold"}
    (out / "audit.json").unlink()
    shutil.rmtree(out / "subject_kfold" / "fold_1")
    kept = out / "subject_kfold" / "fold_0" / "best.ckpt"
    stamp = kept.stat().st_mtime_ns
    other = painseq(*lstm, "--folds", "3", "--out", out)
    assert other.code == 1 and "another configuration" in other.err
    assert painseq(*lstm, "--out", out).code == 0
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads((out / "audit.json").read_text())["protocols"] == first["protocols"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "1"], "--folds is 1"),
        (["--folds", "99"], "Lower --folds"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--frames-per-clip", "0"], "--frames-per-clip is 0"),
        (["--config", "configs/head/lstm.yaml", "--frames-per-clip", "2"], "takes whole clips"),
        (["--data.options.view", "pixels"], "holds features"),
    ],
)
def test_what_cannot_be_audited_is_refused_and_leaves_nothing(painseq, frames, tmp_path, options, message):
    said = painseq(*frames, *options, "--out", tmp_path / "audit")
    assert said.code == 1 and message in said.err
    assert not (tmp_path / "audit").exists()


# ---- check ----


@pytest.fixture
def split(tmp_path):
    def write(**parts):
        path = tmp_path / "split.json"
        path.write_text(json.dumps({"format": 1, "protocol": "loso", **parts}))
        return path

    return write


@pytest.fixture
def table(tmp_path):
    def write(text, name="clips.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_clean_split_is_clean(painseq, split):
    said = painseq("audit", "check", split(train=["S01"], validation=["S02"], test=["S03"]))
    assert said.code == 0 and "No leak found." in said.out and "LEAK:" not in said.out


def test_a_subject_on_both_sides_of_a_split_file(painseq, split, tmp_path):
    said = painseq("audit", "check", split(train=["S01", "S02"], test=["s01 "]), "--json", tmp_path / "found.json")
    assert said.code == 1 and "LEAK: subjects in several parts (1):" in said.out and "S01" in said.out
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["leaks"] == 1
    ((finding,),) = content["checked"].values()
    assert finding["severity"] == "leak"


def test_folds_are_each_a_division_of_their_own(painseq, split, table):
    """As `painseq crossval` writes them: who is tested in one fold is trained on in another."""
    first = {"repeat": 0, "fold": 0, "protocol": "loso", "train": ["S01"], "validation": [], "test": ["S02"]}
    second = {**first, "fold": 1, "train": ["S02"], "test": ["S01"]}
    folds = split(folds=[first, second])
    assert painseq("audit", "check", folds).code == 0
    predictions = table("clip_id,subject_id,label\nc1,S01,a\n", "predictions.csv")
    said = painseq("audit", "check", predictions, "--split", folds)
    assert said.code == 1 and "holds several folds" in said.err
    said = painseq("audit", "check", split(folds=[first, {**second, "validation": ["S01"]}]))
    assert said.code == 1 and "S01 (test, validation; fold 1)" in said.out
    said = painseq("audit", "check", split(folds=[first, {"train": ["S01"]}]))
    assert said.code == 1 and "is no split" in said.err


def test_a_suspicious_name_is_told_and_is_no_leak(painseq, split):
    said = painseq("audit", "check", split(train=["S1"], test=["S01"]))
    assert said.code == 0 and "SUSPICIOUS" in said.out and "No leak found." in said.out


def test_a_split_that_painseq_wrote(painseq, on_electrical, tmp_path):
    assert painseq("split", *on_electrical, "--out", tmp_path / "made.json").code == 0
    assert painseq("audit", "check", tmp_path / "made.json").code == 0


def test_anybodys_table_of_clips(painseq, table):
    path = table("participant,cv\nA,0\nB,1\nA,1\n")
    said = painseq("audit", "check", path, "--part-column", "cv")
    assert said.code == 1 and "A (0, 1)" in said.out
    unknown = painseq("audit", "check", path)
    assert unknown.code == 1 and "--part-column" in unknown.err


def test_two_tables_are_two_parts(painseq, table):
    train, test = table("subject\nA\nB\n", "train.csv"), table("subject\nC\nB\n", "test.csv")
    said = painseq("audit", "check", train, test)
    assert said.code == 1 and "B (test, train)" in said.out


def test_a_copied_video_is_found_by_its_content(painseq, table, electrical, tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    source = electrical / "Test" / "S06"
    for name in ("S06_1", "S06_2"):
        shutil.copy(source / f"{name}.mp4", root / f"{name}.mp4")
    clean = table("subject,part,video\nA,train,S06_1.mp4\nB,test,S06_2.mp4\n")
    assert painseq("audit", "check", clean, "--root", root).code == 0
    shutil.copy(root / "S06_1.mp4", root / "other.mp4")
    copied = table("subject,part,video\nA,train,S06_1.mp4\nB,test,other.mp4\n")
    assert painseq("audit", "check", copied).code == 0
    said = painseq("audit", "check", copied, "--root", root)
    assert said.code == 1 and "S06_1.mp4 = other.mp4 (test, train)" in said.out


def test_predictions_against_checkpoint_and_split(painseq, table, split, lstm):
    unseen, seen = (table(f"clip_id,subject_id,label\nc,{who},No\n", f"{who}.csv") for who in ("S06", "S01"))
    assert painseq("audit", "check", unseen, "--checkpoint", lstm).code == 0
    said = painseq("audit", "check", seen, "--checkpoint", lstm)
    assert said.code == 1 and "was fitted on" in said.out and "S01" in said.out
    assert painseq("audit", "check", seen, "--checkpoint", lstm, "--dataset", "biovid").code == 0
    divided = split(train=["S01"], test=["S06"])
    assert painseq("audit", "check", unseen, "--split", divided).code == 0
    assert painseq("audit", "check", seen, "--split", divided).code == 1
    alone = painseq("audit", "check", seen)
    assert alone.code == 1 and "--checkpoint" in alone.err


def test_a_model_that_has_seen_two_data_sets_is_told_whose_predictions_they_are(painseq, table, lstm, monkeypatch):
    from painseq.model.checkpoint import read_checkpoint

    content = read_checkpoint(lstm)
    record = {**content.record, "extractor_trained_on": ["biovid/071309_w_21"]}
    monkeypatch.setattr("painseq.model.checkpoint.read_checkpoint", lambda path: replace(content, record=record))
    scored = table("clip_id,subject_id,label\nc,071309_w_21,BL1\n", "heat.csv")
    unsaid = painseq("audit", "check", scored, "--checkpoint", lstm)
    assert unsaid.code == 1 and "has seen people of ai4pain and biovid" in unsaid.err and "--dataset" in unsaid.err
    said = painseq("audit", "check", scored, "--checkpoint", lstm, "--dataset", "biovid")
    assert said.code == 1 and "has an extractor trained on subjects who are scored" in said.out
    assert painseq("audit", "check", scored, "--checkpoint", lstm, "--dataset", "ai4pain").code == 0
