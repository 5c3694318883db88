import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts
from painseq.data.labels import Scale, check_same_targets, native_scheme, ordered_labels, own_scheme
from painseq.data.labels import label_scheme as scheme_of
from painseq.data.options import DataOptions
from painseq.data_modules import FACTS, BioVid, Folder, facts_of
from painseq.errors import PainseqError
from painseq.records import UNKNOWN, Clip, Manifest

BIOVID, MINTPAIN = FACTS["biovid"].native, FACTS["mintpain"].native


def label_scheme(dataset, name):
    return scheme_of(dataset, name, FACTS.get(dataset, DataSetFacts()))


def manifest(*labels, name="biovid"):
    clips = tuple(Clip(str(i), "s", f"{i}.mp4", label=label) for i, label in enumerate(labels))
    return Manifest(name, Path(), clips)


def test_labels_that_a_scheme_leaves_out_leave_the_experiment():
    scheme = label_scheme("biovid", "binary")
    kept = scheme.apply(manifest("BL1", "PA1", "PA4", None))
    assert [clip.label for clip in kept] == ["BL1", "PA4", None]
    assert [scheme.target(clip.label) for clip in kept] == [0, 1, -1]
    assert scheme.counts(kept) == {"no_pain": 1, "high_pain": 1}


def test_an_unknown_label_is_an_error_that_lists_those_found():
    with pytest.raises(PainseqError, match=r"biovid.*'PA9'.*\bBL1\D*2\b.*\bPA9\D*1\b"):
        label_scheme("biovid", "five").apply(manifest("BL1", "BL1", "PA9"))
    with pytest.raises(PainseqError, match=r"unbc.*'17'.*\b2\D+1\b.*\b17\D+1\b.*0\.\.16"):
        label_scheme("unbc", "binary").apply(manifest("2", "17", name="unbc"))


def test_unknown_schemes_and_data_sets_say_what_there_is():
    with pytest.raises(PainseqError, match=r"biovid.*'four'.*binary\W+three\W+five\W+BL1_PA1"):
        label_scheme("biovid", "four")
    with pytest.raises(PainseqError, match=r"'atari'.*'five'.*\bnative\b"):
        label_scheme("atari", "five")
    with pytest.raises(PainseqError, match=r"'atari'.*ai4pain, biovid, mintpain, unbc, xite"):
        facts_of("atari")


def test_own_files_under_a_known_name_have_its_facts(tmp_path):
    assert Folder(tmp_path, name="biovid").facts == BioVid.facts
    assert Folder(tmp_path, name="mine").facts == DataSetFacts()


def test_a_five_class_model_on_three_class_data_says_what_to_do():
    five, three = label_scheme("biovid", "five"), label_scheme("ai4pain", "three")
    with pytest.raises(PainseqError, match=r"\b5\b.*extreme_pain.*\b3\b.*low_pain"):
        check_same_targets(five.class_names, None, three)


@pytest.mark.parametrize("name", ["binary", "three", "four", "five"])
def test_the_same_classes_bear_the_same_names_across_data_sets(name):
    first, *others = (label_scheme(dataset, name) for dataset in FACTS if name in FACTS[dataset].schemes)
    assert others
    for other in others:
        check_same_targets(first.class_names, None, other)


@pytest.mark.parametrize(("dataset", "name"), [(d, name) for d in FACTS for name in FACTS[d].schemes])
def test_every_scheme_maps_native_labels_once(dataset, name):
    scheme = label_scheme(dataset, name)
    natives = [label for labels in scheme.classes.values() for label in labels]
    assert len(natives) == len(set(natives))
    assert all(scheme.knows(label) for label in natives if ".." not in label)
    # Every whole number and half of a scale: `apply` refuses one that two classes claim.
    halves = [f"{value / 2:g}" for value in range(33)]
    scale = [label for label in halves if scheme.knows(label)] if dataset == "unbc" else FACTS[dataset].native
    taking_part = scheme.apply(manifest(*scale, name=dataset))
    assert {scheme.target(clip.label) for clip in taking_part} == set(range(len(scheme.classes)))


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("binary", [0, 1, 1, 1, 1, 1, 1, 1]),
        ("three", [0, 1, 1, 2, 2, 2, 2, 2]),
        ("four", [0, 1, 1, 2, 2, 3, 3, 3]),
    ],
)
def test_pspi_goes_through_thresholds(name, targets):
    pspi = ["0", "1", "2", "3", "4", "5", "10", "16"]
    assert [label_scheme("unbc", name).target(label) for label in pspi] == targets


@given(value=st.integers(0, 1600).map(lambda hundredths: hundredths / 100))
@pytest.mark.parametrize("name", ["binary", "three", "four"])
def test_no_value_of_a_scale_falls_between_two_classes(name, value):
    scheme = label_scheme("unbc", name)
    target, above = scheme.target(f"{value:g}"), scheme.target(f"{min(16, value + 1):g}")
    assert target is not None and above is not None and target <= above
    assert (target == 0) == (value == 0)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("1..3", ["1", "3", "2.5", "1.0"], ["0.99", "3.01", "-2", "PA2", "nan", "1..3 "]),
        (">0..3", ["0.1", "3"], ["0", "0.0", "-1"]),
        ("-3..-1", ["-3", "-1.5"], ["0", "-4", "2"]),
    ],
)
def test_ranges(entry, inside, outside):
    scheme = own_scheme("mine", {"rest": ["never"], "pain": [entry]})
    assert [scheme.target(label) for label in inside] == [1] * len(inside)
    assert [scheme.target(label) for label in outside] == [None] * len(outside)


def test_a_range_has_no_native_label_for_a_submission():
    assert label_scheme("unbc", "binary").native("no_pain") == "0"
    with pytest.raises(PainseqError, match=r"\bhigh_pain\b.*\bunbc\b.*>0\.\.16"):
        label_scheme("unbc", "binary").native("high_pain")


def test_xites_schemes_choose_the_stimulus():
    heat, electrical = label_scheme("xite", "heat_four"), label_scheme("xite", "electrical_four")
    assert [heat.target(label) for label in ("0", "1", "2", "3", "-1", "4")] == [0, 1, 2, 3, None, None]
    assert [electrical.target(label) for label in ("0", "-1", "-2", "-3", "1", "-4")] == [0, 1, 2, 3, None, None]
    assert heat.class_names == electrical.class_names == label_scheme("unbc", "four").class_names


def test_a_scheme_of_ones_own_takes_words_numbers_and_ranges():
    scheme = own_scheme("mintpain", {"calm": [0], "hurt": ["1..3", 4]}, MINTPAIN)
    assert scheme.class_names == ("calm", "hurt")
    assert [scheme.target(str(label)) for label in range(5)] == [0, 1, 1, 1, 1]
    assert len(scheme.apply(manifest("0", "3", None, name="mintpain"))) == 3


@pytest.mark.parametrize(
    ("classes", "pattern"),
    [
        ({False: ["BL1"], True: ["PA4"]}, r"labels.*\bFalse\b"),
        ({"pain": ["PA4"]}, r"labels.*\b1\b.*\bpain\b"),
        ({"rest": ["BL1"], "pain": []}, r"labels.*\bpain\b"),
        ({"rest": ["BL1"], "pain": ["PA4", "BL1"]}, r"labels.*'BL1'"),
        ({"rest": ["BL1"], "pain": ["PA9"]}, r"labels.*\bpain\b.*'PA9'.*biovid.*BL1\W+PA1"),
    ],
)
def test_a_scheme_that_cannot_be_meant_is_an_error(classes, pattern):
    with pytest.raises(PainseqError, match=pattern):
        own_scheme("biovid", classes, BIOVID)


def test_a_label_that_two_ranges_claim_is_an_error():
    scheme = own_scheme("mine", {"low": ["0..3"], "high": ["3..10"]})
    assert len(scheme.apply(manifest("2", "4", name="mine"))) == 2
    with pytest.raises(PainseqError, match=r"mine.*'3'.*\blow\b.*\bhigh\b"):
        scheme.apply(manifest("2", "3", name="mine"))


def test_what_a_scheme_of_ones_own_leaves_out_is_told(caplog):
    scheme = own_scheme("mine", {"rest": ["calm"], "pain": ["ouch"]})
    assert len(scheme.apply(manifest("calm", "ouch", "hmm", name="mine"))) == 2
    assert re.search(r"mine.*\bhmm\b.*\bcalm\D*1\b.*\bhmm\D*1\b.*\bouch\D*1\b", caplog.text)


def test_native_makes_every_label_found_a_class():
    assert native_scheme(manifest("PA4", "BL1", "PA2", None), BIOVID).class_names == ("BL1", "PA2", "PA4")
    assert native_scheme(manifest("10", "2", "0", name="unbc"), FACTS["unbc"].native).class_names == ("0", "2", "10")
    assert native_scheme(manifest("mild", "awful", name="mine")).class_names == ("awful", "mild")
    assert native_scheme(manifest("mild", "awful", name="mine"), ["mild", "awful"]).class_names == ("mild", "awful")
    with pytest.raises(PainseqError, match=r"mine.*'worse'.*\bmild\W+awful\b"):
        native_scheme(given := manifest("mild", "worse", name="mine"), ["mild", "awful"]).apply(given)


def test_an_order_that_nobody_told_is_the_alphabets_and_is_said(caplog):
    assert not native_scheme(manifest("no", "high", name="mine")).ordered
    assert re.search(r"mine.*\bhigh\W+no\b.*\bclasses\b", caplog.text)
    caplog.clear()
    assert native_scheme(manifest("no", "high", name="mine"), ["no", "high"]).ordered
    assert native_scheme(manifest("10", "2.5", "0", name="mine")).ordered
    assert native_scheme(manifest("BL1"), BIOVID).ordered
    assert own_scheme("mine", {"rest": ["no"], "pain": ["high"]}).ordered and not caplog.text


@pytest.mark.parametrize("two", [("Low", "low"), ("low  pain", "low pain")])
def test_two_spellings_of_a_label_are_no_two_classes(two):
    given = manifest(*two, name="mine")
    with pytest.raises(PainseqError, match=rf"mine.*{two[0]!r}.*{two[1]!r}"):
        native_scheme(given).apply(given)
    assert len(own_scheme("mine", {"low": list(two), "no": ["no"]}).apply(given)) == 2


@given(labels=st.permutations(["-3", "0", "2", "2.5", "10", "a", "b"]))
def test_numbers_come_by_size_and_words_behind_them(labels):
    assert ordered_labels(labels) == ["-3", "0", "2", "2.5", "10", "a", "b"]
    assert ordered_labels(labels, ["b", "10"])[:2] == ["b", "10"]


class Listed(PainDataModule):
    """Clips given as a list, of a data set that painseq does not know."""

    name = "mine"

    def __init__(self, options: DataOptions, *labels: str, classes: tuple[str, ...] = ()) -> None:
        super().__init__(Path(), options)
        self.listed = manifest(*labels, name=self.name)
        self.classes = classes

    def read_manifest(self) -> Manifest:
        return self.listed


def test_the_classes_of_an_experiment_come_from_its_options():
    own = Listed(DataOptions(labels={"rest": ["calm"], "pain": ["ouch", "argh"]}), "ouch", "calm", "argh")
    assert own.scheme.class_names == ("rest", "pain") and own.scheme.counts(own.manifest) == {"rest": 1, "pain": 2}
    assert Listed(DataOptions(labels="native"), "ouch", "calm").scheme.class_names == ("calm", "ouch")
    ordered = Listed(DataOptions(labels="native"), "ouch", "calm", classes=("ouch", "calm"))
    assert ordered.scheme.class_names == ("ouch", "calm")
    with pytest.raises(PainseqError, match=r"'mine'.*'three'.*\bnative\b"):
        _ = Listed(DataOptions(labels="three"), "ouch").manifest


@pytest.mark.parametrize("entry", ["10..1", ">5..4"])
def test_a_range_that_ends_before_it_begins_is_an_error(entry):
    with pytest.raises(PainseqError, match=rf"\bpain\b.*'{re.escape(entry)}'"):
        own_scheme("mine", {"no": ["0"], "pain": [entry]})


def test_numbers_are_the_same_however_they_are_written():
    scheme = own_scheme("mine", {"no": ["0"], "pain": [">0..10"]})
    assert [scheme.target(label) for label in ("0.0", "0", "0.5", "word")] == [0, 0, 1, None]


def test_a_label_of_ones_own_scheme_that_no_clip_has_is_told(caplog):
    clips = tuple(Clip(f"c{n}", f"s{n}", "v.mp4", label=str(n)) for n in range(4))
    own_scheme("mintpain", {"no": ["0"], "pain": ["1..2", "4"]}, MINTPAIN).apply(Manifest("mintpain", Path(), clips))
    # The first number of each message is the label that it is about.
    assert [re.findall(r"\d+", record.getMessage())[0] for record in caplog.records] == ["3", "4"]


def test_a_scale_takes_labels_as_numbers():
    vas = label_scheme("unbc", "vas")
    assert vas.scale == Scale("vas", 0, 10) and vas.class_names == () and vas.groups == ("vas",)
    assert [vas.target(label) for label in ("0", "3.5", "10", None, "11", "high")] == [0, 3.5, 10, UNKNOWN, None, None]
    assert vas.counts(manifest("0", "3.5", name="unbc")) == {"vas": 2}


def test_a_range_is_a_scale_for_data_of_ones_own():
    own = label_scheme("mine", "0..100")
    assert own.scale == Scale("value", 0, 100)
    assert len(own.apply(manifest("0", "62.5", "100", name="mine"))) == 3
    with pytest.raises(PainseqError, match=r"mine.*'101'.*0\.\.100"):
        own.apply(manifest("5", "101", name="mine"))


@pytest.mark.parametrize("written", ["-1..5", "3..3", "5..3"])
def test_a_scale_begins_at_zero_or_above_and_ends_higher(written):
    low, _, high = written.partition("..")
    with pytest.raises(PainseqError, match=rf"(?<![-\d]){low}\b.*\b{high}\b"):
        label_scheme("mine", written)


def test_classes_and_numbers_are_told_apart():
    three, pspi = label_scheme("unbc", "three"), label_scheme("unbc", "pspi")
    with pytest.raises(PainseqError, match=r"\bpspi\D*0\D*16\b.*\bno_pain\b.*\bhigh_pain\b"):
        check_same_targets((), pspi.scale, three)
    with pytest.raises(PainseqError, match=r"\bno_pain\b.*\bhigh_pain\b.*\bpspi\D*0\D*16\b"):
        check_same_targets(three.class_names, None, pspi)
    with pytest.raises(PainseqError, match=r"\bpspi\D*0\D*16\b.*\bvas\D*0\D*10\b"):
        check_same_targets((), pspi.scale, label_scheme("unbc", "vas"))
