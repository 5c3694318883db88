"""Files that are there whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from painseq.files import write_atomically


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
