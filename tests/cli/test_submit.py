"""The challenge CSV: written in any form, one row an item, and checked whoever wrote it."""

import csv
import re
from pathlib import Path

import pytest

from painseq.studies.submit import SubmissionFormat, native_labels, read_items

PREDICTED = """clip_id,subject_id,truth,label,prob_no_pain,prob_low_pain,prob_high_pain
Test/S1/1,S1,,low_pain,0.2,0.5,0.3
Test/S1/2,S1,,no_pain,0.75,0.25,0
Test/S2/1,S2,,high_pain,0,0.25,0.75
"""
NO_FACE = "Test/S2/2,S2,,,,,\n"
NUMBERS = ["--label-names", "no_pain=0", "low_pain=1", "high_pain=2"]

AI4PAIN = SubmissionFormat(native_labels("ai4pain", "three"))


@pytest.fixture
def predicted(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(PREDICTED)
    return path


@pytest.fixture
def submit(painseq, predicted, tmp_path):
    """Runs `painseq submit`; returns its result, and the rows written."""

    def call(*args):
        out = tmp_path / "submission.csv"
        result = painseq("submit", "--predictions", predicted, "--out", out, *args)
        return result, list(csv.reader(out.open(newline=""))) if out.is_file() else None

    return call


def test_the_plainest_form_has_item_and_native_label(submit):
    result, rows = submit()
    assert result.code == 0 and result.log.names(3)
    assert rows == [
        ["item", "label"],
        ["Test/S1/1", "Low_Pain"],
        ["Test/S1/2", "No_Pain"],
        ["Test/S2/1", "High_Pain"],
    ]


def test_columns_label_names_probabilities_and_order_are_the_challenges(submit, tmp_path):
    items = tmp_path / "items.csv"
    items.write_text("video,clip_id\nc,Test/S2/1\na,Test/S1/1\nb,Test/S1/2\n")
    result, rows = submit(
        "--id-column", "video", "--label-column", "pain", *NUMBERS, "--probabilities", "--items", items
    )  # fmt: skip
    assert result.code == 0, result.err
    assert rows == [
        ["video", "pain", "prob_0", "prob_1", "prob_2"],
        ["c", "2", "0.0", "0.25", "0.75"],
        ["a", "1", "0.2", "0.5", "0.3"],
        ["b", "0", "0.75", "0.25", "0.0"],
    ]


def test_label_names_may_come_in_another_order_than_the_models_classes(submit):
    _, rows = submit("--label-names", "high_pain=H", "no_pain=N", "low_pain=L", "--probabilities")
    assert rows[0] == ["item", "label", "prob_H", "prob_N", "prob_L"]
    assert rows[1] == ["Test/S1/1", "L", "0.3", "0.2", "0.5"]


def test_the_test_part_of_a_manifest_says_which_items_there_are(submit, tmp_path, predicted):
    manifest = tmp_path / "manifest.csv"
    rows = "".join(f"Test/S{s}/{n},S{s},v.mp4,,test\n" for s in (1, 2) for n in (1, 2))
    manifest.write_text(f"clip_id,subject_id,video,label,part\nTrain/S9/1,S9,v.mp4,No_Pain,train\n{rows}")
    result, rows = submit("--items", manifest)
    assert result.code == 1 and rows is None
    assert result.err.names(1, "Test/S2/2", "--fill")
    result, rows = submit("--items", manifest, "--fill", "no_pain")
    assert result.code == 0 and rows[-1] == ["Test/S2/2", "No_Pain"] and len(rows) == 5
    assert result.log.names(1, "No_Pain", 4)
    predicted.write_text(f"{PREDICTED}Train/S9/1,S9,,low_pain,0.2,0.5,0.3\n")
    result, _ = submit("--items", manifest)
    assert result.code == 1 and result.err.names(1, "Train/S9/1")


def test_a_filled_item_is_sure_of_its_class(submit, predicted):
    predicted.write_text(PREDICTED + NO_FACE)
    result, rows = submit(*NUMBERS, "--probabilities", "--fill", "high_pain")
    assert result.code == 0 and rows[-1] == ["Test/S2/2", "2", "0.0", "0.0", "1.0"]


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--fill", "some_pain"], ("fill", "some_pain", "no_pain", "low_pain", "high_pain")),
        (["--labels", "binary"], ("--labels", "no_pain, low_pain, high_pain", "no_pain, high_pain")),
        (["--label-names", "no_pain=0", "pain=1"], ("no_pain, low_pain, high_pain", "no_pain, pain")),
        (["--label-names", "no_pain"], ("--label-names", "no_pain", "CLASS=NAME")),
        (["--label-names", "no_pain=0", "no_pain=1"], ("--label-names", "no_pain")),
        (["--label-names", "no_pain=0", "low_pain=1", "high_pain=1"], ("0, 1, 1",)),
        (["--id-column", "label"], ("label, label",)),
        (["--items", "nowhere.csv"], ("nowhere.csv",)),
        (["--out", "no/such/folder.csv"], ("no/such/folder.csv",)),
    ],
)
def test_what_cannot_be_written(submit, args, facts):
    result, _ = submit(*args)
    assert result.code == 1 and result.err.names(*facts)


def test_probabilities_that_are_not_there(submit, predicted):
    predicted.write_text("clip_id,subject_id,label\na,S1,no_pain\nb,S1,low_pain\nc,S1,high_pain\n")
    result, _ = submit("--label-names", "high_pain=2", "low_pain=1", "no_pain=0", "--probabilities")
    assert result.code == 1 and result.err.names("'a'", "--probabilities")


def test_a_file_in_order_passes(painseq, submit, predicted, tmp_path):
    submit(*NUMBERS, "--probabilities")
    form = [*NUMBERS, "--probabilities"]
    result = painseq("submit", "--check", tmp_path / "submission.csv", "--predictions", predicted, *form)
    assert result.code == 0 and result.log.names(tmp_path / "submission.csv") and result.err == ""
    result = painseq("submit", "--check", tmp_path / "submission.csv", *form)
    assert result.code == 0 and result.log.names("--items", "--predictions")


def test_labels_that_are_not_the_likeliest_class_are_told_and_are_no_problem(painseq, tmp_path):
    path = tmp_path / "mine.csv"
    rows = ["a,1,0.2,0.5,0.3", "b,0,0.4,0.4,0.2", "c,0,0.1,0.2,0.7", "d,1,0.5,0.3,0.2"]
    path.write_text("\n".join(["item,label,prob_0,prob_1,prob_2", *rows]) + "\n")
    result = painseq("submit", "--check", path, *NUMBERS, "--probabilities")
    assert result.code == 0 and result.log.names(2, "line 4", "line 5") and not result.log.names("line 2")
    path.write_text("\n".join(["item,label,prob_0,prob_1,prob_2", *rows[:2]]) + "\n")
    assert not painseq("submit", "--check", path, *NUMBERS, "--probabilities").log.names("line")


def test_numbers_on_a_scale_are_no_classes(submit, predicted):
    predicted.write_text("clip_id,subject_id,truth,value_pspi\na,S1,0,1.5\n")
    result, rows = submit()
    assert result.code == 1 and rows is None
    assert result.err.names("predictions.csv", "classes")


def test_every_problem_of_a_file_is_told(painseq, predicted, tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("item,label,note\nTest/S1/1,Low_Pain,x\nTest/S1/1,Some_Pain,\nTest/S9/1,,x\nTest/S1/2,No_Pain\n")
    result = painseq("submit", "--check", mine, "--predictions", predicted)
    assert result.code == 1
    expected = (
        ("item, label, note", "item, label"),
        ("(1)", "Test/S1/1", 2, 3),
        ("Some_Pain", "No_Pain, Low_Pain, High_Pain", "(1)", "line 3"),
        ("label", "(1)", "line 4"),
        ("(1)", "Test/S9/1", "line 4"),
        (3, "(1)", "line 5"),
        ("(1)", "Test/S2/1"),
    )
    for line, facts in zip(result.err.splitlines(), expected, strict=True):
        assert type(result.err)(line).names(mine, *facts)


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--check", "nowhere.csv"], ("nowhere.csv",)),
        (["--check", "nowhere.csv", "--fill", "no_pain"], ("--check", "--fill")),
        (["--out", "s.csv"], ("--predictions",)),
    ],
)
def test_a_command_that_cannot_be(painseq, args, facts):
    result = painseq("submit", *args)
    assert result.code == 1 and result.err.names(*facts)


def test_the_page_names_the_options_and_its_table_is_one(painseq, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "submission.md").read_text(encoding="utf-8")
    known = painseq("submit", "--help").out
    options = set(re.findall(r"`(--[a-z-]+)", page)) - {"--part"}
    assert len(options) >= 8 and all(option in known for option in options)
    (tmp_path / "items.csv").write_text(re.findall(r"```csv\n(.*?)```", page, re.DOTALL)[0])
    assert read_items(tmp_path / "items.csv") == {"Test/S61/S61_1": "0001", "Test/S61/S61_2": "0002"}


def test_blanks_around_cells_are_told(painseq, predicted, tmp_path):
    path = tmp_path / "padded.csv"
    path.write_text(" item ,label\nTest/S1/1, Low_Pain\nTest/S1/2,No_Pain\nTest/S2/1,High_Pain\n")
    result = painseq("submit", "--check", path, "--predictions", predicted)
    assert result.code == 1 and result.err.names(path, "line 1", "line 2")
