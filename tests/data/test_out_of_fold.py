"""Folds of a training part: every item is held out once, and nothing of the test part is in any fold."""

import numpy as np
import pytest

from painseq.data.options import DataOptions
from painseq.data.out_of_fold import out_of_fold
from painseq.data.protocols import SplitOptions
from painseq.data.splits import LeakySplit, leaky_split
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError

PARTS = ("train", "validation", "test")


@pytest.fixture
def data(electrical, store):
    return AI4Pain(electrical, DataOptions(labels="binary", store=store, split=SplitOptions(protocol="official")))


def ids(data, part):
    return [clip.clip_id for clip in data.clips(part)]


def labelled(data):
    return [clip for clip in data.manifest if clip.label is not None]


def check(data, folds, names):
    """Check that folds divide the training part, by `names` of a data module and a part."""
    train, test = names(data, "train"), set(names(data, "test"))
    held_out = [name for fold in folds for name in names(fold.fit, "test")]
    assert sorted(held_out) == sorted(train)
    for fold in folds:
        fitted, tested = set(names(fold.fit, "train")), set(names(fold.fit, "test"))
        assert fitted | tested == set(train) and not fitted & tested
        assert set(names(fold.fit, "validation")) == set(names(data, "validation"))
        assert set(names(fold.held_out, "validation")) == tested
        assert not test & {*fitted, *tested, *names(fold.fit, "validation"), *names(fold.held_out, "validation")}


def test_folds_of_subjects(data):
    folds = out_of_fold(data, 2)
    check(data, folds, ids)
    for fold in folds:
        assert not {*fold.fit.split.train} & {*fold.fit.split.test}
        assert not {*ids(data, "test")} & {clip.clip_id for clip in fold.fit.manifest}


def test_folds_of_a_leaky_split_divide_what_the_split_divides(data):
    clips = labelled(data)
    parts = {"train": clips[::2], "validation": clips[1::4], "test": clips[3::4]}
    leaky = data.with_split(leaky_split(parts, clips, "clip_holdout"))
    folds = out_of_fold(leaky, 3)
    check(leaky, folds, ids)
    for fold in folds:
        assert isinstance(fold.fit.split, LeakySplit) and isinstance(fold.held_out.split, LeakySplit)
        assert fold.fit.split.protocol == "clip_holdout_out_of_fold_LEAKY"
        assert fold.fit.subjects_seen() == leaky.subjects_seen()


@pytest.mark.parametrize("groups", ["subject", "item"])
def test_folds_of_given_items_keep_groups_together(data, groups):
    everything = data.everything()
    items = everything.only(everything.with_a_face())
    order = np.arange(len(items)).tolist()
    parts = {"train": order[::2], "validation": order[1::4], "test": order[3::4]}
    given = data.with_items(items, parts, "clip_kfold", items.names if groups == "item" else None)
    folds = out_of_fold(given, 2)
    check(given, folds, lambda module, part: module.dataset(part).names if part in module.items.parts else [])
    if groups == "subject":
        for fold in folds:
            subjects = [{clip.subject_id for clip in fold.fit.dataset(part).clips} for part in ("train", "test")]
            assert not subjects[0] & subjects[1]


def test_too_many_folds_are_refused(data):
    with pytest.raises(PainseqError, match="99"):
        out_of_fold(data, 99)
    clips = labelled(data)
    leaky = data.with_split(leaky_split({"train": clips[:8], "test": clips[8:]}, clips, "clip_holdout"))
    with pytest.raises(PainseqError, match="99"):
        out_of_fold(leaky, 99)
