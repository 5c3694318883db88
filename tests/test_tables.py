"""Tables that users bring, as spreadsheets and other programs write them."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.evaluation import read_people, read_predictions
from painseq.evaluation.predictions import read_truth
from painseq.faces.openface import read_openface
from painseq.records import Clip, read_manifest
from painseq.tables import number, read_table, shown, whole_number

ROWS = [["clip_id", "Größe"], ["a", "0,5"], ["b", "2"]]
"""Two rows, with a letter outside ASCII and a decimal comma."""


def as_text(rows: list[list[str]], delimiter: str, line_end: str) -> str:
    return "".join(delimiter.join(row) + line_end for row in rows)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n  \n", ";\n;;\n"])
def test_a_table_reads_the_same_however_a_spreadsheet_saved_it(
    tmp_path: Path, encoding: str, line_end: str, delimiter: str, tail: str
):
    path = tmp_path / "t.csv"
    tail = tail.replace(";", delimiter)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + as_text(ROWS, delimiter, line_end) + tail).encode(encoding))
    columns, rows = read_table(path)
    assert columns == ROWS[0] and list(rows) == [(2, ["a", "0,5"]), (3, ["b", "2"])]


def test_quoted_cells_keep_what_separates(tmp_path: Path):
    (tmp_path / "t.csv").write_text('a, b \n"x,1","two\nlines"\n"he said ""no""",\n1,2,,\n')
    columns, rows = read_table(tmp_path / "t.csv")
    assert columns == ["a", "b"]
    assert list(rows) == [(3, ["x,1", "two\nlines"]), (4, ['he said "no"', ""]), (5, ["1", "2"])]


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b"a,b\n\xe9,1\n", ["UTF-8"]),
        (b"\xff\xfea", ["UTF-16"]),
        ("a,b\n1,2\n".encode("utf-16-le"), ["UTF-8"]),
        (b"a,b,a\n1,2,3\n", ["line 1", "'a'"]),
        (b'a,b\n1,2\n"open,3\n', ["line 3"]),
        (b"a,b\n1,2\n" + b"x" * 200_000 + b",3\n", ["line 3"]),
    ],
)
def test_what_is_no_table_is_told_with_file_and_line(tmp_path: Path, content: bytes, facts: list[str]):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(PainseqError, match=r"t\.csv") as told:
        list(read_table(path)[1])
    assert all(fact in str(told.value) for fact in facts)


@pytest.mark.parametrize("cell", ["1,000", "-12,345", "1,234,567", "1,000.5", " 1,000 "])
def test_between_commas_a_thousand_is_not_guessed(tmp_path: Path, cell: str):
    path = tmp_path / "t.csv"
    path.write_text(f'a,b\n1,2\n"{cell}",3\n')
    with pytest.raises(PainseqError, match=rf"t\.csv, line 3: '{cell}'"):
        list(read_table(path)[1])
    path.write_text('a,b\n"0,500","1,25"\n"1,2345","x, 1,000 ms"\n')
    (_, first), (_, second) = read_table(path)[1]
    assert [number(each) for each in first] == [0.5, 1.25] and number(second[0]) == 1.2345
    path.write_text("a;b\n1,000;2\n")
    assert [number(each) for each in next(read_table(path)[1])[1]] == [1, 2]


def test_an_empty_file_has_no_columns(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(b"")
    columns, rows = read_table(tmp_path / "t.csv")
    assert columns == [] and list(rows) == []


@given(st.floats(allow_nan=False, width=32), st.booleans())
def test_a_number_may_have_a_decimal_comma(value: float, comma: bool):
    text = repr(value)
    assert number(f" {text.replace('.', ',') if comma else text} ") == value


@pytest.mark.parametrize("cell", ["", "  ", "1,234,5", "1.234,5", "soon", "0x10", "1;2", "nano"])
def test_what_is_no_number_is_told(cell: str):
    with pytest.raises(ValueError, match=cell.strip() or "empty"):
        number(cell)


@pytest.mark.parametrize("cell", ["nan", "NaN", "-nan", "-nan(ind)", "nan(snan)"])
def test_numbers_that_are_none_as_programs_write_them(cell: str):
    assert math.isnan(number(cell))


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e400", "nan", "33.5", "", "9" * 5000])
def test_what_is_no_whole_number_is_told(cell: str):
    with pytest.raises(ValueError, match=r"number|empty"):
        whole_number(cell)
    assert whole_number("33.0") == whole_number("33") == 33


def test_many_columns_are_not_all_named():
    assert shown([]) == "none" and shown(["a", "b"]) == "a, b"
    assert len(shown([f"column{i}" for i in range(10**6)])) < 400


MANIFEST = "clip_id;subject_id;video;start_s;age\n1;Jörg;a.mp4;0,5;33\n;;;;\n"
PREDICTIONS = "clip_id;subject_id;label;prob_no;prob_pain\n1;a;no;0,75;0,25\n2;b;pain;0,5;0,5\n\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_reader_of_a_users_table_takes_semicolons_and_decimal_commas(tmp_path: Path, encoding: str):
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    manifest = read_manifest(written("m.csv", MANIFEST), tmp_path, "mine")
    assert manifest.clips == (Clip("1", "Jörg", "a.mp4", start_s=0.5, age=33),)
    predictions = read_predictions(written("p.csv", PREDICTIONS))
    np.testing.assert_array_equal(predictions.probabilities, [[0.75, 0.25], [0.5, 0.5]])
    assert read_truth(written("t.csv", "clip_id;truth\n1;no\n;\n")) == {"1": "no"}
    people = read_people(written("s.csv", "subject_id;sex;age\na;F;33,0\nb;;\n"))
    assert people["a"].age == 33 and people["a"].sex == "f" and people["b"].age is None
    table = read_openface(written("o.csv", " frame; timestamp; AU01_r\n1;0,033;1,5\n\n"), ["timestamp", "AU01_r"])
    np.testing.assert_array_equal(table, [[0.033, 1.5]])


@pytest.mark.parametrize("age", ["inf", "-inf", "nan", "1e400", "33.5", "9" * 5000])
def test_an_age_that_is_none_is_told_with_its_line(tmp_path: Path, age: str):
    (tmp_path / "m.csv").write_text(f"clip_id,subject_id,video,age\n1,a,v.mp4,{age}\n")
    with pytest.raises(PainseqError, match=r"m\.csv, line 2: age"):
        read_manifest(tmp_path / "m.csv", tmp_path, "mine")
    (tmp_path / "s.csv").write_text(f"subject_id,age\na,{age}\n")
    with pytest.raises(PainseqError, match=r"s\.csv, line 2: age"):
        read_people(tmp_path / "s.csv")


@pytest.mark.parametrize("column", ["start_s", "end_s", "fps"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e400", "-1"])
def test_a_time_that_is_none_is_told_with_its_line(tmp_path: Path, column: str, value: str):
    (tmp_path / "m.csv").write_text(f"clip_id,subject_id,video,{column}\n1,a,v.mp4,{value}\n")
    with pytest.raises(PainseqError, match=rf"m\.csv, line 2: .*{column}"):
        read_manifest(tmp_path / "m.csv", tmp_path, "mine")


def test_a_cell_of_text_among_openfaces_numbers_is_told_with_its_line(tmp_path: Path):
    (tmp_path / "o.csv").write_text("frame,timestamp,AU01_r\n1,0.0,1\n2,0.04,none\n")
    with pytest.raises(PainseqError, match=r"o\.csv, line 3: .*'none'"):
        read_openface(tmp_path / "o.csv", ["timestamp", "AU01_r"])


def test_a_number_has_no_underscore():
    with pytest.raises(ValueError, match="1_000"):
        number("1_000")
