from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.errors import LeakError, PainseqError
from painseq.records import Clip, Manifest
from painseq.splits import Split, check_no_leak, make_split, qualified


def manifest_of(subjects, clips_each=2, parts=None):
    clips = tuple(
        Clip(f"{subject}-{number}", subject, f"{subject}/{number}.mp4", part=None if parts is None else parts[subject])
        for subject in subjects
        for number in range(clips_each)
    )
    return Manifest("set", Path(), clips)


names = st.lists(st.text("abcdef0123456789_", min_size=1, max_size=6), min_size=5, max_size=30, unique=True)


@settings(max_examples=60, deadline=None)
@given(names, st.sampled_from(["subject_holdout", "subject_kfold"]), st.integers(0, 5), st.integers(0, 4), st.randoms())
def test_no_subject_on_two_sides_and_row_order_does_not_matter(subjects, protocol, seed, fold, random):
    manifest = manifest_of(subjects)
    split = make_split(manifest, protocol, seed=seed, fold=fold)
    everybody = [*split.train, *split.validation, *split.test]
    assert sorted(everybody) == sorted(subjects)
    assert split.train and split.test
    shuffled = list(manifest.clips)
    random.shuffle(shuffled)
    assert make_split(manifest.only(shuffled), protocol, seed=seed, fold=fold) == split


@settings(max_examples=20, deadline=None)
@given(names, st.integers(2, 5), st.integers(0, 3))
def test_every_subject_is_tested_in_exactly_one_fold(subjects, folds, seed):
    manifest = manifest_of(subjects)
    tested = [
        s for k in range(folds) for s in make_split(manifest, "subject_kfold", seed=seed, folds=folds, fold=k).test
    ]
    assert sorted(tested) == sorted(subjects)


def test_official_parts_are_kept_and_the_inner_split_leaves_validation_alone():
    parts = {"a": "train", "b": "train", "c": "train", "d": "train", "e": "validation", "f": "test"}
    manifest = manifest_of(parts, parts=parts)
    assert make_split(manifest, "official") == Split("official", ("a", "b", "c", "d"), ("e",), ("f",))
    inner = make_split(manifest, "official_inner", validation_share=0.25)
    assert sorted([*inner.train, *inner.validation]) == ["a", "b", "c", "d"]
    assert len(inner.validation) == 1
    assert inner.test == ("f",)


def test_a_subject_in_two_official_parts_is_a_leak():
    clips = (Clip("1", "ann", "1.mp4", part="train"), Clip("2", "ann", "2.mp4", part="test"))
    with pytest.raises(LeakError, match=r"1 subject \(ann\) on both sides of the split: train and test"):
        make_split(Manifest("set", Path(), clips), "official")


def test_no_official_parts_is_an_error_that_says_what_to_choose():
    with pytest.raises(PainseqError, match="subject_holdout"):
        make_split(manifest_of(["a", "b"]), "official")


def test_too_few_subjects():
    with pytest.raises(PainseqError, match="too few for 5 folds"):
        make_split(manifest_of(["a", "b"]), "subject_kfold")
    with pytest.raises(PainseqError, match="1 subjects cannot be split"):
        make_split(manifest_of(["a"]), "subject_holdout")
    with pytest.raises(PainseqError, match="Fold 7 does not exist"):
        make_split(manifest_of("abcdefgh"), "subject_kfold", fold=7)


def test_the_leak_check_names_who_is_on_both_sides():
    with pytest.raises(LeakError, match=r"2 of those|2 subjects \(biovid/a, biovid/b\)"):
        check_no_leak(qualified("biovid", "abc"), qualified("biovid", "abz"))


def test_subjects_of_different_data_sets_never_count_as_the_same():
    check_no_leak(qualified("biovid", ["s01"]), qualified("ai4pain", ["s01"]))
