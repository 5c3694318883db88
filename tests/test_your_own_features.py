"""docs/your_own_features.md does what it says."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

from painseq.cli import main
from painseq.evaluation import read_predictions

PAGE = (Path(__file__).parents[1] / "docs" / "your_own_features.md").read_text(encoding="utf-8")
QUICK = {
    "data": ["--workers", "1", "--json", "check.json"],
    "fit": ["--trainer.accelerator", "cpu"],
    "evaluate": [],
    "crossval": ["--jobs", "1", "--trainer.max_epochs", "1", "--data.options.split.folds", "3"],
}


def block(language: str) -> str:
    """The one code block of the page in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def commands() -> list[list[str]]:
    """The page's commands, in its order."""
    return [shlex.split(line) for line in re.findall(r"^    painseq (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page was followed."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "mine.yaml").write_text(block("yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(block("python"), {})
        for command in commands():
            assert main([*command, *QUICK[command[0]]]) == 0, command
    return folder


def test_the_table_is_as_shown(page):
    shown = list(csv.reader(block("csv").splitlines()))
    with (page / "clips.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert shown[0] == rows[0] and all(row in rows for row in shown)


def test_the_page_goes_from_features_to_scores_without_a_video(page):
    assert {command[0] for command in commands()} == set(QUICK)
    check = json.loads((page / "check.json").read_text())
    assert (check["errors"], check["features"]["clips"], check["features"]["shape"]) == (0, 120, [6])
    tested = read_predictions(page / "runs/mine_test/predictions.csv")
    split = json.loads((page / "runs/mine/run.json").read_text())["data"]["split"]
    assert len(set(tested.subject_ids)) == 2 and not set(tested.subject_ids) & {*split["train"], *split["validation"]}
    pooled = read_predictions(page / "runs/mine_cv/predictions.csv")
    assert len(set(pooled.subject_ids)) == 10 and len(pooled.clip_ids) == 120


def test_videos_are_refused(page, capsys, monkeypatch):
    monkeypatch.chdir(page)
    (page / "video.mp4").write_bytes(b"")
    assert main(["predict", "video.mp4", "--checkpoint", "runs/mine/best.ckpt"]) == 1
    assert "painseq extract" in capsys.readouterr().err
