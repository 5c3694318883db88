import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.evaluation import Predictions, read_people, read_predictions, read_truth
from painseq.evaluation.split_check import read_table
from painseq.evaluation.value_predictions import read_value_predictions
from painseq.records import read_manifest

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8)
HEADER = "clip_id,subject_id,truth,label,prob_No,prob_Low,prob_High,frames,faceless\n"


@st.composite
def any_predictions(draw) -> Predictions:
    names = tuple(draw(st.lists(TEXT.filter(lambda t: t == t.strip()), min_size=2, max_size=4, unique=True)))
    clips = draw(st.lists(TEXT, max_size=6, unique=True))
    n, k = len(clips), len(names)
    label = np.array([draw(st.integers(-1, k - 1)) for _ in clips], np.int64)
    weight = st.floats(1e-6, 1, exclude_min=True)

    def shares() -> np.ndarray:
        rows = np.array([[draw(weight) for _ in names] for _ in clips]).reshape(n, k)
        rows /= rows.sum(1, keepdims=True)
        rows[label < 0] = np.nan
        return rows

    return Predictions(
        class_names=names,
        clip_ids=tuple(clips),
        subject_ids=tuple(draw(TEXT) for _ in clips),
        truth=np.array([draw(st.integers(-1, k - 1)) for _ in clips], np.int64),
        label=label,
        probabilities=shares(),
        frames=np.array([draw(st.integers(-1, 300)) for _ in clips], np.int64),
        faceless=np.array([draw(st.integers(-1, 300)) for _ in clips], np.int64),
        votes=shares() if draw(st.booleans()) else None,
    )


@given(any_predictions())
@settings(max_examples=80, deadline=None)
def test_a_file_gives_back_what_was_written(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("csv") / "predictions.csv"
    made.write_csv(path)
    for read in (read_predictions(path), read_predictions(path, made.class_names)):
        assert (read.class_names, read.clip_ids, read.subject_ids) == (
            made.class_names,
            made.clip_ids,
            made.subject_ids,
        )
        for name in ("truth", "label", "frames", "faceless", "probabilities"):
            np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        if made.votes is None:
            assert read.votes is None
        else:
            np.testing.assert_array_equal(read.votes, made.votes)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("c2,s1,No,Medium,0.2,0.3,0.5,9,0", ("label", "'Medium'", "No, Low, High")),
        ("c2,s1,Medium,No,0.2,0.3,0.5,9,0", ("truth", "'Medium'", "No, Low, High")),
        ("c1,s1,No,No,0.2,0.3,0.5,9,0", ("'c1'", "line 2")),
        ("c2,s1,No,No,1.2,-0.1,-0.1,9,0", ("1.2, -0.1, -0.1",)),
        ("c2,s1,No,No,0.2,0.3,0.3,9,0", ("0.2, 0.3, 0.3", "0.8")),
        ("c2,s1,No,No,0.2,0.3,,9,0", ("0.2, 0.3, nan",)),
        ("c2,s1,No,No,0.2,0.3,x,9,0", ("prob_High", "'x'")),
        ("c2,s1,No,,0.2,0.3,0.5,9,0", ("0.2, 0.3, 0.5", "label")),
        ("c2,s1,No,No,0.2,0.3,0.5,-9,0", ("frames", "'-9'")),
        ("c2,,No,No,0.2,0.3,0.5,9,0", ("subject_id",)),
        ("c2,s1,No,No,0.2,0.3,0.5,9", ("9 cells",)),
        ("c2,s1,No,No,0.2,0.3,0.5,9,0,7", ("9 cells",)),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row, parts):
    path = write(tmp_path / "p.csv", HEADER + "c1,s1,No,Low,0.2,0.5,0.3,9,0\n" + row + "\n")
    with pytest.raises(PainseqError, match="line 3") as error:
        read_predictions(path)
    assert all(part in str(error.value) for part in parts)


def test_rounded_probabilities_pass(tmp_path):
    path = write(tmp_path / "p.csv", HEADER + "c1,s1,No,Low,0.33,0.33,0.33,9,0\n")
    assert read_predictions(path).label.tolist() == [1]


def test_a_missing_file_or_column_is_told(tmp_path):
    with pytest.raises(PainseqError, match=r"absent\.csv"):
        read_predictions(tmp_path / "absent.csv")
    with pytest.raises(PainseqError, match=r"(?s)line 1\b.*\blabel\b.*clip_id, subject_id, predicted"):
        read_predictions(write(tmp_path / "p.csv", "clip_id,subject_id,predicted\nc,s,1\n"))
    with pytest.raises(PainseqError, match="clip_id, label, subject_id"):
        read_predictions(write(tmp_path / "p.csv", ""))
    with pytest.raises(PainseqError, match=r"(?s)line 1.*'label'"):
        read_predictions(write(tmp_path / "p.csv", "clip_id,subject_id,label,label\nc,s,1,1\n"))
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x00binary")
    with pytest.raises(PainseqError, match="UTF-8"):
        read_predictions(tmp_path / "p.csv")


def test_a_file_without_probabilities_takes_its_classes_from_its_labels(tmp_path):
    path = write(tmp_path / "p.csv", "clip_id,subject_id,label,note\nc1,s1,No,x\nc2,s1,High,\nc3,s2,,\n")
    read = read_predictions(path)
    assert read.class_names == ("High", "No")
    assert not read.order_known
    assert read.label.tolist() == [1, 0, -1]
    assert np.isnan(read.probabilities).all()
    assert read.truth.tolist() == read.frames.tolist() == [-1, -1, -1]

    read = read_predictions(path, ["No", "Low", "High"])
    assert read.order_known
    assert read.label.tolist() == [0, 2, -1]
    with pytest.raises(PainseqError, match=r"(?s)'High'.*No, Low"):
        read_predictions(path, ["No", "Low"])


def test_writing_labels_alone_states_no_order_of_their_classes(tmp_path):
    made = read_predictions(write(tmp_path / "p.csv", "clip_id,subject_id,label\nc1,s1,No\nc2,s1,High\n"))
    made.with_truth({"c1": "High", "c2": "High"}).write_csv(tmp_path / "with_truth.csv")
    again = read_predictions(tmp_path / "with_truth.csv")
    assert again.class_names == ("High", "No") and not again.order_known
    assert again.truth.tolist() == [0, 0] and again.label.tolist() == [1, 0]
    read_predictions(tmp_path / "p.csv", ["No", "Low", "High"]).write_csv(tmp_path / "ordered.csv")
    ordered = read_predictions(tmp_path / "ordered.csv")
    assert ordered.class_names == ("No", "Low", "High") and ordered.order_known


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    read = read_predictions(write(tmp_path / "p.csv", "clip_id,subject_id,label\nc1,s,10\nc2,s,2\n"))
    assert read.class_names == ("2", "10")
    assert read.order_known


def test_classes_that_cannot_be_told_are_asked_for(tmp_path):
    path = write(tmp_path / "p.csv", "clip_id,subject_id,label\nc1,s1,No\n")
    with pytest.raises(PainseqError, match="prob_<class>"):
        read_predictions(path)


def test_given_classes_must_be_those_of_the_probabilities(tmp_path):
    path = write(tmp_path / "p.csv", HEADER + "c1,s1,No,Low,0.2,0.5,0.3,9,0\n")
    assert read_predictions(path, ["High", "Low", "No"]).probabilities.tolist() == [[0.3, 0.5, 0.2]]
    with pytest.raises(PainseqError, match=r"(?s)No, Low, High.*No, High"):
        read_predictions(path, ["No", "High"])


def test_truth_is_filled_in_by_clip(predictions):
    made = predictions([-1, -1], [0, 1])
    truth = {"clip1": "High Pain", "clip0": "No Pain", "another": "No Pain"}
    assert made.with_truth(truth).truth.tolist() == [0, 2]
    assert predictions([0, -1], [0, 1]).with_truth(truth).truth.tolist() == [0, 2]
    with pytest.raises(PainseqError, match=r"(?s)\b1\b.*\b2\b.*'clip0'"):
        made.with_truth({"clip1": "High Pain"})
    with pytest.raises(PainseqError, match="'Severe'"):
        made.with_truth({**truth, "clip1": "Severe"})
    with pytest.raises(PainseqError, match=r"(?s)'clip0'.*'Low Pain'.*'No Pain'"):
        predictions([1, -1], [0, 1]).with_truth(truth)


def test_truth_file(tmp_path):
    assert read_truth(write(tmp_path / "t.csv", "clip_id,truth\na,No\nb,High\n")) == {"a": "No", "b": "High"}
    assert read_truth(write(tmp_path / "t.csv", "clip_id,subject_id,label\na,s,No\n")) == {"a": "No"}
    for text, told in (
        ("clip_id,label\na,No\na,No\n", "line 3.*'a'"),
        ("clip_id,label\na,\n", "line 2.*'a'.*label"),
        ("clip_id,level\na,No\n", "truth.*label.*clip_id, level"),
    ):
        with pytest.raises(PainseqError, match=f"(?s){told}"):
            read_truth(write(tmp_path / "t.csv", text))


def test_only_keeps_rows_together(predictions):
    made = predictions([0, 1, 2], [2, 1, -1], ["a", "b", "c"])
    for chosen in (made.only([2, 0]), made.only(np.array([2, 0]))):
        assert chosen.clip_ids == ("clip2", "clip0")
        assert chosen.truth.tolist() == [2, 0]
        assert chosen.subject_ids == ("c", "a")
    assert made.only(made.scored).clip_ids == ("clip0", "clip1")
    assert len(made.only([])) == 0


def test_inconsistent_predictions_are_refused(predictions):
    with pytest.raises(PainseqError, match=r"(?s)truth.*3"):
        predictions([3], [0])
    with pytest.raises(PainseqError, match="a, a"):
        predictions([0], [0], class_names=("a", "a"))
    good = predictions([0, 1], [0, 1])
    with pytest.raises(PainseqError, match="'clip0'"):
        good.only([0, 0])


def test_the_file_is_plain(tmp_path, predictions):
    predictions([0, -1], [2, -1]).write_csv(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "clip_id,subject_id,truth,label,prob_No Pain,prob_Low Pain,prob_High Pain,frames,faceless",
        "clip0,s0,No Pain,High Pain,0.0,0.0,1.0,10,0",
        "clip1,s1,,,,,,10,10",
    ]


def test_a_table_of_a_million_columns_is_refused_in_a_short_text(tmp_path):
    path = write(tmp_path / "wide.csv", "clip_id," + ",".join(f"column{n}" for n in range(1_000_000)) + "\n")
    row = write(tmp_path / "row.csv", path.read_text() + "a" + "," * 1_000_000 + "\n")
    for read in (
        lambda: read_predictions(path),
        lambda: read_truth(path),
        lambda: read_people(path),
        lambda: read_value_predictions(path),
        lambda: read_table(row),
        lambda: read_manifest(path, tmp_path, "wide"),
    ):
        with pytest.raises(PainseqError, match="column") as error:
            read()
        assert len(str(error.value)) < 2_000


def test_of_many_classes_the_first_are_named(tmp_path):
    names = [f"class {n}" for n in range(100_000)]
    path = write(tmp_path / "p.csv", "clip_id,subject_id,label\na,s,none of them\n")
    with pytest.raises(PainseqError, match="'none of them'") as error:
        read_predictions(path, names)
    assert "99980 more" in str(error.value) and len(str(error.value)) < 2_000


@pytest.mark.parametrize("cell", ["9" * 30, "9" * 5_000])
def test_an_absurd_number_of_frames_or_years_is_named_by_its_line(tmp_path, cell):
    path = write(tmp_path / "p.csv", f"clip_id,subject_id,label,frames\na,s,A,{cell}\n")
    with pytest.raises(PainseqError, match=r"line 2.*frames"):
        read_predictions(path, ["A", "B"])
    path = write(tmp_path / "people.csv", f"subject_id,age\ns,{cell}\n")
    with pytest.raises(PainseqError, match=r"line 2.*age"):
        read_people(path)


def test_ids_that_a_spreadsheet_would_run_are_read_back_exactly(tmp_path, predictions):
    ids = ("=1+1", "+a", "-a", "@a", "\ta", "'=a")
    made = predictions([0] * 6, [1] * 6, [f"{name} s" for name in ids])
    made = dataclasses.replace(made, clip_ids=ids)
    made.write_csv(tmp_path / "p.csv")
    read = read_predictions(tmp_path / "p.csv")
    assert (read.clip_ids, read.subject_ids) == (made.clip_ids, made.subject_ids)
