import json
import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from painseq.data.labels import label_scheme
from painseq.data.protocols import SplitOptions
from painseq.data.splits import (
    Split,
    check_no_leak,
    every_fold,
    inner_splits,
    make_split,
    qualified,
    read_split,
    write_split,
)
from painseq.data_modules import BioVid
from painseq.errors import LeakError, PainseqError
from painseq.records import PARTS, Clip, Manifest


def manifest_of(labels, parts=None, name="set"):
    """`labels`: subject -> labels of the clips, or how many clips without pain."""
    clips = tuple(
        Clip(f"{subject}-{number}", subject, f"{subject}/{number}.mp4", label, part=(parts or {}).get(subject))
        for subject, given in labels.items()
        for number, label in enumerate(["BL1"] * given if isinstance(given, int) else given)
    )
    return Manifest(name, Path(), clips)


def people(names, clips_each=2, **more):
    return manifest_of(dict.fromkeys(names, clips_each), **more)


def everybody(split):
    return [subject for part in PARTS for subject in split.subjects(part)]


def known(manifest):
    return {clip.subject_id for clip in manifest if clip.label is not None}


LABELS = ("BL1", "BL1", "PA1", "PA4", None)


@st.composite
def manifests(draw, min_size=1):
    size = draw(st.integers(min_size, 40))
    names = draw(st.lists(st.text("abc019_", min_size=1, max_size=5), min_size=size, max_size=size, unique=True))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    # Subjects lean towards a label of their own, None too, so that classes are seldom even and some are all hidden.
    made = {
        name: [LABELS[n] for n in random.choice(5, size=random.integers(1, 21), p=random.dirichlet([0.2] * 5))]
        for name in names
    }
    return manifest_of(made, {name: draw(st.sampled_from([*PARTS, None])) for name in names}, "biovid")


seeds = st.integers(0, 2**32 - 1)
drawn = st.builds(
    SplitOptions,
    protocol=st.sampled_from(["official", "official_inner", "subject_holdout", "subject_kfold", "loso"]),
    validation_share=st.sampled_from([0.0, 0.2, 0.5]),
    test_share=st.sampled_from([0.1, 0.3, 0.5]),
    folds=st.integers(2, 6),
    seed=seeds,
)


@settings(max_examples=150, deadline=None)
@given(manifests(), drawn, st.integers(0, 7), st.integers(0, 2), st.randoms(use_true_random=False))
def test_nobody_on_two_sides_no_empty_part_and_row_order_does_not_matter(manifest, options, fold, repeat, random):
    if "fold" in options.decisive():
        options = replace(options, fold=fold % (options.folds if options.protocol == "subject_kfold" else 8))
    if "repeat" in options.decisive():
        options = replace(options, repeat=repeat)
    try:
        split = make_split(manifest, options)
    except PainseqError as error:
        assert len(known(manifest)) < 9 or options.protocol.startswith("official"), error
        return
    assert len(everybody(split)) == len({*everybody(split)}) and {*everybody(split)} <= {*manifest.subjects}
    if options.protocol != "official":
        assert split.train and bool(split.validation) == bool(options.validation_share)
    if options.protocol in ("subject_kfold", "loso"):
        assert split.test and {*everybody(split)} == known(manifest)
    if options.protocol == "subject_holdout":
        assert split.test and {*everybody(split)} == {*manifest.subjects}
    shuffled = list(manifest.clips)
    random.shuffle(shuffled)
    assert make_split(manifest.only(shuffled), options) == split


@settings(max_examples=60, deadline=None)
@given(manifests(), drawn, st.sampled_from(["subject_kfold", "loso"]), st.integers(0, 2))
def test_every_clip_with_a_label_is_tested_in_exactly_one_fold(manifest, options, protocol, repeat):
    options = replace(options, protocol=protocol, repeat=repeat)
    try:
        folds = every_fold(manifest, options)
    except PainseqError:
        assert len(known(manifest)) < max(4, options.folds)
        return
    tested = Counter(clip.clip_id for split in folds for clip in split.clips(manifest, "test"))
    assert set(tested.values()) == {1}
    assert {clip.clip_id for clip in manifest if clip.label is not None} <= {*tested}
    assert all(split == make_split(manifest, replace(options, fold=k)) for k, split in enumerate(folds))


@settings(max_examples=60, deadline=None)
@given(manifests(min_size=8), drawn, st.integers(2, 4), seeds, st.randoms(use_true_random=False))
def test_inner_folds_never_see_the_outer_test(manifest, options, folds, seed, random):
    try:
        outer = make_split(manifest, options)
        inner = inner_splits(outer, manifest, folds, seed)
    except PainseqError:
        return
    seen = {*outer.train, *outer.validation}
    for split in inner:
        assert not {*everybody(split)} & {*outer.test} and split.test == ()
        assert {*everybody(split)} == seen & known(manifest) and split.train and split.validation
    assert sorted(s for split in inner for s in split.validation) == sorted(seen & known(manifest))
    shuffled = list(manifest.clips)
    random.shuffle(shuffled)
    assert inner_splits(outer, manifest.only(shuffled), folds, seed) == inner


def test_folds_need_enough_people():
    few = people("ab")
    for options, pattern in (
        (SplitOptions("subject_kfold"), r"\bset\b.*\b2\b.*\b5\b"),
        (SplitOptions("subject_kfold", folds=2), r"\b1\b.*\bvalidation\b.*\b0\.2\b"),
        (SplitOptions("subject_kfold", folds=1), r"\bfolds\b\D*\b1\b"),
        (SplitOptions("subject_kfold", folds=2, fold=7), r"(?i)\bfold\b\D*\b7\b.*\b2\b"),
        (SplitOptions("loso", fold=-1), r"(?i)\bfold\b\D*-1\b.*\b2\b"),
        (SplitOptions("subject_holdout", test_share=0.9), r"\b2\b.*\btest\b.*\b0\.9\b"),
        (SplitOptions("subject_holdout", test_share=1.5), r"\btest\b.*\b1\.5\b"),
        (SplitOptions("loso", seed=-1), r"\bseed\b\D*-1\b"),
    ):
        with pytest.raises(PainseqError, match=pattern):
            make_split(few, options)
        if options.protocol != "subject_holdout" and options.fold == 0:
            with pytest.raises(PainseqError, match=pattern):
                every_fold(few, options)
    with pytest.raises(PainseqError, match=r"\bset\b"):
        make_split(people("a"), SplitOptions("loso"))
    with pytest.raises(PainseqError, match=r"\bset\b"):
        every_fold(manifest_of({"a": [None], "b": [None]}), SplitOptions("loso"))
    with pytest.raises(PainseqError, match=r"'official'.*\bsubject_kfold\b.*\bloso\b"):
        every_fold(few, SplitOptions("official"))
    with pytest.raises(PainseqError, match=r"\bset\b.*\b2\b.*\b3\b"):
        inner_splits(Split("x", ("a", "b"), (), ()), few, 3, 0)


def test_leaving_one_subject_out_by_place_or_by_name():
    manifest = people(["b", "a", "c", "d"])
    split = make_split(manifest, SplitOptions("loso", fold=1, validation_share=0.3))
    assert split.test == ("b",) and len(split.validation) == 1 and len(split.train) == 2
    assert make_split(manifest, SplitOptions("loso", fold_subject="b", validation_share=0.3)) == split
    with pytest.raises(PainseqError, match=r"\bfold_subject\b.*\bz\b.*\bset\b.*\b4\b.*\ba, b, c, d\b"):
        make_split(manifest, SplitOptions("loso", fold_subject="z"))
    hidden = manifest_of({"a": 1, "b": 1, "c": 1, "h": [None]})
    with pytest.raises(PainseqError, match=r"\bfold_subject\b.*\bh\b.*\bset\b.*\b3\b.*\ba, b, c\b"):
        make_split(hidden, SplitOptions("loso", fold_subject="h"))
    with pytest.raises(PainseqError, match=r"\bfold\b\D*\b2\b.*\bfold_subject\b.*\ba\b"):
        make_split(hidden, SplitOptions("loso", fold=2, fold_subject="a"))


def test_those_without_a_known_label_are_in_no_fold_and_told(caplog):
    manifest = manifest_of({**dict.fromkeys("abcdef", 2), "hidden": [None, None, None]})
    with caplog.at_level(logging.WARNING, "painseq"):
        every_fold(manifest, SplitOptions("subject_kfold", folds=3))
    (record,) = caplog.records
    assert re.search(r"\bset\b.*\b1\b.*\bhidden\b.*\b3\b.*\bsubject_kfold\b", record.getMessage())


def test_repeats_and_seeds_shuffle_anew_and_are_fixed():
    manifest = people([f"s{n:02}" for n in range(30)])

    def tests(**more):
        return tuple(split.test for split in every_fold(manifest, SplitOptions("subject_kfold", **more)))

    assert len({tests(), tests(repeat=1), tests(repeat=2), tests(seed=1), tests(seed=1, repeat=1)}) == 5
    assert tests(repeat=2) == tests(repeat=2)


def test_subjects_who_are_alike_are_divided_by_chance_alone():
    """As scikit-learn draws them; a balanced data set such as BioVid so keeps the folds of earlier versions."""
    names = [f"s{n:02}" for n in range(23)]
    manifest = manifest_of({name: ["BL1", "PA4", "PA4"] for name in names})
    for seed in range(5):
        plain = GroupKFold(5, shuffle=True, random_state=seed).split(np.zeros(23), groups=names)
        folds = every_fold(manifest, SplitOptions("subject_kfold", seed=seed))
        assert [split.test for split in folds] == [tuple(names[i] for i in test) for _, test in plain]


def unbalanced(seed, subjects=25):
    """As in UNBC: most clips without pain, some subjects with hardly any, others with much; of all lengths."""
    random = np.random.default_rng(seed)
    made = {}
    for number in range(subjects):
        pain = random.choice([0.02, 0.1, 0.5], p=[0.4, 0.4, 0.2])
        mix = [1 - pain, 0.7 * pain, 0.3 * pain]
        made[f"s{number:02}"] = list(random.choice(["BL1", "PA1", "PA4"], size=random.integers(5, 60), p=mix))
    return manifest_of(made, name="biovid")


def unevenness(manifest, parts):
    """The largest difference between a class's share of a part and of the whole, averaged over the classes."""
    whole, classes = Counter(clip.label for clip in manifest), ("BL1", "PA1", "PA4")
    counts = [Counter(clip.label for clip in manifest if clip.subject_id in {*part}) for part in parts]
    shares = np.array([[count[name] / max(1, count.total()) for name in classes] for count in counts])
    return np.abs(shares - [whole[name] / whole.total() for name in classes]).max(axis=0).mean()


def test_folds_are_more_alike_than_by_chance():
    plain, ours, scikit = [], [], []
    for seed in range(12):
        manifest = unbalanced(seed)
        groups = [clip.subject_id for clip in manifest]
        classes = [clip.label for clip in manifest]
        folds = every_fold(manifest, SplitOptions("subject_kfold", seed=seed))
        assert {len(split.test) for split in folds} == {5}
        ours.append(unevenness(manifest, [split.test for split in folds]))
        for splitter, found in ((GroupKFold, plain), (StratifiedGroupKFold, scikit)):
            rows = splitter(5, shuffle=True, random_state=seed).split(classes, classes, groups)
            found.append(unevenness(manifest, [{groups[i] for i in test} for _, test in rows]))
    assert np.mean(ours) < 0.5 * np.mean(plain)
    assert np.mean(ours) < 1.1 * np.mean(scikit)


def test_validation_subjects_are_drawn_evenly_too():
    by_chance, ours = [], []
    for seed in range(12):
        manifest = unbalanced(seed)
        for split in every_fold(manifest, SplitOptions("subject_kfold", seed=seed)):
            rest = sorted((*split.train, *split.validation))
            random = np.random.default_rng(seed).permutation(rest)
            by_chance.append(unevenness(manifest, [random[: len(split.validation)]]))
            ours.append(unevenness(manifest, [split.validation]))
    assert np.mean(ours) < 0.6 * np.mean(by_chance)


def test_a_rare_class_is_in_every_fold_that_it_can_be_in():
    """Every fold has a subject with the rare class, which by chance is seldom so."""
    made = {f"s{n:02}": ["BL1"] * 10 + (["PA4"] if n < 5 else ["BL1"]) for n in range(25)}
    for seed in range(5):
        folds = every_fold(manifest_of(made), SplitOptions("subject_kfold", seed=seed))
        assert all(len({*split.test} & {f"s{n:02}" for n in range(5)}) == 1 for split in folds)


def test_the_classes_of_the_experiment_are_evened_out_not_the_native_labels():
    """Under "binary" PA1 is no class, so only PA4 decides."""
    made = {f"s{n}": ["BL1"] * 4 + ["PA4"] * (4 if n < 4 else 0) + ["PA1"] * n for n in range(8)}
    manifest = manifest_of(made, name="biovid")
    for seed in range(5):
        options = SplitOptions("subject_kfold", folds=4, seed=seed)
        for split in every_fold(manifest, options, label_scheme("biovid", "binary", BioVid.facts)):
            assert len({*split.test} & {"s0", "s1", "s2", "s3"}) == 1


def test_official_parts_are_kept_and_the_inner_split_leaves_validation_alone(caplog):
    parts = {"a": "train", "b": "train", "c": "train", "d": "train", "e": "validation", "f": "test"}
    manifest = people(parts, parts=parts)
    with caplog.at_level(logging.WARNING, "painseq"):
        assert make_split(manifest, SplitOptions("official")) == Split("official", ("a", "b", "c", "d"), ("e",), ("f",))
    assert not caplog.records
    inner = make_split(manifest, SplitOptions("official_inner", validation_share=0.25))
    assert sorted([*inner.train, *inner.validation]) == ["a", "b", "c", "d"]
    assert len(inner.validation) == 1
    assert inner.test == ("f",)
    with pytest.raises(PainseqError, match=r"\bset\b"):
        make_split(people("ef", parts=parts), SplitOptions("official_inner"))


def test_a_subject_in_two_official_parts_is_a_leak():
    clips = (Clip("1", "ann", "1.mp4", part="train"), Clip("2", "ann", "2.mp4", part="test"))
    with pytest.raises(LeakError, match=r"\b1\b.*\bann\b.*\btrain\b.*\btest\b"):
        make_split(Manifest("set", Path(), clips), SplitOptions("official"))


def test_no_official_parts_is_an_error_that_says_what_to_choose():
    with pytest.raises(PainseqError, match="subject_holdout"):
        make_split(people("ab"), SplitOptions("official"))


def test_named_subjects(caplog):
    manifest = people("abcdef")
    options = SplitOptions("subject_lists", train=("c", "a"), validation=("b",), test=("d",))
    with caplog.at_level(logging.WARNING, "painseq"):
        assert make_split(manifest, options) == Split("subject_lists", ("a", "c"), ("b",), ("d",))
    assert re.search(r"\bset\b.*\b2\b.*\be, f\b.*\b4\b.*\bsubject_lists\b", caplog.text)
    with pytest.raises(PainseqError, match=r"\b2\b.*\bx, y\b.*\bset\b.*\b6\b"):
        make_split(manifest, replace(options, train=("a", "x"), test=("y",)))
    with pytest.raises(LeakError, match=r"\b1\b.*\ba\b.*\btrain\b.*\btest\b"):
        make_split(manifest, replace(options, test=("a",)))
    with pytest.raises(PainseqError, match=r"\btrain\b.*\bvalidation\b.*\btest\b"):
        make_split(manifest, SplitOptions("subject_lists"))


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (SplitOptions(file=Path("s.json")), r"\bfile\b.*\bs\.json\b.*'subject_holdout'"),
        (SplitOptions(fold=2), r"\bfold\b\D*\b2\b.*'subject_holdout'.*\bsubject_kfold, loso\b"),
        (SplitOptions("subject_kfold", test=("a", "b")), r"\btest\b.*\ba, b\b.*'subject_kfold'.*\bsubject_lists\b"),
        (SplitOptions("subject_kfold", fold_subject="a"), r"\bfold_subject\b.*\ba\b.*'subject_kfold'.*\bloso\b"),
        (SplitOptions("file"), r"'file'.*\bfile\b"),
        (SplitOptions("hold"), r"'hold'.*\bofficial, official_inner, subject_holdout\b"),
    ],
)
def test_an_option_that_would_be_passed_over_in_silence_is_an_error(options, pattern):
    with pytest.raises(PainseqError, match=pattern):
        make_split(people("abcdef"), options)


@settings(max_examples=25, deadline=None)
@given(manifests(min_size=6), drawn)
def test_a_split_file_reads_back_as_the_split_it_was_written_from(tmp_path_factory, manifest, options):
    try:
        split = make_split(manifest, options)
    except PainseqError:
        return
    path = tmp_path_factory.mktemp("split") / "split.json"
    write_split(path, split, manifest, options.decisive())
    if everybody(split):
        assert make_split(manifest, SplitOptions("file", file=path)) == split


def test_what_a_split_file_says_and_when_it_does_not_fit(tmp_path, caplog):
    manifest, path = people("abcdef"), tmp_path / "split.json"
    options = SplitOptions("subject_kfold", folds=3, seed=4)
    split = make_split(manifest, options)
    write_split(path, split, manifest, options.decisive())
    content = json.loads(path.read_text())
    made_with = {"validation_share": 0.2, "folds": 3, "fold": 0, "seed": 4, "repeat": 0}
    assert content == {
        "format": 1,
        "data_set": "set",
        "fingerprint": manifest.fingerprint(),
        "made_with": made_with,
        **split.to_dict(),
    }
    written = path.read_bytes()
    for place in (path, tmp_path / "nowhere" / "split.json"):
        with pytest.raises(PainseqError, match=re.escape(str(place))):
            write_split(place, split, manifest, made_with)
    assert path.read_bytes() == written
    with caplog.at_level(logging.WARNING, "painseq"):
        assert read_split(path, manifest) == split
        assert not caplog.records
        assert make_split(people("abcdefg"), SplitOptions("file", file=path)) == split
    assert content["fingerprint"] in caplog.text and people("abcdefg").fingerprint() in caplog.text
    assert re.search(r"\bset\b.*\b1\b.*\bg\b.*\b2\b", caplog.text)
    with pytest.raises(PainseqError, match=r"split\.json.*\b2\b.*\be, f\b.*\bset\b"):
        read_split(path, people("abcd"))
    with pytest.raises(PainseqError, match=r"split\.json.*'set'.*'other'"):
        read_split(path, people("abcdef", name="other"))
    with pytest.raises(PainseqError, match=r"none\.json"):
        read_split(tmp_path / "none.json", manifest)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"format": 2}, r"split\.json.*\bformat\b.*\b2\b"),
        ({"data_set": 3}, r"split\.json.*\bdata_set\b.*\b3\b"),
        ({"test": "abc"}, r"split\.json.*\btest\b"),
        ({"test": [1, 2]}, r"split\.json.*\btest\b"),
        ({"train": ["a"], "test": ["a"]}, r"\b1\b.*\ba\b.*\btrain\b.*\btest\b"),
        ({"train": [], "validation": [], "test": []}, r"split\.json.*\btrain\b.*\bvalidation\b.*\btest\b"),
    ],
)
def test_a_split_file_that_is_none(tmp_path, change, pattern):
    path, manifest = tmp_path / "split.json", people("abcdef")
    write_split(path, make_split(manifest, SplitOptions()), manifest, {})
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PainseqError, match=pattern):
        read_split(path, manifest)
    path.write_text("{half")
    with pytest.raises(PainseqError, match=r"split\.json"):
        read_split(path, manifest)


def test_the_leak_check_names_who_is_on_both_sides():
    with pytest.raises(LeakError, match=r"\b2\b.*\bbiovid/a, biovid/b\b"):
        check_no_leak(qualified("biovid", "abc"), qualified("biovid", "abz"))


@pytest.mark.parametrize("other", ["p01", "P01\u200b", "\uff30\uff10\uff11", " P01"])
def test_a_spelling_hides_nobody(other):
    with pytest.raises(LeakError, match="P01"):
        check_no_leak([f"mine/{other}"], ["mine/P01"])
    with pytest.raises(LeakError, match="P01"):
        Split("by hand", ("P01",), (), (other,))
    with pytest.raises(LeakError, match="P01"):
        make_split(mine("P01", "P02"), SplitOptions("subject_lists", train=("P01",), test=("P02", other)))
    split = make_split(mine("P01", "P02"), SplitOptions("subject_lists", train=(other,), test=("p02",)))
    assert split.train == ("P01",) and split.test == ("P02",)


def mine(*subjects):
    return Manifest("mine", Path(), tuple(Clip(name, name, f"{name}.mp4") for name in subjects))


def test_subjects_of_different_data_sets_never_count_as_the_same():
    check_no_leak(qualified("biovid", ["s01"]), qualified("ai4pain", ["s01"]))
