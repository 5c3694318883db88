"""docs/python.md: every example runs, in the order of the page."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_every_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "submission.csv").is_file() and (tmp_path / "runs" / "audit" / "report.html").is_file()


def test_it_has_every_command():
    from painseq.cli import COMMANDS

    page = PAGE.read_text(encoding="utf-8")
    for command in set(COMMANDS) - {"synth"}:
        assert re.search(rf"`{command}\b", page), command
