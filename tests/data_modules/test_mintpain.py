"""MIntPAIN's layout."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.data.options import DataOptions
from painseq.data_modules import MIntPAIN
from painseq.errors import PainseqError

FIVE = DataOptions(labels="five")


def write_sequence(root: Path, item: str, images: int = 2) -> Path:
    for modality, suffix in (("RGB", "jpg"), ("D", "png"), ("T", "jpg")):
        folder = root / item / modality
        folder.mkdir(parents=True)
        for number in range(images):
            Image.new("L", (1, 1)).save(folder / f"{number}.{suffix}")
    return root / item


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two subjects, one sequence a label."""
    root = tmp_path / "MIntPAIN"
    for subject in ("Sub01", "Sub02"):
        for label in range(5):
            write_sequence(root, f"{subject}/Trial01/{subject}_Trial01_Sweep{label + 1:02d}_Label{label}")
    (root / ".DS_Store").touch()
    (root / "Sub01" / "readme.txt").touch()
    return root


@pytest.mark.parametrize("modality", ["RGB", "D", "T"])
def test_a_sequence_is_a_clip_of_one_modality(tree, modality):
    data = MIntPAIN(tree, FIVE, modality=modality, fps=20.0)
    clips = {clip.clip_id: clip for clip in data.manifest}
    assert len(clips) == 10
    item = f"Sub02/Trial01/Sub02_Trial01_Sweep04_Label3/{modality}"
    clip = clips[item]
    assert (clip.subject_id, clip.label, clip.video, clip.fps) == ("Sub02", "3", item, 20.0)
    assert (clip.stimulus, clip.start_s, clip.end_s) == ("electrical", 0.0, None)
    assert data.label_problems() == []


@pytest.mark.parametrize("labels", MIntPAIN.facts.schemes)
def test_each_scheme_takes_its_native_labels(tree, labels):
    data = MIntPAIN(tree, DataOptions(labels=labels))
    assert data.scheme.counts(data.manifest) == dict.fromkeys(MIntPAIN.facts.schemes[labels], 2)


@pytest.mark.parametrize("name", ["sub3_trial1_Sweep1_Label4", "S3T1_label4", "_Label4", "a Label of its own_Label4"])
def test_what_stands_before_the_label_does_not_matter(tree, name):
    write_sequence(tree, f"Sub03/Trial01/{name}")
    (clip,) = [clip for clip in MIntPAIN(tree, FIVE).manifest if clip.subject_id == "Sub03"]
    assert clip.label == "4"


def test_a_label_out_of_range_is_an_error_with_those_found(tree):
    write_sequence(tree, "Sub01/Trial02/Sub01_Trial02_Sweep01_Label7")
    with pytest.raises(PainseqError, match=r"(?s)'7'.*\b0 \(2\b.*\b7 \(1\b.*\b0, 1, 2, 3, 4\b"):
        _ = MIntPAIN(tree, FIVE).manifest


def test_a_name_of_another_subject_is_told(tree):
    write_sequence(tree, "Sub01/Trial02/Sub2_Trial02_Sweep01_Label0")
    write_sequence(tree, "Sub01/Trial02/Sub1_Trial02_Sweep02_Label0")
    (problem,) = MIntPAIN(tree, FIVE).label_problems()
    assert re.search(r"^Sub01/Trial02/Sub2_Trial02_Sweep01_Label0\b.* Sub01\b", problem)


def test_sequences_without_the_modality_are_counted_and_empty_ones_kept(tree, caplog):
    (tree / "Sub01/Trial02/Sub01_Trial02_Sweep01_Label0" / "RGB").mkdir(parents=True)
    (tree / "Sub01/Trial02/Sub01_Trial02_Sweep02_Label0" / "D").mkdir(parents=True)
    # An empty folder is a clip that cannot be read: `extract` counts and names it.
    assert len(MIntPAIN(tree, FIVE).manifest) == 11
    assert re.search(r"\b1 of 12\b.*\bRGB\b.*\bSub01/Trial02/Sub01_Tri", caplog.text)


def test_what_is_left_of_depth_in_millimetres_is_said(tree, caplog):
    assert MIntPAIN(tree, FIVE, modality="D").read_manifest() and "16" not in caplog.text
    millimetres = np.linspace(500, 1500, 100).astype(np.uint16).reshape(10, 10)
    Image.fromarray(millimetres).save(tree / "Sub01" / "Trial01" / "Sub01_Trial01_Sweep01_Label0" / "D" / "0.png")
    MIntPAIN(tree, FIVE, modality="D").read_manifest()
    assert re.search(r"\bmintpain\b.*\b16 bits?\b.*\b5\b", caplog.text)


def test_a_modality_that_nobody_has_is_an_error_with_those_found(tree):
    with pytest.raises(PainseqError, match=r"(?s)\bDepth\b.*\bD, RGB, T\b.*\bmodality\b"):
        MIntPAIN(tree, FIVE, modality="Depth").read_manifest()


@pytest.mark.parametrize("name", ["notes", "Sub01_Trial01_Sweep09", "Sub01_Trial01_Sweep01_Label0 copy"])
def test_a_folder_named_otherwise_is_an_error_that_says_how(tree, name):
    (tree / "Sub01" / "Trial01" / name).mkdir()
    with pytest.raises(PainseqError, match=rf"(?s)Sub01/Trial01/{name}\b.*<subject>/<trial>/"):
        MIntPAIN(tree, FIVE).read_manifest()


@pytest.mark.parametrize("below", ["Sub01", "Sub01/Trial01", "nowhere"])
def test_the_wrong_root_is_an_error_that_says_which_folder_is_meant(tree, below):
    with pytest.raises(PainseqError, match=r"(?<!of-)\broot\b"):
        MIntPAIN(tree / below, FIVE).read_manifest()


@pytest.mark.parametrize("fps", [0.0, -5.0, float("inf")])
def test_a_frame_rate_that_cannot_be_is_an_error(tree, fps):
    with pytest.raises(PainseqError, match=rf"(?s)\bfps\b.*{fps}"):
        MIntPAIN(tree, FIVE, fps=fps)
