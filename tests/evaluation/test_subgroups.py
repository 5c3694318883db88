import csv

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.evaluation import Person, people_of, read_people, score
from painseq.evaluation.intervals import DRAWS, draw_subjects
from painseq.evaluation.people import subject_rows, write_subjects
from painseq.evaluation.subgroups import age_band, subgroups
from painseq.records import Clip


@pytest.fixture
def study(predictions):
    """24 subjects of 4 clips, of whom the first 12, the women, are recognised better."""
    rng = np.random.default_rng(0)
    truth = np.tile([0, 1, 2, 1], 24)
    subjects = [f"s{i // 4:02d}" for i in range(96)]
    right = rng.random(96) < np.where(np.arange(96) < 48, 0.95, 0.4)
    made = predictions(list(truth), list(np.where(right, truth, (truth + 1) % 3)), subjects)
    people = {f"s{i:02d}": Person("f" if i < 12 else "m", 20 + 2 * i) for i in range(24)}
    return made, people


def test_the_bands_are_those_of_biovid_open_at_both_ends():
    assert [age_band(age) for age in (3, 20, 35, 36, 50, 51, 65, 110)] == [
        "under 36", "under 36", "under 36", "36 to 50", "36 to 50", "over 50", "over 50", "over 50",
    ]  # fmt: skip


def test_a_group_scores_as_if_it_were_alone(study):
    made, people = study
    groups, _ = subgroups(made, people)
    assert [(group.attribute, group.name) for group in groups] == [
        ("sex", "f"), ("sex", "m"), ("age", "under 36"), ("age", "36 to 50"), ("age", "over 50"),
    ]  # fmt: skip
    for group in groups:
        own = {
            "f": lambda p: p.sex == "f", "m": lambda p: p.sex == "m", "under 36": lambda p: p.age < 36,
            "36 to 50": lambda p: 36 <= p.age <= 50, "over 50": lambda p: p.age > 50,
        }[group.name]  # fmt: skip
        alone = score(made.only([i for i, s in enumerate(made.subject_ids) if own(people[s])]))
        assert group.scores == alone.scores
        assert (group.subjects, group.clips) == (alone.counts.subjects, alone.counts.scored)
        if group.caution is None:
            assert group.intervals["balanced_accuracy"] == alone.intervals["balanced_accuracy"]
    assert sum(group.clips for group in groups if group.attribute == "sex") == 96


def test_groups_of_few_have_a_caution_and_no_interval(study):
    made, people = study
    few = {s: person for s, person in people.items() if s in {"s00", "s01", "s02", "s03"} or person.sex == "m"}
    groups, differences = subgroups(made, few)
    women, men, unknown = (group for group in groups if group.attribute == "sex")
    assert (women.subjects, women.intervals) == (4, {}) and "4" in women.caution
    assert men.intervals and men.caution is None
    assert (unknown.name, unknown.subjects) == ("not known", 8)
    assert not [apart for apart in differences if apart.attribute == "sex"]


def test_without_anything_known_there_are_no_groups(study):
    made, _ = study
    assert subgroups(made, {}) == ((), ())
    assert subgroups(made, {"somebody else": Person("f", 30)}) == ((), ())
    of_age = {f"s{i:02d}": Person(None, 30) for i in range(24)}
    assert [group.name for group in subgroups(made, of_age)[0]] == ["under 36"]
    nobody = made.only([])
    assert subgroups(nobody, of_age) == ((), ())


def test_the_difference_of_two_groups_draws_each_by_itself(study):
    made, people = study
    smaller = made.only([i for i, s in enumerate(made.subject_ids) if s not in {"s22", "s23"}])
    apart = next(d for d in subgroups(smaller, people)[1] if d.attribute == "sex")
    women, men = (group for group in subgroups(smaller, people)[0] if group.attribute == "sex")
    assert (apart.first, apart.second) == ("f", "m")
    assert apart.value == pytest.approx(women.scores.balanced_accuracy - men.scores.balanced_accuracy)
    assert 0 < apart.interval.low < apart.value < apart.interval.high
    assert apart.interval.subjects == men.subjects == 10

    by_subject = {row.subject_id: row.balanced_accuracy for row in subject_rows(smaller, people)}
    f, m = (np.array([v for s, v in by_subject.items() if people[s].sex == sex]) for sex in "fm")
    drawn_m, drawn_f = draw_subjects(10, DRAWS, 0) @ m / 10, draw_subjects(12, DRAWS, 1) @ f / 12
    spread = np.quantile(drawn_f - drawn_m, [0.025, 0.975])
    # The interval's percentiles lie a little further out.
    assert apart.interval.low == pytest.approx(spread[0], abs=0.04) and apart.interval.low <= spread[0]
    assert apart.interval.high == pytest.approx(spread[1], abs=0.06) and apart.interval.high >= spread[1]
    assert any("sex" in line and f"{apart.value:+.3f}" in line for line in score(smaller, people).warnings)
    swapped = {s: Person({"f": "m", "m": "f"}[p.sex]) for s, p in people.items()}
    other = subgroups(smaller, swapped)[1][0]
    assert (other.value, other.interval.low) == (pytest.approx(-apart.value), pytest.approx(-apart.interval.high))


def test_people_come_from_clips():
    clips = [
        Clip("a", "s1", "a.mp4", sex="f"),
        Clip("b", "s1", "b.mp4", age=0),
        Clip("c", "s1", "c.mp4", sex="f", age=41),
        Clip("d", "s2", "d.mp4"),
    ]
    assert people_of(clips) == {"s1": Person("f", 0), "s2": Person()}


def test_people_come_from_a_file(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("subject_id,sex,age,hand\na,F,34,left\nb,male,,\nc,,70,\n")
    assert read_people(path) == {"a": Person("f", 34), "b": Person("m"), "c": Person(None, 70)}
    path.write_text("subject_id,age\na,34\n")
    assert read_people(path) == {"a": Person(None, 34)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject_id,sex\na,w\n", "line 2.*sex.*'w'"),
        ("subject_id,age\na,20-35\n", "line 2.*age.*'20-35'"),
        ("subject_id,age\na,20\nb,999\n", "line 3.*age.*999.*120"),
        ("subject_id,age\na,20\na,21\n", "line 3.*'a'"),
        ("subject_id,weight\na,20\n", "sex.*age.*subject_id, weight"),
        ("subject,age\na,20\n", "subject_id.*subject, age"),
    ],
)
def test_a_bad_table_of_people_is_refused(tmp_path, text, words):
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(PainseqError, match=f"(?s){words}"):
        read_people(path)
    with pytest.raises(PainseqError, match=r"none\.csv"):
        read_people(tmp_path / "none.csv")


def test_a_row_a_subject(predictions, tmp_path):
    made = predictions([0, 1, 2, 2, -1, 0], [0, 0, -1, 2, 1, -1], ["a", "a", "a", "b", "b", "c"])
    rows = subject_rows(made, {"a": Person("m", 30)})
    assert [row.subject_id for row in rows] == ["a", "b", "c"]
    first, second, third = rows
    assert (first.sex, first.age, first.clips, first.scored, first.without_prediction) == ("m", 30, 3, 2, 1)
    assert (first.accuracy, first.balanced_accuracy, first.faceless_share) == (0.5, 0.5, pytest.approx(1 / 3))
    assert (second.clips, second.scored, second.accuracy, second.sex) == (2, 1, 1.0, None)
    assert (third.scored, third.accuracy, third.balanced_accuracy, third.faceless_share) == (0, None, None, 1.0)
    write_subjects(tmp_path / "subjects.csv", [row.to_dict() for row in rows])
    with (tmp_path / "subjects.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == [
        "subject_id", "sex", "age", "clips", "scored", "without_prediction", "accuracy", "balanced_accuracy",
        "faceless_share",
    ]  # fmt: skip
    assert read[2]["accuracy"] == "" and read[0]["age"] == "30"
