"""docs/your_own_data.md does what it says; what is made on the way holds what docs/privacy.md says."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from painseq.cli import main
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import Folder
from painseq.errors import PainseqError
from painseq.evaluation import read_predictions

PAGE = (Path(__file__).parents[1] / "docs" / "your_own_data.md").read_text(encoding="utf-8")
NATIVE = DataOptions(labels="native")
SMALLER = ["--size-px", "64", "--fps", "4", "--trials", "1", "--clip-s", "2", "--workers", "1"]
TINY = """
model: {extractor: {init_args: {model: test_resnet, weights: null, input_size_px: 32}}}
data: {init_args: {options: {fps: 3, face: {init_args: {locator: {class_path: painseq.faces.Sidecar}, size_px: 32}}}}}
trainer: {max_epochs: 2, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}
"""


def block(language: str, holds: str) -> str:
    """The one code block of the page in this language that holds a text."""
    (found,) = (code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holds in code)
    return found


def commands() -> list[list[str]]:
    """The page's commands, in its order."""
    lines = re.findall(r"^    painseq (.*)$", PAGE.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder in which every command of the page was run, on a smaller data set with a smaller network."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "mine.yaml").write_text(block("yaml", "# mine.yaml"))
    (folder / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            smaller = SMALLER if command[0] == "synth" else ["--config", "tiny.yaml"]
            assert main([*command, *smaller]) == 0, command
    return folder


def test_the_page_goes_from_videos_to_scores(page):
    assert {"synth", "extract", "fit", "evaluate"} <= {command[0] for command in commands()}
    classes = yaml.safe_load(block("yaml", "# mine.yaml"))["data"]["init_args"]["classes"]
    run = json.loads((page / "runs/mine/run.json").read_text())
    assert list(run["data"]["train_counts"]) == classes and run["data"]["name"] == "mine"
    predictions = read_predictions(page / "runs/mine_test/predictions.csv")
    assert list(predictions.class_names) == classes and len(set(predictions.subject_ids)) == 2
    seen = set(run["data"]["split"]["train"]) | set(run["data"]["split"]["validation"])
    assert not seen & set(predictions.subject_ids)
    assert "models" in json.loads((page / "runs/mine_test/metrics.json").read_text())


def test_the_files_that_the_page_names_are_there(page):
    (written,) = (section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE) if "    painseq fit" in section)
    named = re.findall(r"`([a-z_]+\.(?:ckpt|yaml|json|csv))`", written)
    assert len(set(named)) >= 6
    for name in named:
        assert any(page.joinpath("runs").rglob(name)) or (page / name).is_file(), name


def layout() -> list[str]:
    """The videos of the page's tree, as paths below its root."""
    paths: list[str] = []
    folders: list[str] = []
    for line in block("text", "data/mine/").splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 4, line.strip()
        folders[depth:] = [name.rstrip("/")]
        if not name.endswith("/"):
            paths.append("/".join(folders[1:]))
    return paths


@pytest.fixture
def tree(tmp_path):
    """The page's tree, of empty files."""
    for path in layout():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def test_the_tree_is_read_as_it_stands(tree):
    clips = Folder(tree, NATIVE).read_manifest()
    assert sorted(clip.video for clip in clips) == sorted(layout())
    assert clips.subjects == ("p01", "p02")


def test_the_patterns_of_the_table_tell_what_it_says(tmp_path):
    table = re.findall(r"^\| `([^`]+)` \| `([^`]+)`[^|]*\| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    assert len(table) >= 4
    for number, (path, pattern, subject, label) in enumerate(table):
        folder = tmp_path / str(number)
        (folder / path).parent.mkdir(parents=True)
        (folder / path).touch()
        (folder / "clips.csv").touch()
        with pytest.raises(PainseqError, match=f"'{subject}'"):
            Folder(folder, NATIVE, pattern=pattern).read_manifest()
        (clip,) = Folder(folder, NATIVE, pattern=pattern)._found()
        assert (clip.subject_id, clip.label) == (subject, label)


def test_the_table_of_clips_is_read(tree):
    (tree / "clips.csv").write_text(block("csv", "clip_id,subject_id"))
    options = DataOptions(labels="native", split=SplitOptions(protocol="official"))
    data = Folder(tree, options, manifest=tree / "clips.csv")
    assert data.split.train == ("p01",) and data.split.test == ("p02", "p03")
    assert [clip.label for clip in data.clips("test")] == ["high_pain", None]


def test_the_labels_of_the_page_are_a_scheme(tmp_path):
    labels = yaml.safe_load(block("yaml", "labels: {"))["labels"]
    for number, label in enumerate(("rest", "calm", "hurts", "9", "other")):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"p{number}_1.mp4").touch()
    data = Folder(tmp_path, DataOptions(labels=labels))
    assert data.scheme.counts(data.manifest) == {"no_pain": 2, "pain": 2}


MISTAKES = [
    (["pain/anna.mp4"], {}, {"pain/anna.mp4", "pattern"}),
    (
        ["pane/p01_01.mp4"],
        {"classes": ("no_pain", "pain")},
        {"pane/p01_01.mp4", "'pane'", "classes", "no_pain, pain"},
    ),
    (["pain/p01_01.mp4", "S07/notes.txt"], {}, {"S07"}),
    (["pain/video_1.mp4", "calm/video_2.mp4"], {}, {" 2 ", "'video'"}),
    (["clips.csv"], {"manifest": "clips.csv"}, {"'../a.mp4'"}),
]
"""Names of files, further arguments, and what both the message and the page's row on it hold."""


def test_the_page_tells_of_the_mistakes_as_the_messages_do(tmp_path):
    rows = re.findall(r"^\| .+? \| (`.+`) \|$", PAGE, re.MULTILINE)
    told = []
    for number, (names, more, values) in enumerate(MISTAKES):
        root = tmp_path / str(number)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("clip_id,subject_id,video\na,p01,../a.mp4\n")
        table = {"manifest": root / more["manifest"]} if "manifest" in more else more
        with pytest.raises(PainseqError) as error:
            Folder(root, NATIVE, **table).read_manifest()
        assert all(value in str(error.value) for value in values), error.value
        told += [row for row in rows if all(value in row for value in values)]
        assert len(told) == number + 1, values
    assert len(set(told)) == len(MISTAKES)


# ---- what the outputs hold ----

TYPED = {"config.yaml"}
"""Files that tell what the user typed, as docs/privacy.md says."""


def those_that_hold(folder: Path, text: str) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()}


@pytest.fixture(scope="module")
def absolute(page, tmp_path_factory):
    """Outputs of a run that was given whole paths: tracks, a store, a run, scores, a submission."""
    out, root = tmp_path_factory.mktemp("outputs"), page / "data" / "mine"
    same = ["--config", f"{page}/mine.yaml", "--config", f"{page}/tiny.yaml", "--data.root", str(root)]
    same += ["--data.options.store", str(out / "store")]
    assert main(["faces", *same, "--out", str(out / "tracks")]) == 0
    assert main(["extract", *same, "--out", str(out / "store"), "--export", str(out / "export")]) == 0
    assert main(["fit", *same, "--out", str(out / "run")]) == 0
    checkpoint = ["--checkpoint", str(out / "run" / "best.ckpt")]
    assert main(["evaluate", *same, *checkpoint, "--out", str(out / "test")]) == 0
    predictions = ["--predictions", str(out / "test" / "predictions.csv")]
    names = ["--label-names", "no_pain=0", "low_pain=1", "high_pain=2"]
    assert main(["submit", *predictions, "--out", str(out / "submission.csv"), *names]) == 0
    return out, root


def test_only_what_the_user_typed_holds_the_place_of_the_data(absolute):
    out, root = absolute
    assert those_that_hold(out, str(root)) == TYPED
    assert those_that_hold(out, str(root.name)) - TYPED, "the search finds what is there"


def test_manifests_hold_paths_below_the_root(absolute):
    out, root = absolute
    with (out / "store" / "manifest.csv").open(newline="") as file:
        videos = [row["video"] for row in csv.DictReader(file)]
    assert videos and all((root / video).is_file() and not Path(video).is_absolute() for video in videos)


def test_relative_paths_leave_no_place_at_all(page):
    # Lightning notes in a checkpoint where its run folder lay.
    assert those_that_hold(page / "stores", str(page)) == set()
    assert those_that_hold(page / "runs", str(page)) <= {"best.ckpt", "last.ckpt"}


def test_why_a_clip_failed_is_told_without_the_place_of_the_data(page, tmp_path):
    root, out = tmp_path / "hospital", tmp_path / "store"
    for path in (page / "data" / "mine").rglob("p0[12]_01.*"):
        copy = root / path.relative_to(page / "data" / "mine")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    broken = root / "no_pain" / "p01_01.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    (root / "low_pain" / "p01_01.faces.safetensors").unlink()
    same = ["--config", f"{page}/mine.yaml", "--config", f"{page}/tiny.yaml", "--data.root", str(root)]
    assert main(["extract", *same, "--out", str(out)]) == 0
    assert len(json.loads((out / "index.json").read_text())["failed"]) == 2
    assert those_that_hold(out, "hospital") == set()
