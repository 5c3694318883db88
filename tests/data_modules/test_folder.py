"""The user's own data: class folders, patterns, tables of clips, folders of images."""

import logging
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.data.options import DataOptions
from painseq.data_modules import Folder
from painseq.errors import PainseqError
from painseq.synthetic import FolderPlan, write_folder

NATIVE = DataOptions(labels="native")


@pytest.fixture
def tree(tmp_path: Path):
    """Makes empty files below a root, and returns it."""
    root = tmp_path / "mine"

    def make(*names: str) -> Path:
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return make


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "mine"
    write_folder(root, FolderPlan(subjects=2, trials=1, clip_s=1, fps=2, size_px=64), seed=0)
    return root


def rows(data: Folder):
    return [(clip.clip_id, clip.subject_id, clip.label) for clip in data.read_manifest()]


def test_class_folders_with_the_subject_in_the_files_name(tree):
    root = tree("pain/anna_2.mp4", "calm/ben_1.MOV", "calm/anna_1.avi", "pain/ben_a_b.mkv", ".trash/x.mp4")
    tree("pain/.DS_Store", "pain/._anna_2.mp4", "pain/anna_2.faces.safetensors", "pain/Thumbs.db", "clips.csv")
    data = Folder(root, NATIVE, name="mine")
    assert rows(data) == [
        ("calm/anna_1", "anna", "calm"),
        ("calm/ben_1", "ben", "calm"),
        ("pain/anna_2", "anna", "pain"),
        ("pain/ben_a_b", "ben", "pain"),
    ]
    manifest = data.read_manifest()
    assert manifest.name == "mine" and manifest.subjects == ("anna", "ben")
    assert [clip.video for clip in manifest][1] == "calm/ben_1.MOV" and all(clip.fps is None for clip in manifest)


def test_subject_folders_by_a_pattern(tree):
    root = tree("anna/calm/x.mp4", "ben/pain/take 2/y.mp4", "ben/calm/x.mp4")
    data = Folder(root, NATIVE, pattern=r"(?P<subject>[^/]+)/(?P<label>[^/]+)/.+")
    assert rows(data) == [
        ("anna/calm/x", "anna", "calm"),
        ("ben/calm/x", "ben", "calm"),
        ("ben/pain/take 2/y", "ben", "pain"),
    ]


def test_all_in_one_folder_some_without_a_label(tree):
    root = tree("S01-pain-1.mp4", "S02-calm-1.mp4", "S03-1.mp4")
    data = Folder(root, NATIVE, pattern=r"(?P<subject>S\d+)(-(?P<label>[a-z]+))?-\d+")
    assert [(subject, label) for _, subject, label in rows(data)] == [("S01", "pain"), ("S02", "calm"), ("S03", None)]


def test_classes_come_in_the_order_of_pain_that_the_user_says(tree):
    root = tree("none/a_1.mp4", "high/a_2.mp4", "low/b_1.mp4")
    in_order = ("none", "low", "high")
    assert Folder(root, NATIVE, classes=in_order).scheme.class_names == in_order
    assert Folder(root, NATIVE).scheme.class_names == ("high", "low", "none")
    numbers = tree("../numbers/1/a_1.mp4", "../numbers/0/b_1.mp4").parent / "numbers"
    assert Folder(numbers, NATIVE, classes=(0, 1)).scheme.class_names == ("0", "1")


def test_a_class_without_a_clip_is_told(tree, caplog):
    root = tree("none/a_1.mp4", "high/b_1.mp4")
    with caplog.at_level(logging.WARNING, "painseq"):
        Folder(root, NATIVE, name="mine", classes=("none", "low", "high")).read_manifest()
    assert re.search(r"\bmine\b.*\blow\b.*\bclasses\b", caplog.text)


def test_classes_of_the_users_own_from_the_folders(tree):
    root = tree("rest/a_1.mp4", "calm/b_1.mp4", "hurts/a_2.mp4", "other/b_2.mp4")
    data = Folder(root, DataOptions(labels={"no_pain": ["rest", "calm"], "pain": ["hurts"]}))
    assert data.scheme.class_names == ("no_pain", "pain")
    assert [clip.clip_id for clip in data.manifest] == ["calm/b_1", "hurts/a_2", "rest/a_1"]


def test_the_name_of_a_known_data_set_brings_its_schemes(tree):
    root = tree("BL1/071309_1.mp4", "PA4/071309_2.mp4", "PA4/071814_1.mp4", "PA2/071814_2.mp4")
    data = Folder(root, DataOptions(labels="binary"), name="biovid")
    assert data.scheme.class_names == ("no_pain", "high_pain") and len(data.manifest) == 3


def test_folders_of_images_are_clips_if_their_rate_is_given(tree, caplog):
    root = tree("pain/anna_1/img1.PNG", "pain/anna_1/img2.png", "calm/ben_1.5/a.jpg", "calm/anna_9.mp4")
    clips = Folder(root, NATIVE, fps=12.5).read_manifest().clips
    assert [(clip.clip_id, clip.video, clip.fps) for clip in clips] == [
        ("calm/anna_9", "calm/anna_9.mp4", None),
        ("calm/ben_1.5", "calm/ben_1.5", 12.5),
        ("pain/anna_1", "pain/anna_1", 12.5),
    ]
    with pytest.raises(PainseqError, match=r"(?s)\bpain\b.*/mine\b"):
        Folder(root, NATIVE).read_manifest()
    (root / "calm" / "anna_9.mp4").unlink()
    with pytest.raises(PainseqError, match=r"(?s)images.*\bfps\b"):
        Folder(root, NATIVE).read_manifest()


def test_files_that_are_no_videos_are_left_out_and_counted(tree, caplog):
    root = tree("pain/anna_1.mp4", "calm/ben_1.mp4", "calm/ben_2.mp3", "calm/notes.txt")
    with caplog.at_level(logging.WARNING, "painseq"):
        assert len(Folder(root, NATIVE).read_manifest()) == 2
    assert re.search(r"\b2 files\b.*\.mp4.*\bcalm/ben_2\.mp3\b", caplog.text)


def test_a_folder_that_may_not_be_read_is_not_passed_over(tree, monkeypatch):
    root, scandir = tree("pain/ben/anna_1.mp4", "pain/carl/ben_1.mp4"), os.scandir

    def forbidden(place):
        if Path(place).name == "carl":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(PermissionError, match="carl"):
        Folder(root, NATIVE).read_manifest()


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["pain/anna.mp4"], {}, r"pain/anna\.mp4.*\bpattern\b.*'pain/anna'"),
        (["anna_1.mp4"], {}, r"anna_1\.mp4.*\bpattern\b"),
        (["pane/a_1.mp4"], {"classes": ("calm", "pain")}, r"'pane'.*\bclasses\b.*\bcalm, pain\b"),
        (["pain/a_1.mp4", "calm/a_2.mp4"], {}, r"\b2 clips.*'a'.*\bpattern\b"),
        (["pain/a_1.mp4", "S07/notes.txt"], {}, r"\bS07\b.*/mine\b.*\(1\b"),
        (["pain/a_1.mp4", "pain/a_1.mov"], {}, r"'pain/a_1'.*\(1\b"),
        (["readme.txt"], {}, r"/mine\b.*\.mp4.*(?<!of-)\broot\b"),
    ],
)
def test_a_tree_that_cannot_be(tree, names, more, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        Folder(tree(*names), NATIVE, **more).read_manifest()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pattern": r"(?P<subject>\w+)/.*"}, r"\(\?P<label>"),
        ({"pattern": r"(?P<subject>"}, r"'\(\?P<subject>'.*position 0"),
        ({"classes": ("a", "b", "a")}, r"\bclasses\b.*a, b, a"),
        ({"name": " "}, r"\bname\b.*' '"),
        ({"name": "my/data"}, r"\bname\b.*'my/data'"),
        ({"fps": 0.0}, r"\bfps\b.*\b0"),
    ],
)
def test_an_option_that_cannot_be(tree, more, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        Folder(tree(), NATIVE, **more)


def test_no_such_folder(tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)nowhere\b.*(?<!of-)\broot\b"):
        Folder(tmp_path / "nowhere", NATIVE).read_manifest()


TABLE = "clip_id,subject_id,video,label,part,start_s,end_s\n"


def test_a_table_stands_for_the_folders(tree, tmp_path):
    root = tree("any/where.mp4", "not listed.mp4", "frames/img1.png")
    table = tmp_path / "clips.csv"
    table.write_text(f"{TABLE}a,S1,any/where.mp4,pain,train,2,12\nb,S2,any/where.mp4,,test,,\nc,S3,frames,calm,,,\n")
    first, second, third = Folder(root, NATIVE, manifest=table, fps=20.0).read_manifest()
    assert (first.clip_id, first.label, first.part, first.start_s, first.end_s) == ("a", "pain", "train", 2, 12)
    assert (second.label, second.part, second.fps, third.fps) == (None, "test", None, 20.0)


def test_one_person_is_enough_where_the_table_gives_the_parts(tree, tmp_path):
    table = tmp_path / "clips.csv"
    table.write_text(f"{TABLE}a,S1,a.mp4,pain,test,,\n")
    assert len(Folder(tree("a.mp4"), NATIVE, manifest=table).read_manifest()) == 1


def test_videos_of_the_table_that_are_not_there_are_counted(tree, tmp_path, caplog):
    table = tmp_path / "clips.csv"
    table.write_text(f"{TABLE}a,S1,a.mp4,pain,,,\nb,S2,b.mp4,calm,,,\n")
    with caplog.at_level(logging.WARNING, "painseq"):
        assert len(Folder(tree("a.mp4"), NATIVE, manifest=table).read_manifest()) == 2
    assert re.search(r"\b1 video.*\bb\.mp4\b", caplog.text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", r"clips\.csv\b"),
        ("a,S1,/home/me/a.mp4,pain,,,\n", r"line 2.*'/home/me/a\.mp4'"),
        ("a,S1,../a.mp4,pain,,,\n", r"line 2.*'\.\./a\.mp4'"),
        ("a,S1,C:/a.mp4,pain,,,\n", r"line 2.*'C:/a\.mp4'"),
        ("a,S1,pain\\a.mp4,pain,,,\n", r"line 2.*'pain\\+a\.mp4'"),
        ("a,S1,a.mp4,pain,,,\nb,S1,b.mp4,calm,,,\n", r"\b2 clips.*'S1'.*\bsubject_id\b.*clips\.csv"),
        ("a,S1,a.mp4,pane,,,\nb,S2,b.mp4,calm,,,\n", r"\ba\.mp4.*'pane'.*\bclasses\b"),
        ("a,S1,a.mp4,pain,,x,\n", r"clips\.csv, line 2.*'x'"),
    ],
)
def test_a_table_that_cannot_be(tree, tmp_path, rows, message):
    (tmp_path / "clips.csv").write_text(TABLE + rows)
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        Folder(tree(), NATIVE, manifest=tmp_path / "clips.csv", classes=("calm", "pain")).read_manifest()


def test_a_table_for_features_needs_no_videos(tmp_path, caplog):
    (tmp_path / "clips.csv").write_text("clip_id,subject_id,label\na,S1,pain\nb,S2,calm\n")
    of_features = DataOptions(labels="native", store=tmp_path / "store")
    with caplog.at_level(logging.WARNING, "painseq"):
        clips = Folder(tmp_path, of_features, manifest=tmp_path / "clips.csv", classes=("calm", "pain")).read_manifest()
    assert [(clip.clip_id, clip.video) for clip in clips] == [("a", "a"), ("b", "b")] and not caplog.text
    with pytest.raises(PainseqError, match=r"clips\.csv.*\bvideo\b"):
        Folder(tmp_path, NATIVE, manifest=tmp_path / "clips.csv").read_manifest()


def test_two_sets_of_ones_own_are_two_sets_of_people(tree):
    root = tree("calm/a_1.mp4", "pain/b_1.mp4", "pain/c_1.mp4")
    one, two = (Folder(root, NATIVE, name=name).subjects_seen() for name in ("ward_a", "ward_b"))
    assert one and not one & two


def test_a_generated_tree_is_read_from_its_folders_and_from_its_table(generated):
    folders, table = Folder(generated, NATIVE), Folder(generated, NATIVE, manifest=generated / "clips.csv")
    assert folders.manifest.subjects == table.manifest.subjects == ("p01", "p02")
    assert {clip.clip_id: clip.label for clip in folders.manifest} == {c.clip_id: c.label for c in table.manifest}
    assert all(clip.sex in ("f", "m") and clip.age for clip in table.manifest)


def test_the_scars_of_a_tree_are_told_one_by_one(tmp_path, caplog):
    root = tmp_path / "scarred"
    write_folder(root, FolderPlan(subjects=2, trials=1, clip_s=1, fps=2, size_px=64), seed=0, scars=True)
    data = Folder(root, NATIVE, classes=("no_pain", "low_pain", "high_pain"))
    with pytest.raises(PainseqError, match=r"(?s)recording\.mp4.*\bpattern\b"):
        data.read_manifest()
    for path in root.rglob("recording.mp4"):
        path.unlink()
    with pytest.raises(PainseqError, match=r"(?s)unsure/p0\d_99\.mp4.*'unsure'.*\bclasses\b"):
        data.read_manifest()
    shutil.rmtree(root / "unsure")
    with caplog.at_level(logging.WARNING, "painseq"):
        assert len(data.read_manifest()) == 6
    assert re.search(r"\b1 files?\b.*\bnotes\.txt\b", caplog.text)


WORDS = st.text("ab c.é-", min_size=1, max_size=4).filter(lambda word: word.strip(". ") == word)


@settings(max_examples=30)
@given(clips=st.sets(st.tuples(WORDS, WORDS, WORDS), min_size=2, max_size=12))
def test_every_file_is_one_clip_of_its_folder_and_subject(tmp_path_factory, clips):
    root = tmp_path_factory.mktemp("any")
    for label, subject, number in clips:
        (root / label).mkdir(exist_ok=True)
        (root / label / f"{subject}_{number}.mp4").touch()
    if len({subject for _, subject, _ in clips}) == 1:
        with pytest.raises(PainseqError, match="subject"):
            Folder(root, NATIVE).read_manifest()
        return
    found = Folder(root, NATIVE).read_manifest()
    assert Counter((clip.label, clip.subject_id) for clip in found) == Counter((label, who) for label, who, _ in clips)
    assert all(found.path(clip).is_file() for clip in found)
