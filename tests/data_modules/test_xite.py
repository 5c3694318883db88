"""X-ITE's layout, and where its labels may stand."""

import re
from pathlib import Path

import pytest

from painseq.data.options import DataOptions
from painseq.data_modules import XITE
from painseq.errors import PainseqError

FOUR = DataOptions(labels="heat_four")
LABELS = ["0", "1", "2", "3", "-1", "-2", "-3", "4", "5", "6", "-4", "-5", "-6"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two subjects, one segment a label, from both sides; a scan reads names alone, so the videos are empty."""
    root = tmp_path / "X-ITE"
    rows = ["segment,label"]
    for subject in ("S006", "S007"):
        for number, label in enumerate(LABELS, start=1):
            rows.append(f"{subject}_{number:04d},{label}")
            for modality in ("fvf", "fvs"):
                path = root / modality / subject / f"{subject}_{number:04d}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize(("view", "modality"), [("frontal", "fvf"), ("side", "fvs")])
def test_a_segment_is_a_clip_of_one_view(tree, view, modality):
    clips = {clip.clip_id: clip for clip in XITE(tree, FOUR, view=view, kind="all").read_manifest()}
    assert len(clips) == 26
    clip = clips[f"{modality}/S006/S006_0007"]
    assert (clip.subject_id, clip.label, clip.stimulus) == ("S006", "-3", "electrical")
    assert clip.video == f"{modality}/S006/S006_0007.mp4" and clip.fps is None
    stimuli = {clip.label: clip.stimulus for clip in clips.values()}
    assert {label for label, stimulus in stimuli.items() if stimulus == "heat"} == set("123456")
    assert stimuli["0"] is None


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("phasic", LABELS[:7]), ("tonic", ["0", *LABELS[7:]]), ("all", LABELS)],
)
def test_the_kind_of_pain_is_chosen(tree, kind, labels):
    clips = XITE(tree, FOUR, kind=kind).read_manifest()
    assert [clip.label for clip in clips if clip.subject_id == "S007"] == labels


@pytest.mark.parametrize("labels", XITE.facts.schemes)
def test_each_scheme_takes_its_native_labels(tree, labels):
    data = XITE(tree, DataOptions(labels=labels), kind="all")
    expected = {name: 2 * len(natives) for name, natives in XITE.facts.schemes[labels].items()}
    assert data.scheme.counts(data.manifest) == expected


def test_the_table_may_lie_elsewhere_and_name_the_subject(tree, tmp_path):
    (tree / "fvf" / "S006" / "0001.mp4").touch()
    (tree / "fvf" / "S007" / "0001.mp4").touch()
    table = tmp_path / "mine.csv"
    table.write_text("label, segment\n1.0, S006/0001\n-2, S007/0001.mp4\n0,S006_0002\n")
    clips = {clip.clip_id: clip.label for clip in XITE(tree, FOUR, labels_csv=table).read_manifest()}
    assert clips == {"fvf/S006/0001": "1", "fvf/S007/0001": "-2", "fvf/S006/S006_0002": "0"}
    table.write_text("segment,label\n0001,1\n")
    with pytest.raises(PainseqError, match=r"(?s)mine\.csv.*'0001'.*\b2 videos\b.*\bS006/0001\b"):
        XITE(tree, FOUR, labels_csv=table).read_manifest()


def test_the_labels_may_stand_in_the_names(tree):
    (tree / "labels.csv").unlink()
    for path in (tree / "fvf").rglob("*.mp4"):
        path.unlink()
    for name in ("S006_heat_03", "S006_none_-2"):
        (tree / "fvf" / "S006" / f"{name}.mp4").touch()
    data = XITE(tree, FOUR, pattern=r"(?P<subject>S\d+)/.*_(?P<label>-?\d+)\.mp4")
    assert [(clip.subject_id, clip.label) for clip in data.read_manifest()] == [("S006", "3"), ("S006", "-2")]
    assert data.label_problems() == []
    (tree / "fvf" / "S006" / "other.mp4").touch()
    with pytest.raises(PainseqError, match=r"(?s)fvf/S006/other\.mp4.*\bpattern\b.*'\(\?P<subject>"):
        data.read_manifest()


def test_segments_without_a_label_are_counted_and_told(tree, caplog):
    (tree / "fvf" / "S006" / "S006_0099.mp4").touch()
    (tree / "fvf" / "S006" / "S006_0001.mp4").unlink()
    data = XITE(tree, FOUR)
    assert len(data.read_manifest()) == 13
    assert re.search(r"\b1 of 26\b.*\blabels\.csv\b.*\bfvf/S006/S006_0099\.mp4\b", caplog.text)
    # The row of the video that is gone is no problem: a view may lack some.
    (problem,) = data.label_problems()
    assert "fvf/S006/S006_0099.mp4" in problem and "labels.csv" in problem


@pytest.mark.parametrize("label", ["9", "warm", "1.5"])
def test_an_unknown_label_is_an_error_with_those_found(tree, label):
    text = (tree / "labels.csv").read_text()
    (tree / "labels.csv").write_text(text.replace("S006_0001,0", f"S006_0001,{label}"))
    with pytest.raises(PainseqError, match=rf"(?s)'{label}'.*-3 \(2\b.*\b0, 1, 2, 3\b"):
        _ = XITE(tree, FOUR).manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\n", r"labels\.csv\b.*\bname, class\b.*\bsegment\b.*\blabel\b"),
        ("", r"labels\.csv\b.*\bsegment\b.*\blabel\b"),
        ("segment,label\na,1\na,2\n", r"line 3.*'a'.*\b2\b.*\b1\b"),
        ("segment,label\nS999_0001,1\n", r"labels\.csv\b.*\b26 videos\b.*\bfvf/S006/S006_0001\.mp4\b"),
        ("segment,label\nS006_0001,5\n", r"/fvf\b.*\bkind\b.*\bphasic\b"),
    ],
)
def test_a_table_that_does_not_help_is_an_error(tree, text, message):
    (tree / "labels.csv").write_text(text)
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        XITE(tree, FOUR).read_manifest()


def test_a_table_may_be_saved_by_a_spreadsheet(tree):
    table = tree / "labels.csv"
    text = table.read_text().replace(",", " , ").replace("S006_0001 ", "S006_0001.MP4 ")
    table.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert XITE(tree, FOUR).label_problems() == []
    table.write_text(text.replace(" , ", ";"), encoding="utf-16")
    assert XITE(tree, FOUR).label_problems() == []
    table.write_text(text + "é,1\n", encoding="cp1252")
    with pytest.raises(PainseqError, match=r"(?s)labels\.csv\b.*UTF-8"):
        XITE(tree, FOUR).read_manifest()


def test_no_labels_at_all_is_an_error_that_tells_both_ways(tree):
    (tree / "labels.csv").unlink()
    with pytest.raises(PainseqError, match=r"(?s)labels\.csv\b.*\blabels_csv\b.*\bpattern\b"):
        XITE(tree, FOUR).read_manifest()
    with pytest.raises(PainseqError, match=r"\(\?P<label>"):
        XITE(tree, FOUR, pattern=r"(?P<subject>S\d+)/.*")
    with pytest.raises(PainseqError, match=r"(?s)\blabels_csv\b.*\bpattern\b"):
        XITE(tree, FOUR, pattern="x", labels_csv=tree / "labels.csv")


@pytest.mark.parametrize("below", ["fvf", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tree, below):
    with pytest.raises(PainseqError, match=r"(?s)(?<!of-)\broot\b.*\bfvf\b.*\bfvs\b"):
        XITE(tree / below, FOUR).read_manifest()
    (tree / "empty" / "fvf").mkdir(parents=True)
    with pytest.raises(PainseqError, match=r"<subject>/<segment>\.mp4"):
        XITE(tree / "empty", FOUR).read_manifest()
