"""benchmarks/extraction.py: each part runs, on tiny networks, and its checks catch features that differ."""

import importlib
import re
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def extraction(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("extraction")


@pytest.fixture
def bench(extraction, assets, tmp_path):
    return extraction.Bench(assets, tmp_path, quick=True)


@pytest.mark.slow
def test_the_parts_run_and_nothing_is_written(extraction, assets, capsys):
    before = (FOLDER / "RESULTS.md").read_bytes()
    # Timed together with other tests, the figures mean nothing.
    names = ["ceiling", "pipeline", "bf16", "light", "tracking", "store", "biovid"]
    assert extraction.main([*names, "--assets", str(assets), "--quick", "--write"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^\((\w+): \d+ s\)$", out, re.MULTILINE) == names
    assert re.search(r"VGG16.*fp32", out) and re.search(r"^\| painseq.*fp32.*\d \|$", out, re.MULTILINE)
    assert re.search(r"^\| [^|]+ \| \d+\.\d\d \| \d+\.\d\d \|$", out, re.MULTILINE), "the seconds of each stage"
    assert "EXTRAPOLATION" in out
    assert (FOLDER / "RESULTS.md").read_bytes() == before


def test_memory_and_processes(extraction, bench, monkeypatch):
    stores = importlib.import_module("extraction_parts.stores")
    once = importlib.import_module("extraction_parts.extract_once")
    # One after the other in this process, which is quicker than to start others.
    monkeypatch.setattr(stores, "in_processes", lambda jobs: [once.main(job) for job in jobs])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    assert re.search(r"\b3 s\b.*\b1 s\b.*\bpixels: \d", stores.memory(bench))
    assert re.search(r"\b16\b.*\b2\b", stores.ranks(bench))


def test_parts_that_cannot_run_are_skipped(extraction, assets, capsys):
    assert extraction.main(["biovid", "--assets", str(assets), "--quick"]) == 0
    out = capsys.readouterr().out
    assert "Skipped" in out and "biovid" in out and not re.search(r"^\|", out, re.MULTILINE), "no table"


@pytest.mark.parametrize(
    ("argv", "value"),
    [(["pipelines"], "'pipelines'"), (["store", "--assets", "nowhere"], "nowhere/videos")],
)
def test_a_wrong_command_line(extraction, argv, value, capsys):
    with pytest.raises(SystemExit):
        extraction.main(argv)
    assert value in capsys.readouterr().err


def test_features_that_differ_end_the_benchmark(extraction):
    require_same = importlib.import_module("extraction_parts.bench").require_same
    features = torch.rand(4, 8)
    assert require_same("Same", features, features) == 0
    with pytest.raises(SystemExit, match=r"Other.*\b1\.0e-03\b"):
        require_same("Other", features + 1e-3, features)
    with pytest.raises(SystemExit, match=r"Fewer.*\(3, 8\)"):
        require_same("Fewer", features[:3], features)
    with pytest.raises(SystemExit, match=r"\bnan\b"):
        require_same("Not a number", torch.full((4, 8), torch.nan), features)


def test_the_goals_are_gathered_from_the_page(extraction):
    page = (
        "<!-- extraction_goals -->\n- old: 1.0; goal at least 2: met\n<!-- /extraction_goals -->\n"
        "<!-- extraction_light -->\n| a |\n- light: 1.035; goal at most 1.1: met\n<!-- /extraction_light -->\n"
        "<!-- heads -->\n- other: 0.1; goal at least 2: MISSED\n<!-- /heads -->\n"
        "<!-- extraction_store -->\n- store: 0.300; goal at least 0.35: MISSED\n<!-- /extraction_store -->\n"
    )
    rows = extraction.goals_of(page).splitlines()[2:]
    assert rows == ["| light | at most 1.1 | 1.035 | met |", "| store | at least 0.35 | 0.300 | MISSED |"]
    markers = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for name in ["goals", *extraction.PARTS]:
        assert f"<!-- extraction_{name} -->" in markers and f"<!-- /extraction_{name} -->" in markers
