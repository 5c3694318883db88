"""`painseq audit`: the inflation of a model as a page, and leaks planted in files."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from painseq.evaluation import read_predictions


def test_without_a_sub_command_it_tells_what_there_is(painseq):
    assert painseq("audit").out.names("model", "check")
    result = painseq("audit", "nothing")
    assert result.code == 1 and result.err.names("nothing", "model", "check")


# ---- model ----

SHORT = ["--folds", "2", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]


@pytest.fixture
def model(on_electrical, store):
    return ["audit", "model", *on_electrical, "--data.options.store", store, *SHORT]


@pytest.fixture
def frames(model):
    return [*model, "--config", "configs/head/frame_ann.yaml", "--frames-per-clip", "2"]


@pytest.mark.slow
def test_the_inflation_of_a_frame_head_is_written_and_marked(painseq, frames, tmp_path):
    out = tmp_path / "audit"
    result = painseq(*frames, "--out", out)
    assert result.code == 0, result.err
    assert "LEAKY" in result.out and "subject" in result.out
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
    assert page.count("LEAKY") >= 2 and f"{content['overlap']['clip_kfold_LEAKY']['person_trained_on']:.0%}" in page
    items = {}
    for name in content["protocols"]:
        path = out / f"predictions_{name}.csv"
        items[name] = read_predictions(path).clip_ids
        lines = path.read_text().splitlines()
        assert all(("LEAKY" in line) == ("LEAKY" in name) for line in lines[1:])
    assert len({frozenset(ids) for ids in items.values()}) == 1

    again = painseq(*frames, "--out", out)
    assert again.code == 1 and again.err.names(out)
    leaky = painseq("audit", "check", out / "predictions_frame_kfold_LEAKY.csv")
    assert leaky.code == 1 and leaky.out.names("LEAKY")


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
    assert other.code == 1 and other.err.names(out, "audit.folds", 2, 3)
    assert painseq(*lstm, "--out", out).code == 0
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads((out / "audit.json").read_text())["protocols"] == first["protocols"]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--folds", "1"], ("folds", 1)),
        (["--folds", "99"], ("folds", 99)),
        (["--epochs", "0"], ("epochs", 0)),
        (["--frames-per-clip", "0"], ("frames_per_clip", 0)),
        (["--config", "configs/head/lstm.yaml", "--frames-per-clip", "2"], ("frames_per_clip", "clips")),
        (["--data.options.view", "pixels"], ("--data.options.view", "pixels")),
    ],
)
def test_what_cannot_be_audited_is_refused_and_leaves_nothing(painseq, frames, tmp_path, options, facts):
    result = painseq(*frames, *options, "--out", tmp_path / "audit")
    assert result.code == 1 and result.err.names(*facts)
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
    result = painseq("audit", "check", split(train=["S01"], validation=["S02"], test=["S03"]))
    assert result.code == 0 and not result.out.names("LEAK")


def test_a_subject_on_both_sides_of_a_split_file(painseq, split, tmp_path):
    result = painseq("audit", "check", split(train=["S01", "S02"], test=["s01 "]), "--json", tmp_path / "found.json")
    assert result.code == 1 and result.out.names("LEAK", 1, "S01", "train", "test")
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
    result = painseq("audit", "check", predictions, "--split", folds)
    assert result.code == 1 and result.err.names("split", folds)
    result = painseq("audit", "check", split(folds=[first, {**second, "validation": ["S01"]}]))
    assert result.code == 1 and result.out.names("S01", "test", "validation", "fold 1")
    result = painseq("audit", "check", split(folds=[first, {"train": ["S01"]}]))
    assert result.code == 1 and result.err.names(folds)


def test_a_suspicious_name_is_told_and_is_no_leak(painseq, split):
    result = painseq("audit", "check", split(train=["S1"], test=["S01"]))
    assert result.code == 0 and result.out.names("SUSPICIOUS", "S1", "S01") and not result.out.names("LEAK")


def test_a_split_that_painseq_wrote(painseq, on_electrical, tmp_path):
    assert painseq("split", *on_electrical, "--out", tmp_path / "made.json").code == 0
    assert painseq("audit", "check", tmp_path / "made.json").code == 0


def test_anybodys_table_of_clips(painseq, table):
    path = table("participant,cv\nA,0\nB,1\nA,1\n")
    result = painseq("audit", "check", path, "--part-column", "cv")
    assert result.code == 1 and result.out.names("A", 0, 1) and not result.out.names("B")
    unknown = painseq("audit", "check", path)
    assert unknown.code == 1 and "--part-column" in unknown.err


def test_two_tables_are_two_parts(painseq, table):
    train, test = table("subject\nA\nB\n", "train.csv"), table("subject\nC\nB\n", "test.csv")
    result = painseq("audit", "check", train, test)
    assert result.code == 1 and result.out.names("B", "test", "train") and not result.out.names("C")


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
    result = painseq("audit", "check", copied, "--root", root)
    assert result.code == 1 and result.out.names("S06_1.mp4", "other.mp4", "test", "train")


def test_predictions_against_checkpoint_and_split(painseq, table, split, lstm):
    unseen, seen = (table(f"clip_id,subject_id,label\nc,{who},No\n", f"{who}.csv") for who in ("S06", "S01"))
    assert painseq("audit", "check", unseen, "--checkpoint", lstm).code == 0
    result = painseq("audit", "check", seen, "--checkpoint", lstm)
    assert result.code == 1 and result.out.names("LEAK", "S01", 1)
    assert painseq("audit", "check", seen, "--checkpoint", lstm, "--dataset", "biovid").code == 0
    divided = split(train=["S01"], test=["S06"])
    assert painseq("audit", "check", unseen, "--split", divided).code == 0
    assert painseq("audit", "check", seen, "--split", divided).code == 1
    alone = painseq("audit", "check", seen)
    assert alone.code == 1 and "--checkpoint" in alone.err


def test_a_model_that_has_seen_two_data_sets_is_told_whose_predictions_they_are(painseq, table, lstm, monkeypatch):
    from painseq.model.checkpoint import read_checkpoint

    content = read_checkpoint(lstm)
    record = replace(content.record, extractor_trained_on=("biovid/071309_w_21",))
    monkeypatch.setattr("painseq.model.checkpoint.read_checkpoint", lambda path: replace(content, record=record))
    scored = table("clip_id,subject_id,label\nc,071309_w_21,BL1\n", "heat.csv")
    unsaid = painseq("audit", "check", scored, "--checkpoint", lstm)
    assert unsaid.code == 1 and unsaid.err.names("ai4pain", "biovid", "--dataset")
    result = painseq("audit", "check", scored, "--checkpoint", lstm, "--dataset", "biovid")
    assert result.code == 1 and result.out.names("LEAK", "extractor", "071309_w_21")
    assert painseq("audit", "check", scored, "--checkpoint", lstm, "--dataset", "ai4pain").code == 0
