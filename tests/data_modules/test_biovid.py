"""BioVid's layout."""

import re
from pathlib import Path

import pytest

from data_modules import BioVid
from painseq.datamodule import DataOptions
from painseq.errors import PainseqError
from painseq.labels import SCHEMES

NAMES = ("071309_w_21", "082414_m_64")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two real names, one clip a class; a scan reads names alone, so the files are empty."""
    for subject in NAMES:
        folder = tmp_path / "PartA" / "video" / subject
        folder.mkdir(parents=True)
        for number, label in enumerate(("BL1", "PA1", "PA2", "PA3", "PA4"), start=81):
            (folder / f"{subject}-{label}-{number:03d}.mp4").touch()
    return tmp_path


def test_a_clip_tells_who_it_shows_and_what_hurt(tree):
    clips = {clip.clip_id: clip for clip in BioVid(tree).read_manifest()}
    assert len(clips) == 10
    clip = clips["071309_w_21-BL1-081"]
    assert (clip.subject_id, clip.label, clip.sex, clip.age, clip.stimulus) == ("071309_w_21", "BL1", "f", 21, "heat")
    assert clip.video == "PartA/video/071309_w_21/071309_w_21-BL1-081.mp4" and clip.end_s is None and clip.part is None
    assert (clips["082414_m_64-PA4-085"].sex, clips["082414_m_64-PA4-085"].age) == ("m", 64)


@pytest.mark.parametrize("labels", SCHEMES["biovid"])
def test_each_scheme_takes_its_native_labels(tree, labels):
    data = BioVid(tree, DataOptions(labels=labels))
    natives = [native for natives in SCHEMES["biovid"][labels].values() for native in natives]
    assert sorted(clip.label for clip in data.manifest) == sorted(natives * 2)
    assert data.scheme.counts(data.manifest) == dict.fromkeys(SCHEMES["biovid"][labels], 2)


def test_a_generated_tree_is_read_as_a_real_one(heat):
    manifest = BioVid(heat).read_manifest()
    assert len(manifest) == 25 and len(manifest.subjects) == 5
    assert all(manifest.path(clip).is_file() for clip in manifest)


@pytest.mark.parametrize(
    "name", ["holiday.mp4", "071309_w_21-BL1.mp4", "071309_w_21-BL1-081 (copy).mp4", "082414_m_64-BL1-001.mp4"]
)
def test_a_file_named_otherwise_is_an_error_that_says_how(tree, name):
    (tree / "PartA" / "video" / "071309_w_21" / name).touch()
    expected = rf"{re.escape(name)} is not named as a BioVid sample: expected 071309_w_21-<BL1\|PA1..PA4>-<number>.mp4"
    with pytest.raises(PainseqError, match=expected):
        BioVid(tree).read_manifest()


def test_other_files_are_left_alone(tree):
    for name in (".DS_Store", "PartA/samples.csv", "PartA/video/071309_w_21/notes.txt"):
        (tree / name).touch()
    assert len(BioVid(tree).read_manifest()) == 10


def test_a_label_that_biovid_has_not_is_an_error_with_those_found(tree):
    (tree / "PartA" / "video" / NAMES[0] / f"{NAMES[0]}-PA7-099.mp4").touch()
    with pytest.raises(PainseqError, match=r"unknown label 'PA7'. Found: BL1 \(2 clips\).*PA7 \(1 clips\); known: BL1"):
        _ = BioVid(tree).manifest


@pytest.mark.parametrize("below", ["PartA", "PartA/video", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tree, below):
    with pytest.raises(PainseqError, match=r"--data\.root is the folder that holds PartA"):
        BioVid(tree / below).read_manifest()


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "PartA" / "video").mkdir(parents=True)
    with pytest.raises(PainseqError, match=r"holds no <subject>/<sample>\.mp4"):
        BioVid(tmp_path).read_manifest()
