"""A challenge CSV, written in any form and checked, from Python."""

import csv
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.evaluation import read_predictions
from painseq.studies.submit import SubmissionFormat, check_submission, native_labels, read_items, write_submission

AI4PAIN = SubmissionFormat(native_labels("ai4pain", "three"))


@pytest.mark.parametrize(
    ("table", "facts"),
    [
        ("name\na\n", r".*\bclip_id\b.*\bitem\b.*\bname\b"),
        ("item\na\n\nb\na\n", r".*\b5\b.*\ba\b.*\b2\b"),
        ("clip_id,item\nx,1\ny,1\n", r".*\b3\b.*\b1\b.*\b2\b"),
        ("clip_id,item\nx,\n", r".*\b2\b.*\bclip_id\b"),
        ("item\n", ""),
    ],
)
def test_a_table_of_items_that_cannot_be(tmp_path, table, facts):
    (tmp_path / "items.csv").write_text(table)
    with pytest.raises(PainseqError, match=rf"items\.csv{facts}"):
        read_items(tmp_path / "items.csv")


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        ("a,No_Pain,0.5,0.2,0.2", r"\b1 \(1\): line 2"),
        ("a,No_Pain,1.5,-0.5,0", r"0\.\.1 \(1\): line 2"),
        ("a,No_Pain,high,0,0", r"number \(1\): line 2"),
        ("a,No_Pain,nan,0,1", r"0\.\.1 \(1\): line 2"),
        ("a,No_Pain,,0,1", r"prob_No_Pain \(1\): line 2"),
        ("", r"\brow\b"),
    ],
)
def test_probabilities_are_checked(tmp_path, rows, facts):
    layout = SubmissionFormat(AI4PAIN.labels, probabilities=True)
    (tmp_path / "mine.csv").write_text(f"{','.join(layout.columns)}\n{rows}\n")
    (problem,) = check_submission(tmp_path / "mine.csv", layout, None)
    assert re.search(facts, problem)


def test_of_many_rows_the_first_are_named_and_all_are_counted(tmp_path):
    (tmp_path / "mine.csv").write_text("item,label\n" + "".join(f"{n},0\n" for n in range(300)))
    (problem,) = check_submission(tmp_path / "mine.csv", AI4PAIN, [str(n) for n in range(300)])
    assert re.search(r"No_Pain, Low_Pain, High_Pain \(300\): '0' in line 2; .*; '0' in line 11\b.*\b290\b", problem)
    assert "line 12" not in problem
    (tmp_path / "mine.csv").write_text("item,label\n" + "".join(f"{n},label {n}\n" for n in range(300)))
    (problem,) = check_submission(tmp_path / "mine.csv", AI4PAIN)
    assert "'label 9' in line 11" in problem and "line 12" not in problem


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("item;label\na;No_Pain\n", "item;label"),
        ("item,item,label\na,a,No_Pain\n", "item, item, label"),
        ("", "none"),
    ],
)
def test_a_first_line_that_says_nothing_of_the_rows(tmp_path, content, columns):
    (tmp_path / "mine.csv").write_text(content)
    (problem,) = check_submission(tmp_path / "mine.csv", AI4PAIN, ["a"])
    assert re.search(rf"\b{columns}\b.*\bitem, label\b", problem)


ITEMS = st.lists(st.text('abc/,;" é', min_size=1).map(str.strip).filter(bool), min_size=1, max_size=12, unique=True)


@settings(max_examples=40)
@given(names=ITEMS, data=st.data())
def test_what_is_written_is_in_order_whatever_the_items(tmp_path_factory, names, data):
    folder = tmp_path_factory.mktemp("any")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "subject_id", "label", "prob_no_pain", "prob_low_pain", "prob_high_pain"])
        for name in names:
            found = data.draw(st.sampled_from([("low_pain", 0.25, 0.5, 0.25), ("no_pain", 1, 0, 0), ("", "", "", "")]))
            writer.writerow([name, "S1", *found])
    layout = SubmissionFormat(AI4PAIN.labels, probabilities=data.draw(st.booleans()))
    order = data.draw(st.permutations(names))
    predictions = read_predictions(folder / "predictions.csv")
    items = {name: name for name in order}
    assert write_submission(predictions, folder / "s.csv", layout, fill="no_pain", items=items) == len(names)
    assert check_submission(folder / "s.csv", layout, names) == []
    assert list(read_items(folder / "s.csv")) == order
