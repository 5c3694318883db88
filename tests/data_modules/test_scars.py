"""Each scar that `painseq synth --scars` can leave, and what a user is told of it."""

import csv
import io
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from painseq.cli import main
from painseq.data.options import DataOptions
from painseq.data_modules import UNBC, AI4Pain, BioVid, Folder, MIntPAIN
from painseq.records import Clip

CLASSES = ("no_pain", "low_pain", "high_pain")
# Layout -> options of synth, configuration, options of its data module.
LAYOUTS = {
    "biovid": ("--subjects 2 --trials 1 --fps 2", "biovid", "--data.options.labels five"),
    "biovid-frames": ("--subjects 2 --trials 1 --fps 2", "biovid", "--data.options.labels five --data.fps 2"),
    "ai4pain": ("--subjects 2 1 0 --trials 2 --baseline-s 10 --fps 1", "ai4pain", ""),
    "unbc": ("--subjects 2 --sequences 2 --frames 4", "unbc", "--data.target frame"),
    "mintpain": ("--subjects 1 --trials 1 --sweeps 4 --clip-s 2 --fps 1", "mintpain", "--data.fps 1"),
    "xite": ("--subjects 1 --phasic-s 1 --tonic-s 1 --fps 2", "xite", "--data.kind all"),
    "folder": ("--subjects 2 --trials 1 --clip-s 1 --fps 2", "folder", f"--data.classes [{','.join(CLASSES)}]"),
}


class Told:
    """What a command says of a scar.

    Args:
        by: "check" or "extract": of the data set as it is; "check, mended" or "extract, mended": once the scar is
            mended for which the data set was refused, which hides the others.
        code: exit code of the command.
        lines: what must stand on one line each. "{0}", "{1}" stand for the scar's places, "{name}" for the first one's
            name without suffix.
    """

    def __init__(self, layout: str, scar: str, by: str, code: int, *lines: tuple[str, ...]) -> None:
        self.layout, self.scar, self.by, self.code, self.lines = layout, scar, by, code, lines


TOLD = [
    *(
        Told(layout, scar, by, code, *lines)
        for layout in ("biovid", "biovid-frames")
        for scar, by, code, lines in (
            (
                "disagreeing_label",
                "check",
                1,
                (
                    ("labels: error", "2"),
                    ("samples.csv", "{name}", "class_name", "PA2", "PA1"),
                    ("samples.csv", "{name}", "class_id", "2", "1"),
                ),
            ),
            ("disagreeing_label", "extract", 1, (("samples.csv", "{name}", "class_name", "PA2", "PA1"),)),
            ("duplicate_clip", "check, mended", 1, (("files: warning", "1"), ("{0}", "{1}"))),
            ("duplicate_clip", "extract, mended", 0, (("biovid: 1 clip", "samples.csv"),)),
            ("short_clip", "check, mended", 1, (("lengths: warning", "1"), ("{name}", "0.50 s", "PA3", "3.00 s"))),
        )
    ),
    Told("biovid", "truncated_video", "check, mended", 1, ("files: error", "1"), ("{0}", "pyav")),
    Told(
        "biovid",
        "truncated_video",
        "extract, mended",
        0,
        ("11 clips", "10 extracted", "1 failed"),
        ("failed", "{name}", "{0}", "pyav"),
    ),
    Told("biovid-frames", "truncated_video", "check, mended", 1, ("files: error", "1"), ("{0}", "image")),
    Told("biovid-frames", "truncated_video", "extract, mended", 0, ("1 failed",), ("failed", "{0}", "image")),
    *(Told("ai4pain", "stray_file", command, 1, ("{0}", "pattern")) for command in ("check", "extract")),
    Told("ai4pain", "truncated_video", "check, mended", 1, ("files: error", "1"), ("{0}", "pyav")),
    Told("ai4pain", "truncated_video", "extract, mended", 0, ("1 failed",), ("failed", "{0}", "pyav")),
    Told("ai4pain", "missing_clips", "check, mended", 1, ("High_Pain", "│ 1 to 2 ", "│ 12 ")),
    Told("unbc", "missing_frame_label", "check", 1, ("labels: error", "1"), ("1 of 4", "PSPI", "{0}")),
    Told("unbc", "missing_frame_label", "extract", 0, ("unbc: 1 frame", "PSPI")),
    Told("mintpain", "empty_folder", "check", 1, ("files: error", "1"), ("{0}", ".png, .jpg")),
    Told("mintpain", "empty_folder", "extract, mended", 0, ("1 failed",), ("failed", "{0}", ".png, .jpg")),
    *(
        Told("mintpain", "label_out_of_range", command, 1, ("mintpain", "'7'", "0 (4", "7 (1", "0, 1, 2, 3, 4"))
        for command in ("check", "extract")
    ),
    Told("xite", "segment_without_label", "check", 1, ("labels: error", "1"), ("{0}", "labels.csv")),
    Told("xite", "segment_without_label", "extract, mended", 0, ("xite: 1 of 13", "labels.csv", "{0}")),
    *(
        Told("xite", "unknown_label", command, 1, ("xite", "'9'", "-6 (1", "9 (1", "0, 1, 2, 3"))
        for command in ("check", "extract")
    ),
    *(Told("folder", "unnamed_subject", command, 1, ("{0}", "pattern")) for command in ("check", "extract")),
    *(
        Told("folder", "unknown_class", command, 1, ("{0}", "'unsure'", "classes", ", ".join(CLASSES), "1 of 7 clips"))
        for command in ("check, mended", "extract, mended")
    ),
    Told("folder", "notes", "check", 1, ("mine: 1 file", "{0}")),
]
TOLERATED = {
    ("biovid", "trailing_blanks"),
    ("biovid-frames", "trailing_blanks"),
    ("unbc", "doubled_folders"),
    ("unbc", "finder_files"),
    ("mintpain", "other_prefix"),
    ("folder", "notes"),
}
"""Scars with which the same clips are found as without: see the tests below."""


def name_of(told: Told) -> str:
    return f"{told.layout}-{told.scar}-{told.by}".replace(", ", "-")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<layout>/{whole,scarred,mended}, as `painseq synth` writes them."""
    trees = tmp_path_factory.mktemp("scars")
    for layout, (amount, _, _) in LAYOUTS.items():
        for kind, scars in (("whole", []), ("scarred", ["--scars"])):
            small = [*amount.split(), "--size-px", "64", "--workers", "1"]
            assert main(["synth", layout, str(trees / layout / kind), *small, *scars]) == 0
        shutil.copytree(trees / layout / "scarred", trees / layout / "mended")
        mend(layout, trees / layout / "mended", scars_of(trees, layout))
    return trees


def scars_of(trees: Path, layout: str) -> dict[str, dict]:
    listed = json.loads((trees / layout / "scarred_truth" / "scars.json").read_text())
    return {scar["name"]: scar for scar in listed}


def mend(layout: str, root: Path, scars: dict[str, dict]) -> None:
    """Mend the scar for which the data set is refused, as the message says; the others stay."""
    if layout.startswith("biovid"):
        name = Path(scars["disagreeing_label"]["where"][0]).name
        text = (root / "samples.csv").read_text()
        (row,) = (line for line in text.splitlines() if name in line)
        (root / "samples.csv").write_text(text.replace(row, row.replace("\t2\tPA2\t", "\t1\tPA1\t")))
    if layout == "ai4pain":
        (root / scars["stray_file"]["where"][0]).unlink()
    if layout == "mintpain":
        place = root / scars["label_out_of_range"]["where"][0]
        place.rename(place.with_name(scars["label_out_of_range"]["what"].split()[-1]))
    if layout == "xite":
        shutil.copy(root.with_name("whole") / "labels.csv", root / "labels.csv")
        forgotten = Path(scars["segment_without_label"]["where"][0]).stem
        lines = (root / "labels.csv").read_text().splitlines(keepends=True)
        (root / "labels.csv").write_text("".join(line for line in lines if not line.startswith(f"{forgotten},")))
    if layout == "folder":
        (root / scars["unnamed_subject"]["where"][0]).unlink()


def data_options(trees: Path, layout: str, kind: str, tiny: str) -> list[str]:
    _, config, options = LAYOUTS[layout]
    data = ["--config", f"configs/data/{config}.yaml", "--config", tiny, *options.split()]
    return [*data, "--data.root", str(trees / layout / kind)]


@pytest.fixture(scope="module")
def results(trees: Path, tiny: str) -> Iterator[dict[tuple[str, str], tuple[int, str]]]:
    """(layout, by) -> exit code and all that the command printed; asked once each."""
    answers = {}
    commands = {"check": ["data", "check", "--deep"], "extract": ["extract"]}
    with pytest.MonkeyPatch.context() as patch:
        # Tables are cut off in a narrow terminal.
        patch.setenv("COLUMNS", "200")
        for layout, by in dict.fromkeys((told.layout, told.by) for told in TOLD):
            command, _, mended = by.partition(", ")
            kind = mended or "scarred"
            out = ["--out", str(trees / "stores" / layout / kind)] if command == "extract" else []
            answers[layout, by] = answer([*commands[command], *data_options(trees, layout, kind, tiny), *out])
    yield answers


def answer(argv: list[str]) -> tuple[int, str]:
    text = io.StringIO()
    handler, log = logging.StreamHandler(text), logging.getLogger("painseq")
    level = log.level
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with redirect_stdout(text), redirect_stderr(text):
            return main(argv), text.getvalue()
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


@pytest.mark.parametrize("told", TOLD, ids=name_of)
def test_a_user_is_told(told, trees, results):
    where = scars_of(trees, told.layout)[told.scar]["where"]
    code, answered = results[told.layout, told.by]
    for parts in told.lines:
        expected = [part.format(*where, name=Path(where[0]).name.removesuffix(".mp4")) for part in parts]
        assert any(all(part in line for part in expected) for line in answered.splitlines()), expected
    assert code == told.code and "Traceback" not in answered


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_scars_there_is_nothing_to_mend(trees, tiny, layout):
    code, answered = answer(["data", "check", "--deep", *data_options(trees, layout, "whole", tiny)])
    assert code == 0 and "error:" not in answered and "WARNING" not in answered
    assert "labels: ok" in answered and "files: ok" in answered and "lengths: ok" in answered


def test_every_scar_has_its_row(trees):
    written = {(layout, scar) for layout in LAYOUTS for scar in scars_of(trees, layout)}
    assert {(told.layout, told.scar) for told in TOLD} | TOLERATED == written


# ---- scars that are tolerated: the same clips as without ----


def clips(module, root: Path, **options) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in module(root, **options).read_manifest()}


@pytest.mark.parametrize("layout", ["biovid", "biovid-frames"])
def test_blanks_in_the_table(trees, layout):
    (_, copy), root = scars_of(trees, layout)["duplicate_clip"]["where"], trees / layout / "mended"
    found, whole = (clips(BioVid, trees / layout / kind, fps=2) for kind in ("mended", "whole"))
    assert found.pop(Path(copy).name.removesuffix(".mp4")) and found == whole
    rows = list(csv.reader((root / "samples.csv").open(newline=""), delimiter="\t"))[1:]
    assert all(row[-1].endswith("  ") for row in rows)
    assert BioVid(root).label_problems() == []


@pytest.mark.parametrize("target", ["frame", "sequence"])
def test_doubled_folders_and_finder_files(trees, target):
    options = {"options": DataOptions(labels="binary"), "target": target, "fps": 25}
    found, whole = (clips(UNBC, trees / "unbc" / kind, **options) for kind in ("scarred", "whole"))
    missing = Path(scars_of(trees, "unbc")["missing_frame_label"]["where"][0])
    frame = f"{missing.parent.parent.name}/{missing.parent.name}/{missing.name.removesuffix('_facs.txt')}"
    del whole[frame if target == "frame" else frame.rpartition("/")[0]]
    assert all(clip.video.startswith("Images/Images/") for clip in found.values())
    here = {name: replace(clip, video=clip.video.replace("Images/Images", "Images")) for name, clip in found.items()}
    assert here == whole


def test_another_prefix(trees):
    other = scars_of(trees, "mintpain")["other_prefix"]
    named, place = other["what"].split()[-1], other["where"][0]
    assert Path(place).name != named
    found, whole = (clips(MIntPAIN, trees / "mintpain" / kind, fps=1) for kind in ("mended", "whole"))
    clip = found.pop(f"{place}/RGB")
    before = whole.pop(f"{Path(place).with_name(named).as_posix()}/RGB")
    assert (clip.subject_id, clip.label) == (before.subject_id, before.label) and found == whole
    assert MIntPAIN(trees / "mintpain" / "mended").label_problems() == []


def test_notes_among_the_videos(trees):
    strange = Path(scars_of(trees, "folder")["unknown_class"]["where"][0]).with_suffix("").as_posix()
    found, whole = (clips(Folder, trees / "folder" / kind) for kind in ("mended", "whole"))
    # Without --data.classes a folder of any name is a class.
    assert found.pop(strange).label == "unsure" and found == whole


def test_a_truncated_recording_hides_no_other_clip(trees):
    removed = {Path(where).with_suffix("").as_posix() for where in scars_of(trees, "ai4pain")["missing_clips"]["where"]}
    found, whole = (clips(AI4Pain, trees / "ai4pain" / kind) for kind in ("mended", "whole"))
    assert found == {name: clip for name, clip in whole.items() if name not in removed} and len(removed) == 1
