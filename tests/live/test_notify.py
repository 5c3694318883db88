"""When a notification comes, stays and goes."""

import math

import pytest

from painseq.errors import PainseqError
from painseq.live import Notifier, NotifySettings, Reading, replay

CLASSES = ("none", "low", "high")
STEP_S = 0.5
SHARP = NotifySettings(tau_s=0)


def reading(time_s, pain=None, state="ok", value=None):
    """A reading of so much pain, of which half is low; without a face if there is neither pain nor value."""
    if pain is None and value is None:
        return Reading(time_s, "no_face" if state == "ok" else state)
    shares = {} if pain is None or state != "ok" else {"none": 1 - pain, "low": pain / 2, "high": pain / 2}
    return Reading(time_s, state, "none", shares, value if state == "ok" else None, box=(0, 0, 1, 1))


def events(notifier, pains, start_s=0.0):
    """(time, kind) of what happens, at readings of `STEP_S`; None is no face."""
    found = []
    for i, pain in enumerate(pains):
        one = pain if isinstance(pain, Reading) else reading(start_s + STEP_S * i, pain)
        found += [(event.time_s, event.kind) for event in notifier.push(one)]
    return found


def test_it_comes_after_on_s_and_goes_after_off_s():
    notifier = Notifier(NotifySettings(tau_s=0, latched=False), CLASSES)
    assert events(notifier, [0.2] * 4 + [0.8] * 12 + [0.6] * 8 + [0.4] * 14) == [
        (5.0, "on"),
        (17.0, "off"),
        (17.0, "end"),
    ]
    assert "low" in notifier.watched and "high" in notifier.watched


@pytest.mark.parametrize("pain", [0.8, 0.6])
def test_a_short_or_middling_rise_is_not_told(pain):
    rise = [pain] * (6 if pain == 0.8 else 100)
    assert events(Notifier(SHARP, CLASSES), [0.2] * 10 + rise + [0.2] * 10) == []


def test_it_stays_until_it_is_acknowledged():
    notifier = Notifier(SHARP, CLASSES)
    assert events(notifier, [0.9] * 20 + [0.1] * 40) == [(3.0, "on"), (15.0, "off")]
    assert notifier.is_on
    assert [event.kind for event in notifier.acknowledge(31.0)] == ["acknowledged", "end"]
    assert not notifier.is_on and notifier.acknowledge(32.0) == []
    early = Notifier(SHARP, CLASSES)
    events(early, [0.9] * 20)
    assert [event.kind for event in early.acknowledge(10.0)] == ["acknowledged"] and early.is_on
    assert [kind for _, kind in events(early, [0.1] * 20, 10.5)] == ["off", "end"]


def test_it_rests_after_its_end():
    notifier = Notifier(NotifySettings(tau_s=0, latched=False), CLASSES)
    pains = ([0.9] * 10 + [0.1] * 14) * 6
    assert [time_s for time_s, kind in events(notifier, pains) if kind == "on"] == [3.0, 40.0]


def test_smoothing_is_by_time_constant():
    notifier = Notifier(NotifySettings(tau_s=2.0), CLASSES)
    events(notifier, [0.0] * 4)
    for i in range(4):
        notifier.push(reading(2.0 + STEP_S * i, 1.0))
    assert notifier.number == pytest.approx(1 - math.exp(-1.0))


def test_without_enough_face_nothing_comes_and_nothing_goes():
    assert events(Notifier(SHARP, CLASSES), [0.9, None] * 40) == []
    notifier = Notifier(SHARP, CLASSES)
    assert events(notifier, [0.9] * 20 + [None] * 100) == [(3.0, "on")]
    assert notifier.is_on
    seldom = Notifier(NotifySettings(tau_s=0, face_share=0.4), CLASSES)
    assert [kind for _, kind in events(seldom, [0.9, None] * 40)] == ["on"]


@pytest.mark.parametrize("state", ["other_face", "signal_lost"])
def test_another_person_or_a_lost_signal_begins_anew(state):
    notifier = Notifier(SHARP, CLASSES)
    broken = [0.9] * 5 + [reading(2.5, state=state)] + [0.9] * 5
    assert events(notifier, broken) == []
    assert notifier.number == pytest.approx(0.9)


def test_nothing_comes_or_goes_at_a_reading_without_a_prediction():
    assert events(Notifier(SHARP, CLASSES), [0.9] * 6 + [None] * 3) == []
    assert events(Notifier(SHARP, CLASSES), [0.9] * 6 + [None] * 2 + [0.9]) == [(4.0, "on")]
    notifier = Notifier(NotifySettings(tau_s=0, latched=False), CLASSES)
    assert events(notifier, [0.9] * 8 + [0.1] * 8 + [None] * 3) == [(3.0, "on")] and notifier.is_on


@pytest.mark.parametrize("warm_up", [0, 2])
@pytest.mark.parametrize("pain", [0.9, 0.1])
def test_after_a_gap_the_number_is_that_of_the_readings_since(pain, warm_up):
    notifier = Notifier(NotifySettings(tau_s=0, latched=False), CLASSES)
    first = [0.9] * 4 if pain == 0.9 else [0.9] * 8 + [0.1] * 4
    seen = len(events(notifier, first))
    assert seen == (pain == 0.1)
    later = [reading(60 + STEP_S * i, state="warming_up") for i in range(warm_up)]
    later += [reading(61 + STEP_S * i, pain) for i in range(5)]
    assert events(notifier, later) == []
    assert notifier.number == pytest.approx(pain) and notifier.is_on == (pain == 0.1)


def test_a_number_that_is_none_spoils_no_later_one():
    notifier = Notifier(NotifySettings(), CLASSES)
    events(notifier, [0.9, math.nan, 0.9])
    assert notifier.number == pytest.approx(0.9)
    value = Notifier(NotifySettings(on=4, off=2), scale="pspi")
    for i, number in enumerate((5.0, math.inf, 5.0)):
        value.push(reading(STEP_S * i, value=number))
    assert value.number == pytest.approx(5.0)


def test_what_is_watched_can_be_chosen():
    twice = Notifier(NotifySettings(classes=("low", "low"), tau_s=0), CLASSES)
    events(twice, [0.8])
    assert twice.number == pytest.approx(0.4)
    high = Notifier(NotifySettings(classes=("high",), tau_s=0, on=0.4, off=0.2), CLASSES)
    assert [kind for _, kind in events(high, [0.9] * 10)] == ["on"]
    value = Notifier(NotifySettings(tau_s=0, on=4, off=2), scale="pspi")
    found = [value.push(reading(i * STEP_S, value=5.0)) for i in range(10)]
    assert [event.number for parts in found for event in parts] == [5.0]
    assert "pspi" in value.watched


@pytest.mark.parametrize(
    ("settings", "names", "fact"),
    [
        ({"classes": ("pain",)}, CLASSES, "pain"),
        ({}, (), "--notify-on"),
        ({"on": 0.3}, CLASSES, None),
        ({"on": 0.3, "off": 0.4}, CLASSES, "0.4"),
        ({"off": 0.8}, CLASSES, "0.8"),
        ({"on": 70.0}, CLASSES, "70"),
        ({"off": -0.1}, CLASSES, "-0.1"),
        ({"on": math.nan}, CLASSES, "nan"),
        ({"on": 4.0, "off": -math.inf}, (), "inf"),
        ({"tau_s": -1}, CLASSES, "tau_s"),
        ({"face_share": 1.1}, CLASSES, "1.1"),
    ],
)
def test_settings_that_cannot_be(settings, names, fact):
    if fact is None:
        Notifier(NotifySettings(**settings), names)
        return
    with pytest.raises(PainseqError, match=fact):
        Notifier(NotifySettings(**settings), names, "pspi")


def test_a_replay_counts_an_hour():
    pains = ([0.9] * 20 + [0.1] * 20) * 90
    readings = [reading(STEP_S * i, pain) for i, pain in enumerate(pains)]
    readings[1000:1400] = [reading(500 + STEP_S * i) for i in range(400)]
    found = replay(readings, Notifier(NotifySettings(tau_s=0, rest_s=0), CLASSES))
    assert found.hours == pytest.approx(0.5, rel=0.01) and len(found.at_s) == 80
    assert found.per_hour == pytest.approx(160, rel=0.01) and found.predicted_share == pytest.approx(8 / 9, abs=0.01)
    # A second run in the same log begins anew, whatever the first one ended with.
    for end in ([], [reading(60.0, state="signal_lost")]):
        run = [reading(STEP_S * i, 0.9) for i in range(60)] + end
        assert replay(run + run, Notifier(SHARP, CLASSES)).at_s == (3.0, 3.0)
    strict = replay(readings, Notifier(NotifySettings(tau_s=0, on_s=10.5), CLASSES))
    assert strict.at_s == ()
