"""UNBC-McMaster's layout, its frames, windows and sequences, and what its labels say of each other."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from painseq.data.options import DataOptions
from painseq.data_modules import UNBC
from painseq.data_modules.unbc import find_sequences, pspi_disagreements, pspi_of, read_facs
from painseq.errors import PainseqError
from painseq.faces import FaceCrops, FullFrame

ITEM = "042-ll042/ll042t1aaaff"
BINARY, VAS = DataOptions(labels="binary"), DataOptions(labels="vas_three")


def write_sequence(root: Path, item: str, pspi: list[float], vas: str = "3.0000000e+00\n") -> None:
    """Images of one pixel, whose grey is their number; a PSPI file each; an AU4 of that intensity, or an empty file."""
    name = item.split("/")[1]
    for place in ("Images", "Frame_Labels/PSPI", "Frame_Labels/FACS"):
        (root / place / item).mkdir(parents=True)
    for number, value in enumerate(pspi, start=1):
        stem = f"{name}{number:03d}"
        Image.new("L", (1, 1), number).save(root / "Images" / item / f"{stem}.png")
        (root / "Frame_Labels" / "PSPI" / item / f"{stem}_facs.txt").write_text(f"   {value:.7e}\n")
        facs = f"   4.0000000e+00   {value:.7e}   0.0   0.0\n" if value else ""
        (root / "Frame_Labels" / "FACS" / item / f"{stem}_facs.txt").write_text(facs)
    for scale in ("VAS", "OPR", "AFF", "SEN"):
        path = root / "Sequence_Labels" / scale / f"{item}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(vas if scale == "VAS" else "1.0000000e+00\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two subjects; five, three and four frames."""
    root = tmp_path / "UNBC"
    write_sequence(root, ITEM, [0, 0, 1, 4, 2])
    write_sequence(root, "042-ll042/ll042t1aeunaff", [0, 0, 0], vas="0\n")
    write_sequence(root, "043-jh043/jh043t2abaff", [5, 0, 0, 0], vas="7.5")
    return root


def labels_of(data: UNBC) -> dict[str, str | None]:
    return {clip.clip_id: clip.label for clip in data.read_manifest()}


def test_each_frame_is_a_clip_with_its_pspi(tree):
    clips = UNBC(tree, BINARY, target="frame").read_manifest().clips
    assert len(clips) == 12
    fourth = clips[3]
    assert (fourth.clip_id, fourth.subject_id, fourth.label) == (f"{ITEM}/ll042t1aaaff004", "042-ll042", "4")
    assert (fourth.video, fourth.start_s, fourth.end_s) == (f"Images/{ITEM}", 3 / 25, 3.5 / 25)
    assert (fourth.fps, fourth.stimulus, fourth.part) == (25.0, "clinical", None)
    assert UNBC(tree, BINARY, target="frame").scheme.counts(clips) == {"no_pain": 8, "high_pain": 4}


@pytest.mark.parametrize("sampled_fps", [None, 25.0, 30.0, 10.0])
@pytest.mark.parametrize("fps", [25.0, 29.97, 7.0])
def test_a_clip_of_a_frame_shows_this_frame_alone(tree, fps, sampled_fps):
    face = FaceCrops(FullFrame(), size_px=1, margin=0.0)
    options = DataOptions(labels="binary", view="pixels", face=face)
    data = UNBC(tree, options, target="frame", fps=fps)
    manifest = data.manifest
    for clip in manifest.clips[:5]:
        (chunk,) = face.clip(manifest.path(clip), clip.start_s, clip.end_s, sampled_fps, image_fps=clip.fps)
        assert set(chunk.crops[:, 0, 0, 0].tolist()) == {int(clip.clip_id[-3:])}


def test_windows_have_the_highest_pspi_in_them(tree):
    data = UNBC(tree, BINARY, target="window", fps=1.0, window_s=3.0, stride_s=1.0)
    assert labels_of(data) == {
        f"{ITEM}#0-3": "1",
        f"{ITEM}#1-4": "4",
        f"{ITEM}#2-5": "4",
        "042-ll042/ll042t1aeunaff#0-3": "0",
        "043-jh043/jh043t2abaff#0-3": "5",
        "043-jh043/jh043t2abaff#1-4": "0",
    }
    second = data.read_manifest().clips[1]
    assert (second.start_s, second.end_s, second.fps) == (1.0, 3.5, 1.0)


def test_sequences_shorter_than_a_window_are_counted(tree, caplog):
    data = UNBC(tree, BINARY, target="window", fps=2.0, window_s=2.0, stride_s=1.0)
    assert list(labels_of(data)) == [f"{ITEM}#0-4", "043-jh043/jh043t2abaff#0-4"]
    assert re.search(r"\bunbc\b.*\b1 sequence.*\bwindow_s\b.*\b2 s\b", caplog.text)


def test_sequences_have_their_rating_or_the_highest_pspi(tree):
    whole = UNBC(tree, BINARY, target="sequence")
    assert list(labels_of(whole).values()) == ["4", "0", "5"]
    (first, *_) = whole.read_manifest()
    assert (first.clip_id, first.start_s, first.end_s) == (ITEM, 0.0, None)
    rated = UNBC(tree, VAS, target="sequence", label="vas")
    assert list(labels_of(rated).values()) == ["3", "0", "7.5"]
    assert rated.scheme.counts(rated.manifest) == {"no_pain": 1, "low_pain": 1, "high_pain": 1}
    for label in ("opr", "aff", "sen"):
        data = UNBC(tree, DataOptions(labels=f"{label}_three"), target="sequence", label=label)
        assert data.scheme.counts(data.manifest) == {"no_pain": 0, "low_pain": 3, "high_pain": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "frame", "label": "vas"}, r"\blabel\b.*\bvas\b.*\btarget\b.*\bframe\b"),
        (
            {"target": "sequence", "label": "vas", "options": DataOptions(labels="three")},
            r"\bvas\b.*'three'.*\bpspi\b.*\blabels\b.*\bvas_binary, vas_three, vas_four, vas\b",
        ),
        (
            {"options": VAS},
            r"\bpspi\b.*'vas_three'.*\bvas\b.*\blabels\b.*\bbinary, three, four, pspi\b",
        ),
        ({"fps": 0.0}, r"\bfps\b.*\b0"),
        ({"stride_s": -1.0}, r"\bstride_s\b.*-1"),
        ({"window_s": float("nan")}, r"\bwindow_s\b.*\bnan\b"),
    ],
)
def test_what_does_not_go_together_is_an_error(tree, change, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        UNBC(tree, **{"options": BINARY, **change})


def test_doubled_folders_and_finders_files_are_tolerated(tree):
    for name in ("Images", "Frame_Labels", "Sequence_Labels"):
        (tree / name).rename(tree / "moved")
        (tree / name).mkdir()
        (tree / "moved").rename(tree / name / name)
    for folder in (tree, tree / "Images", tree / "Images" / "Images", tree / "Images" / "Images" / ITEM):
        (folder / ".DS_Store").touch()
    (tree / "Images" / "Images" / "042-ll042" / ".thumbnails").mkdir()
    data = UNBC(tree, BINARY, target="frame")
    assert len(data.manifest) == 12 and data.label_problems() == []
    assert all(data.manifest.path(clip).is_dir() for clip in data.manifest)
    assert len(UNBC(tree, VAS, target="sequence", label="vas").manifest) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "missing"), ("", "''"), ("1 2", "'1 2'"), ("nan", "'nan'")],
)
def test_frames_without_a_label_take_no_part_and_are_told(tree, content, reason, caplog):
    path = tree / "Frame_Labels" / "PSPI" / ITEM / "ll042t1aaaff003_facs.txt"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    data = UNBC(tree, BINARY, target="frame")
    assert len(data.manifest) == 11 and f"{ITEM}/ll042t1aaaff003" not in labels_of(data)
    assert re.search(r"\bunbc\b.*\b1 frame.*\bPSPI\b", caplog.text)
    (problem,) = data.label_problems()
    for part in (ITEM, "1 of 5", f"Frame_Labels/PSPI/{ITEM}/ll042t1aaaff003_facs.txt", reason):
        assert part in problem
    windows = UNBC(tree, BINARY, target="window", fps=1.0, window_s=2.0, stride_s=1.0)
    assert [clip_id for clip_id in labels_of(windows) if clip_id.startswith(ITEM)] == [f"{ITEM}#0-2", f"{ITEM}#3-5"]
    assert list(labels_of(UNBC(tree, BINARY, target="sequence"))) == [
        "042-ll042/ll042t1aeunaff",
        "043-jh043/jh043t2abaff",
    ]


def test_a_sequence_without_a_rating_takes_no_part_and_is_told(tree, caplog):
    (tree / "Sequence_Labels" / "VAS" / f"{ITEM}.txt").unlink()
    data = UNBC(tree, VAS, target="sequence", label="vas")
    assert len(data.manifest) == 2 and re.search(r"\b1 sequence.*\bVAS\b", caplog.text)
    (problem,) = data.label_problems()
    assert problem.startswith(ITEM) and f"Sequence_Labels/VAS/{ITEM}.txt" in problem


def test_pspi_files_are_compared_with_the_action_units(tree):
    facs = tree / "Frame_Labels" / "FACS" / ITEM
    (facs / "ll042t1aaaff004_facs.txt").write_text("")
    (facs / "ll042t1aaaff005_facs.txt").write_text("6.0 1.0\n7.0 2.0\n12.0 3.0\n")
    (facs / "ll042t1aaaff003_facs.txt").write_text("none\n")
    third, fourth = pspi_disagreements(tree)
    assert (fourth.sequence, fourth.frame, fourth.pspi, fourth.from_facs) == (ITEM, "ll042t1aaaff004", 4.0, "0")
    assert re.search(r"\bll042t1aaaff003_facs\.txt, line 1\b.*'none'", third.from_facs)
    (problem,) = UNBC(tree, BINARY).label_problems()
    assert re.search(r"\b2 frames\b.*\bll042t1aaaff003\b.*\bPSPI 1\b", problem)


def test_pspi_by_hand():
    assert pspi_of({}) == 0
    assert pspi_of({4: 2, 6: 1, 7: 3, 9: 2, 10: 1, 12: 5, 43: 1}) == 2 + 3 + 2 + 1
    assert pspi_of({43: 5}) == 1 and pspi_of({43: 0}) == 0 and pspi_of({25: 5, 26: 3}) == 0


@given(units=st.dictionaries(st.integers(1, 64), st.integers(0, 5)))
def test_pspi_lies_on_its_scale_and_grows_with_each_unit(units):
    assert 0 <= pspi_of(units) <= 16
    for unit in units:
        assert pspi_of({**units, unit: 5}) >= pspi_of(units)


def test_facs_rows(tmp_path):
    path = tmp_path / "x_facs.txt"
    path.write_text("   4.0000000e+00   2.0000000e+00   1   5\n\n6,3\n6 1\n")
    assert read_facs(path) == {4: 2.0, 6: 3.0}
    path.write_text("")
    assert read_facs(path) == {}
    path.write_text("4\n")
    with pytest.raises(PainseqError, match=r"(?s)x_facs\.txt, line 1.*'4'"):
        read_facs(path)


def test_frames_come_in_the_natural_order_of_their_names(tree):
    folder = tree / "Images" / ITEM
    for number in (9, 10, 100):
        shutil.copy(folder / "ll042t1aaaff001.png", folder / f"ll042t1aaaff{number}.png")
    frames = find_sequences(tree)[0].frames
    assert [frame.removeprefix("ll042t1aaaff") for frame in frames] == [
        "001",
        "002",
        "003",
        "004",
        "005",
        "9",
        "10",
        "100",
    ]


def test_a_folder_without_images_is_counted(tree, caplog):
    (tree / "Images" / "043-jh043" / "empty").mkdir()
    assert len(UNBC(tree, BINARY, target="frame").read_manifest()) == 12
    assert re.search(r"\b1 folder.*\bImages/043-jh043/empty\b", caplog.text)


def test_a_folder_that_is_no_subject_is_an_error(tree):
    (tree / "Images" / "backup").mkdir()
    with pytest.raises(PainseqError, match=r"(?s)Images/backup.*Images/<number>-<init"):
        UNBC(tree, BINARY).read_manifest()


@pytest.mark.parametrize("below", ["Images", "Frame_Labels", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tree, below):
    with pytest.raises(PainseqError, match=r"(?s)(?<!of-)\broot\b.*Frame_Labels.*Sequence_Labels"):
        UNBC(tree / below, BINARY).read_manifest()


def test_nothing_to_learn_from_is_an_error(tree):
    for path in (tree / "Frame_Labels" / "PSPI").rglob("*.txt"):
        path.write_text("")
    with pytest.raises(PainseqError, match=r"(?s)\b3 sequences\b.*\b12\b.*\bPSPI\b"):
        UNBC(tree, BINARY, target="frame").read_manifest()
    shutil.rmtree(tree / "Sequence_Labels")
    with pytest.raises(PainseqError, match="Sequence_Labels/VAS"):
        UNBC(tree, VAS, target="sequence", label="vas").read_manifest()
    shutil.rmtree(tree / "Images")
    (tree / "Images").mkdir()
    with pytest.raises(PainseqError, match=r"<subject>/<sequence>/<frame>\.png"):
        UNBC(tree, BINARY).read_manifest()


def test_a_partly_doubled_folder_is_refused_and_a_doubled_subject_read(tree):
    subject = tree / "Images" / "043-jh043"
    (subject / "043-jh043").mkdir()
    (subject / "jh043t2abaff").rename(subject / "043-jh043" / "jh043t2abaff")
    assert "043-jh043/jh043t2abaff/jh043t2abaff001" in labels_of(UNBC(tree, BINARY, target="frame"))
    (tree / "Images" / "Images" / "047-jl047").mkdir(parents=True)
    with pytest.raises(PainseqError, match=r"(?s)\bImages\b.* 04\d-.*\(2\b"):
        UNBC(tree, BINARY, target="frame").read_manifest()


def test_a_rating_beyond_its_scale_is_an_error(tree):
    (tree / "Sequence_Labels" / "VAS" / "043-jh043" / "jh043t2abaff.txt").write_text("11\n")
    data = UNBC(tree, DataOptions(labels="vas_binary"), target="sequence", label="vas")
    with pytest.raises(PainseqError, match=r"(?s)'11'.*\b0\.\.10\b"):
        _ = data.manifest
