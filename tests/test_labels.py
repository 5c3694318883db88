from pathlib import Path

import pytest

from painseq.errors import PainseqError
from painseq.labels import NATIVE, SCHEMES, check_same_classes, label_scheme
from painseq.records import Clip, Manifest


def manifest(*labels):
    clips = tuple(Clip(str(i), "s", f"{i}.mp4", label=label) for i, label in enumerate(labels))
    return Manifest("biovid", Path(), clips)


def test_labels_that_a_scheme_leaves_out_leave_the_experiment():
    scheme = label_scheme("biovid", "binary")
    kept = scheme.apply(manifest("BL1", "PA1", "PA4", None))
    assert [clip.label for clip in kept] == ["BL1", "PA4", None]
    assert [scheme.target(clip.label) for clip in kept] == [0, 1, -1]
    assert scheme.counts(kept) == {"no_pain": 1, "high_pain": 1}


def test_an_unknown_label_is_an_error_that_lists_those_found():
    with pytest.raises(PainseqError, match=r"unknown label 'PA9'. Found: BL1 \(2 clips\), PA9 \(1 clips\)"):
        label_scheme("biovid", "five").apply(manifest("BL1", "BL1", "PA9"))


def test_unknown_schemes_and_data_sets_say_what_there_is():
    with pytest.raises(PainseqError, match="it has: binary, three, five"):
        label_scheme("biovid", "four")
    with pytest.raises(PainseqError, match="biovid, ai4pain"):
        label_scheme("atari", "five")


def test_a_five_class_model_on_three_class_data_says_what_to_do():
    five, three = label_scheme("biovid", "five"), label_scheme("ai4pain", "three")
    with pytest.raises(PainseqError, match=r"tells 5 classes apart .* the data has 3 .*Choose a label scheme"):
        check_same_classes(five.class_names, three.class_names)


def test_the_same_classes_bear_the_same_names_across_data_sets():
    check_same_classes(label_scheme("biovid", "three").class_names, label_scheme("ai4pain", "three").class_names)
    check_same_classes(label_scheme("biovid", "binary").class_names, label_scheme("ai4pain", "binary").class_names)


@pytest.mark.parametrize(("dataset", "name"), [(d, name) for d in SCHEMES for name in SCHEMES[d]])
def test_every_scheme_maps_native_labels_once(dataset, name):
    natives = [label for labels in label_scheme(dataset, name).classes.values() for label in labels]
    assert len(natives) == len(set(natives))
    assert set(natives) <= set(NATIVE[dataset])
