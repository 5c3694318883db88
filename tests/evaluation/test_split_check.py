"""Whoever and whatever is on both sides of a split is found; a clean split is left alone."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.evaluation.split_check import Member, check_contents, check_members, check_seen, joined, read_table


def severities(findings):
    return [finding.severity for finding in findings]


NAMES = st.text("aAbB019 _-é", min_size=1, max_size=5).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["train", "validation", "test"]), NAMES), max_size=12))
def test_a_leak_is_told_just_where_a_spelling_is_in_two_parts(rows):
    def plain(name):
        return " ".join(name.lower().split())

    parts = {}
    for part, name in rows:
        parts.setdefault(plain(name), set()).add(part)
    found = [f for f in check_members([Member(part, name) for part, name in rows]) if f.severity == "leak"]
    several = [name for name, of in parts.items() if len(of) > 1]
    assert sum(len(finding.items) for finding in found) == len(several)


@pytest.mark.parametrize("other", ["s01", " S01", "S01 ", "S01", "S\u200b01", "\uff33\uff10\uff11"])
def test_spelling_does_not_hide_a_subject(other):
    assert severities(check_members([Member("train", "S01"), Member("test", other)])) == ["leak"]


def test_the_encoding_of_a_letter_does_not_hide_a_subject():
    assert severities(check_members([Member("train", "Zo\u00eb"), Member("test", "Zoe\u0308")])) == ["leak"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("S1", "S01"), ("s_1", "S1"), ("p-007", "P7"), ("071309_w_21", "071309w21"), ("1", "1.0"), ("07", "7.0")],
)
def test_names_that_are_almost_the_same_are_suspicious(one, other):
    findings = check_members([Member("train", one), Member("test", other)])
    assert severities(findings) == ["suspicious"]
    assert one in findings[0].items[0] and other in findings[0].items[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [("S1", "S2"), ("S10", "S1"), ("S100", "S10"), ("1.0", "10"), ("1.0", "1.5"), ("071309_w_21", "071309_w_22")],
)
def test_other_names_are_other_people(one, other):
    assert check_members([Member("train", one), Member("test", other)]) == []


def test_almost_the_same_name_in_one_part_is_left_alone():
    assert check_members([Member("train", "S1"), Member("train", "S01"), Member("test", "S2")]) == []


def test_clips_frames_and_videos_in_several_parts():
    findings = check_members(
        [
            Member("train", "a", "a/1", "one.mp4"),
            Member("test", "b", "A/1", "./two.mp4"),
            Member("train", "c", "c/1@0.500", "two.mp4"),
            Member("test", "d", "c/1@1.000"),
        ]
    )
    assert severities(findings) == ["leak", "leak", "leak"]
    assert all(word in finding.text for word, finding in zip(("clips", "frames", "videos"), findings, strict=True))
    assert findings[0].items == ("A/1 = a/1 (test, train)",)
    assert findings[1].items == ("c/1 (test, train)",)


def test_parts_are_compared_within_a_fold():
    rows = [("0", "test", "a"), ("0", "train", "b"), ("1", "train", "a"), ("1", "test", "b")]
    assert check_members([Member(part, who, fold=fold) for fold, part, who in rows]) == []
    (found,) = check_members([Member(part, who, fold=fold) for fold, part, who in [*rows, ("1", "train", "b")]])
    assert found.items == ("b (test, train; fold 1)",)


def test_people_whom_a_model_has_seen():
    scored = [Member("scored", "S01"), Member("scored", "S2")]
    assert check_seen(scored, ["S09", "S8"], "The model was fitted on") == []
    leak, alike = check_seen(scored, ["s01", "S02"], "The model was fitted on")
    assert leak.severity == "leak" and leak.items == ("S01 = s01",)
    assert alike.severity == "suspicious" and "S2" in alike.items[0]


# ---- copies ----


@pytest.fixture
def videos(tmp_path) -> Path:
    for name, content in {"a": b"one", "b": b"two", "copy_of_a": b"one", "again_b": b"two", "c": b"three"}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    return tmp_path


def member(part, subject, video):
    return Member(part, subject, video=f"{video}.mp4")


def test_copies_are_found_by_content(videos):
    rows = [member("train", "s1", "a"), member("test", "s2", "copy_of_a"), member("test", "s3", "c")]
    leak, suspicious = check_contents(rows, videos)
    assert leak.severity == "leak" and leak.items == ("a.mp4 = copy_of_a.mp4 (test, train)",)
    assert suspicious.severity == "suspicious" and suspicious.items == ("a.mp4 = copy_of_a.mp4 (s1, s2)",)
    assert check_members(rows) == []


def test_a_copy_within_a_part_and_subject_is_left_alone(videos):
    rows = [member("train", "s1", "b"), member("train", "s1", "again_b"), member("test", "s2", "c")]
    assert check_contents(rows, videos) == []
    # One video of several clips is no copy.
    assert check_contents([member("train", "s1", "a"), member("train", "s1", "a")], videos) == []


def test_a_video_that_is_not_there_is_no_clean_bill(videos):
    with pytest.raises(PainseqError, match=r"absent\.mp4"):
        check_contents([member("train", "s1", "absent")], videos)
    with pytest.raises(PainseqError, match="root"):
        check_contents([Member("train", "s1")], videos)


# ---- reading ----


@pytest.fixture
def table(tmp_path):
    def write(text, name="clips.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    "heads", ["subject_id,part", "Subject,Split", "participant,set", "patient_id,fold", "patient,partition"]
)
def test_columns_are_guessed_by_their_names(table, heads):
    read = read_table(table(f"{heads}\nS01,Train\nS02,TEST\nS03,\n"))
    assert read.kind == "table"
    assert [(member.part, member.subject) for member in read.members] == [("train", "S01"), ("test", "S02")]


def test_fold_and_part_together_are_parts_within_folds(table):
    read = read_table(table("fold,part,subject,clip,video\n3,train,S01,c1,v1.mp4\n"))
    assert read.members == (Member("train", "S01", "c1", "v1.mp4", "3"),)


def test_columns_that_are_named_count(table):
    path = table("who,where,part\nS01,left,x\nS01,right,x\n")
    read = read_table(path, "who", "where")
    assert severities(check_members(read.members)) == ["leak"]
    with pytest.raises(PainseqError, match=r"(?s)'nobody'.*who, where, part"):
        read_table(path, "nobody")


def test_a_table_with_labels_and_no_parts_is_predictions(table):
    read = read_table(table("clip_id,subject_id,label\nc1,S01,pain\n"))
    assert read.kind == "predictions" and read.members[0].part == "scored" and not read.marks
    marked = read_table(table("clip_id,subject_id,label,protocol\nc1,S01,pain,frame_kfold_LEAKY\n"))
    assert marked.marks[0].severity == "leak"


def test_tables_without_parts_are_a_part_each_or_belong_to_a_split(table):
    train, test = table("subject,clip\nS01,a\nS02,b\n", "train.csv"), table("subject,clip\nS02,c\n", "test.csv")
    tables = [read_table(train), read_table(test)]
    (found,) = check_members(joined(tables))
    assert found.items == ("S02 (test, train)",)
    split = read_table(table('{"train": ["S01"], "test": ["s02"]}', "split.json"))
    assert [member.part for member in joined(tables[:1], split)] == ["train", "test"]
    with pytest.raises(PainseqError, match=r"(?s)train\.csv.*part.column"):
        joined(tables[:1])
    with pytest.raises(PainseqError, match=r"test\.csv"):
        joined(tables[:1], tables[1])


def test_split_files_of_any_hand(table):
    read = read_table(table('{"protocol": "loso", "train": ["S01", 2], "test": ["S03"], "n": 3}', "split.json"))
    assert [(member.part, member.subject) for member in read.members] == [
        ("train", "S01"),
        ("train", "2"),
        ("test", "S03"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("split.json", "[1, 2]", "split.json"),
        ("split.json", '{"train": ["S01"]}', "split.json"),
        ("split.json", "{", "line 1 column 2"),
        ("clips.csv", "subject,part\n", "clips.csv"),
        ("clips.csv", "name,part\nS01,train\n", "subject.column"),
        ("clips.csv", "subject,part\n,train\n", "row 2.*'subject'"),
    ],
)
def test_files_that_cannot_be_checked_are_refused(table, name, text, message):
    with pytest.raises(PainseqError, match=f"(?s){message}"):
        read_table(table(text, name))


def test_no_file(tmp_path):
    with pytest.raises(PainseqError, match=r"absent\.csv"):
        read_table(tmp_path / "absent.csv")
