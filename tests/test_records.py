import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.records import Clip, Manifest, doubtful_subjects, plain_name, read_manifest, shared_people

text = st.text("abcXYZ012_-#/. ,\"'é", min_size=1, max_size=12).map(str.strip).filter(bool)
plain = st.text("abcXYZ012_-#é", min_size=1, max_size=12)
clips = st.builds(
    Clip,
    clip_id=text,
    subject_id=plain,
    video=plain,
    label=st.none() | text,
    start_s=st.floats(0, 1e4),
    end_s=st.none() | st.floats(1e4 + 1, 1e5),
    fps=st.none() | st.floats(1, 120),
    stimulus=st.none() | text,
    sex=st.none() | st.sampled_from("fm"),
    age=st.none() | st.integers(0, 110),
    part=st.sampled_from([None, "train", "validation", "test"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(clips, max_size=8, unique_by=lambda clip: clip.clip_id))
def test_a_manifest_comes_back_from_its_csv(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    manifest = Manifest("set", Path("root"), tuple(made))
    manifest.write_csv(path)
    assert read_manifest(path, Path("root"), "set") == manifest


def test_the_fingerprint_ignores_row_order_and_sees_labels():
    rows = [Clip(str(i), f"s{i % 3}", f"{i}.mp4", label="BL1") for i in range(9)]
    one = Manifest("set", Path("a"), tuple(rows))
    random.Random(0).shuffle(rows)
    assert Manifest("set", Path("b"), tuple(rows)).fingerprint() == one.fingerprint()
    rows[0] = Clip(rows[0].clip_id, rows[0].subject_id, rows[0].video, label="PA4")
    assert Manifest("set", Path("a"), tuple(rows)).fingerprint() != one.fingerprint()


def test_a_clip_id_stands_for_one_clip():
    with pytest.raises(PainseqError, match="'x'"):
        Manifest("set", Path(), (Clip("x", "a", "1.mp4"), Clip("x", "b", "2.mp4")))


def test_a_table_is_read_as_spreadsheets_leave_it(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("\ufeffclip_id, subject_id ,video,label\r\n1, Jörg ,a.mp4,no\r\n\r\n,,,\r\n", encoding="utf-8")
    assert read_manifest(path, tmp_path, "set").clips == (Clip("1", "Jörg", "a.mp4", "no"),)


def test_a_table_in_another_encoding_is_an_error_that_says_which_is_meant(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("clip_id,subject_id,video\n1,Jörg,a.mp4\n", encoding="cp1252")
    with pytest.raises(PainseqError, match=r"m\.csv.*UTF-8"):
        read_manifest(path, tmp_path, "set")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("clip_id,subject_id\n1,a\n", r"(?i)m\.csv.*missing[^;.]*\bvideo\b"),
        ("clip_id|subject_id|video\n1|a|v\n", r"m\.csv.*clip_id\|subject_id\|video"),
        ("clip_id,subject_id,video,colour\n1,a,v,red\n", r"m\.csv.*\bcolour\b"),
        ("clip_id,subject_id,video,start_s\n1,a,v,soon\n", r"m\.csv\D*\b2\b.*'soon'"),
        ("clip_id,subject_id,video,part\n1,a,v,trian\n", r"m\.csv\D*\b2\b.*\bpart\b.*'trian'"),
        ("clip_id,subject_id,video,start_s,end_s\n1,a,v,5,4\n", r"m\.csv\D*\b2\b.*\bend_s\D*4\.0.*\bstart_s\D*5\.0"),
        ("clip_id,subject_id,video\n1,,v\n", r"m\.csv\D*\b2\b.*\bsubject_id\b.*''"),
        ("clip_id,subject_id,video,sex\n1,a,v,w\n", r"m\.csv\D*\b2\b.*\bsex\b.*'w'"),
        ("clip_id,subject_id,video,age\n1,a,v,40\n2,b,v,999\n", r"m\.csv\D*\b3\b.*\bage\b.*\b999\b.*\b120\b"),
        ("clip_id,subject_id,video,age\n1,a,v,-1\n", r"m\.csv\D*\b2\b.*\bage\b.*-1\b"),
    ],
)
def test_a_bad_manifest_is_an_error_with_its_line(tmp_path, content, pattern):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(PainseqError, match=pattern):
        read_manifest(path, tmp_path, "set")


def test_sex_is_read_in_the_usual_words(tmp_path):
    """Another word than f and m would drop out of the scores by sex unseen."""
    path = tmp_path / "m.csv"
    path.write_text("clip_id,subject_id,video,sex\n1,a,v,Female\n2,b,v,M\n3,c,v,\n")
    assert [clip.sex for clip in read_manifest(path, tmp_path, "set")] == ["f", "m", None]


SAME_PERSON = [
    *("p01", "P01 ", "P01\u00a0", "P01\t"),
    *("P\u200b01", "\ufeffP01", "P01\u2060", "P\ufe0f01", "\uff30\uff10\uff11"),
]
"""P01 in other capitals, with blanks, invisible characters, and full-width letters."""


@pytest.mark.parametrize("other", SAME_PERSON)
def test_one_person_under_two_spellings_is_an_error(other):
    clips = (Clip("a", "P01", "a.mp4"), Clip("b", other, "b.mp4"))
    with pytest.raises(PainseqError, match=rf"mine.*'P01'.*{re.escape(repr(other))}"):
        Manifest("mine", Path(), clips)


@pytest.mark.parametrize("other", SAME_PERSON)
def test_the_same_person_is_recognised_across_lists(other):
    assert shared_people([f"mine/{other}"], ["Mine/P01"]) == [f"mine/{other}"]
    assert shared_people([f"mine/{other}"], ["yours/P01", "mine/P1", "mine/P02"]) == []


@given(st.text(max_size=8))
def test_a_normalised_name_stays_as_it_is(name):
    assert plain_name(plain_name(name)) == plain_name(name) == plain_name(f" {name} ")


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("p1", "P-01", True), ("s_1", "S 001", True), ("1", "1.0", True), ("1-11", "11-1", False), ("p1", "p10", False)],
)
def test_almost_the_same_name_is_doubtful(one, other, alike):
    manifest = Manifest("mine", Path(), (Clip("a", one, "a.mp4"), Clip("b", other, "b.mp4")))
    doubts = doubtful_subjects(manifest)
    assert len(doubts) == alike and all(repr(one) in text and repr(other) in text for text in doubts)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [((0, None), (0, None), True), ((0, 5), (0, 5), True), ((0, 5), (4, 8), True), ((1, None), (6, 7), True),
     ((0, 5), (5, 10), False), ((0, 5.04), (5, 10), False)],
)  # fmt: skip
@pytest.mark.parametrize("other", ["a.mp4", "./a.mp4"])
def test_the_same_seconds_of_a_file_show_one_person(first, second, shared, other):
    clips = (Clip("a", "p", "a.mp4", None, *first), Clip("b", "q", other, None, *second), Clip("c", "q", "c.mp4"))
    if shared:
        with pytest.raises(PainseqError, match=r"'a'.*'p'.*'b'.*'q'.*a\.mp4"):
            doubtful_subjects(Manifest("mine", Path(), clips))
    else:
        (doubt,) = doubtful_subjects(Manifest("mine", Path(), clips))
        assert "a.mp4" in doubt and "p, q" in doubt
    assert doubtful_subjects(Manifest("mine", Path(), clips[1:])) == []


def test_a_letter_has_one_encoding():
    clips = (Clip("a", "Jos\u00e9", "a.mp4"), Clip("b", "Jose\u0301", "b.mp4"))
    with pytest.raises(PainseqError, match=r"mine.*'Jos\w+.?'.*'Jos\w+.?'"):
        Manifest("mine", Path(), clips)


@pytest.mark.parametrize("column", ["video", "au_truth"])
@pytest.mark.parametrize("path", ["/home/klinik/meyer.mp4", "../../secret.mp4", "C:\\a.mp4", "a\\b.mp4"])
def test_a_table_names_no_place_outside_the_root(tmp_path, column, path):
    cells = {"clip_id": "a", "subject_id": "s", "video": "a.mp4", column: path}
    (tmp_path / "clips.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    with pytest.raises(PainseqError, match=rf"clips\.csv\D*\b2\b.*{column}.*{re.escape(repr(path))}"):
        read_manifest(tmp_path / "clips.csv", tmp_path, "mine")
