"""Files that are there whole or not at all."""

import csv
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from painseq.errors import PainseqError, first_few
from painseq.files import folder_replacing, write_atomically, write_csv, write_json
from painseq.runs import check_same_run, locked_folder, make_run_folder, read_json


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


def test_a_folder_appears_where_a_link_points_to_and_never_below_somebodys_feet(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    with folder_replacing(tmp_path / "link") as folder:
        (folder / "file").write_text("")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "here" / "file").is_file()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for path in (Path(), Path("../empty"), Path("/proc")):
        with pytest.raises(PainseqError, match="current folder or a mounted one"), folder_replacing(path):
            pass


def test_what_a_killed_process_left_of_a_folder_is_removed_but_not_what_another_process_writes(tmp_path):
    write = """
import sys, time
from pathlib import Path
from painseq.files import folder_replacing
with folder_replacing(Path(sys.argv[1])) as folder:
    print(folder.name, flush=True)
    time.sleep(60)
"""
    out, foreign = tmp_path / "model [1]", tmp_path / ".model [1].mine.partial"
    foreign.mkdir()
    command = [sys.executable, "-c", write, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        name = other.stdout.readline().strip()
        with folder_replacing(out):
            pass
        assert (tmp_path / name).is_dir()
        other.kill()
    out.rmdir()
    with folder_replacing(out):
        pass
    assert set(tmp_path.iterdir()) == {out, foreign}


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


def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "index.json"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=re.escape(str(path))) as caught:
            write_atomically(path, b"new" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def in_child(work) -> int:
    """Run `work` in a forked process, and return how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except PainseqError:
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def locked(folder) -> bool:
    with locked_folder(folder) as interrupted:
        return interrupted


def test_a_second_command_in_a_run_folder_is_refused(tmp_path):
    with locked_folder(tmp_path / "run"):
        assert in_child(lambda: locked(tmp_path / "run")) == 3
        with pytest.raises(PainseqError, match=rf"{os.getpid()}.*{re.escape(str(tmp_path / 'run'))}"):
            locked(tmp_path / "run")
        (tmp_path / "run" / "result.json").touch()
    assert in_child(lambda: locked(tmp_path / "run")) == 0
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["result.json"]


def test_the_folder_of_a_dead_process_is_free_and_marked_as_interrupted(tmp_path):
    def killed() -> None:
        with locked_folder(tmp_path / "run"):
            (tmp_path / "run" / "config.yaml").touch()
            (tmp_path / "run" / f".last.ckpt.{'0' * 32}.partial").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(killed) == -signal.SIGKILL
    with locked_folder(tmp_path / "run") as interrupted:
        assert interrupted
        with pytest.raises(PainseqError, match="run"):
            make_run_folder(tmp_path / "run")
        make_run_folder(tmp_path / "run", ["config.yaml"])
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["config.yaml"]
    assert not locked(tmp_path / "run")


def test_work_that_fails_leaves_a_folder_only_if_it_wrote_something(tmp_path):
    def fail(written: bool) -> None:
        with pytest.raises(KeyError), locked_folder(tmp_path / "run"):
            if written:
                (tmp_path / "run" / "config.yaml").touch()
            raise KeyError

    fail(written=False)
    assert not (tmp_path / "run").exists()
    fail(written=True)
    assert locked(tmp_path / "run")
    assert not locked(tmp_path / "run")
    fail(written=True)
    assert not locked(tmp_path / "run")


def test_many_take_turns_in_one_folder(tmp_path):
    """The lock is removed by its owner: a process that waits with the removed file must not count as owner."""

    def work() -> None:
        for _ in range(200):
            try:
                with locked_folder(tmp_path / "run"):
                    (tmp_path / "run" / "mine").touch(exist_ok=False)
                    (tmp_path / "run" / "mine").unlink()
            except PainseqError:
                pass

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                work()
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_a_table_for_people_runs_nothing_in_a_spreadsheet_and_keeps_its_numbers(tmp_path):
    texts = ["=1+1", "+a", "-2+3+cmd|' /C calc'!A0", "@a", "\ta", "\ra"]
    kept = ["a=b", "", None, -0.5, "-0.5", "+0.120 (-0.050 to 0.290)", "-3 %", "12,000"]
    write_csv(tmp_path / "people.csv", [texts, kept], spreadsheet=True)
    write_csv(tmp_path / "exact.csv", [texts, kept])
    with (tmp_path / "people.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == [f"'{text}" for text in texts]
    with (tmp_path / "exact.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == texts
    for name in ("people", "exact"):
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file))[1] == ["" if cell is None else str(cell) for cell in kept]


def test_of_many_names_the_first_are_told():
    assert first_few([]) == "" and first_few(["a", "b"], 2) == "a, b"
    assert first_few((str(n) for n in range(5)), 2, "; ") == "0; 1 and 3 more"


def test_unfinished_files_of_others_are_left(tmp_path):
    from painseq.files import remove_partials

    own, other = tmp_path / f".config.yaml.{'0' * 32}.partial", tmp_path / ".notes.partial"
    own.touch()
    other.touch()
    remove_partials(tmp_path)
    assert not own.exists() and other.exists()
