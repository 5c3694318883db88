"""Files that are there whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from painseq.errors import PainseqError
from painseq.files import write_atomically, write_csv, write_json
from painseq.runs import check_same_run, read_json


def test_several_may_write_one_file_at_the_same_time(tmp_path):
    together = Barrier(4)

    def write(number: int) -> None:
        together.wait()
        write_atomically(tmp_path / "index.json", str(number).encode() * 1000)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            list(pool.map(write, range(4)))
    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]
    assert len(set((tmp_path / "index.json").read_text())) == 1


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "index.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"\b28\b"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_has_no_nan(tmp_path):
    content = {"a": [1, 0.5, None], "näme": "–"}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == content


def test_a_table_is_written_with_its_head_and_empty_cells(tmp_path):
    write_csv(tmp_path / "a.csv", [["a", "b"], [1, None], ["x,y", 0.1]])
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\r\n1,\r\n"x,y",0.1\r\n'
    write_csv(tmp_path / "a.csv", [["a", "b"], [1, None]], delimiter=";", line_end="\n")
    assert (tmp_path / "a.csv").read_bytes() == b"a;b\n1;\n"


def test_another_run_in_a_folder_is_refused_with_what_differs(tmp_path):
    then = {"seed": 1, "labels": ["a", "b"], "data": {"fps": 25, 0: "x"}, "split": list(range(100))}
    check_same_run(tmp_path, then, {**then, "labels": ("a", "b")})
    now = {**then, "seed": 2, "data": {"fps": 50, 0: "x"}, "split": list(range(101))}
    with pytest.raises(PainseqError) as caught:
        check_same_run(tmp_path, then, now)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert lines == ["data.fps: 25, not 50", "seed: 1, not 2", "split: differs"]
