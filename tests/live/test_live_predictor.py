"""Predict picture by picture, against the file read in one go."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.data.labels import Scale
from painseq.data.person_scale import PersonScale
from painseq.errors import PainseqError
from painseq.faces import FaceCrops, Sidecar
from painseq.live import LivePredictor, LiveSettings, Skipping
from painseq.live.sampling import Sampler
from painseq.video import frame_indices, open_video

ALL = LiveSettings(warm_up_s=0, hop_s=0, gap_s=60, window_s=60, skipping=Skipping("none"))


def fed(live, video, until=None):
    """The readings of a file, picture by picture."""
    readings = []
    with open_video(video) as opened:
        for frame, time_s in enumerate(opened.times_s[:until].tolist()):
            readings += live.push(opened.frames([frame])[0], time_s)
    return readings + live.finish()


def told(readings):
    """Times, and probabilities or values, of the readings with a prediction."""
    shown = [reading for reading in readings if reading.state == "ok"]
    numbers = [[*reading.probabilities.values()] or [reading.value] for reading in shown]
    return np.array([reading.time_s for reading in shown]), np.array(numbers)


@pytest.mark.parametrize("fps", [None, 5, 7.3])
@pytest.mark.parametrize("kind", ["lstm", "stacked", "bilstm"])
def test_a_video_head_says_what_it_says_of_the_clip_up_to_each_frame(make_model, creeping, kind, fps):
    model = make_model(kind, fps)
    assert model.steps == (kind != "bilstm")
    live = LivePredictor(model, ALL)
    times_s, probabilities = told(fed(live, creeping))
    whole = model.as_causal().predict(creeping)
    np.testing.assert_allclose(times_s, whole.frame_times_s, atol=1e-9)
    np.testing.assert_allclose(probabilities, whole.frame_probabilities, atol=1e-5)
    assert live.counts.samples == whole.frames and live.counts.processed == len(whole.frame_times_s)


@pytest.mark.parametrize("points", [False, True])
def test_a_frame_head_votes_over_the_window(make_model, creeping, points):
    model = make_model("ann", 10, points)
    readings = fed(LivePredictor(model, ALL), creeping)
    times_s, probabilities = told(readings)
    whole = model.as_causal().predict(creeping)
    np.testing.assert_allclose(times_s, whole.frame_times_s, atol=1e-9)
    running = np.cumsum(whole.frame_probabilities, axis=0) / np.arange(1, len(times_s) + 1)[:, None]
    np.testing.assert_allclose(probabilities, running, atol=1e-5)
    last = next(reading for reading in reversed(readings) if reading.state == "ok")
    assert last.label == whole.label and last.probabilities == pytest.approx(whole.probabilities, abs=1e-5)


def test_a_window_is_the_clip_of_its_frames(make_model, creeping):
    model = make_model("bilstm", 10)
    readings = fed(LivePredictor(model, replace(ALL, window_s=0.6)), creeping)
    rows = model.as_causal().read(creeping)
    for frame, reading in enumerate(readings):
        if reading.state == "ok":
            part = slice(max(0, frame - 5), frame + 1)
            answer = model.answer(rows.features[None, part], rows.present[None, part])
            np.testing.assert_allclose([*reading.probabilities.values()], answer.probabilities[0], atol=1e-5)
            assert reading.window_s == pytest.approx((len(rows.features[part]) - 1) / 10)


def test_an_lstm_has_seen_half_a_clip_to_a_clip(make_model, creeping):
    model = make_model("lstm", 10)
    readings = fed(LivePredictor(model, replace(ALL, window_s=0.8)), creeping, until=29)
    rows = model.as_causal().read(creeping)
    for frame, reading in enumerate(readings):
        part = slice(0 if frame < 8 else 4 * (frame // 4) - 4, frame + 1)
        answer = model.answer(rows.features[None, part], rows.present[None, part])
        np.testing.assert_allclose([*reading.probabilities.values()], answer.probabilities[0], atol=1e-5)
    assert max(reading.window_s for reading in readings) < 0.8


def test_between_hops_the_prediction_is_held(make_model, creeping):
    model = make_model("bilstm", 10)
    readings = fed(LivePredictor(model, replace(ALL, hop_s=0.3)), creeping, until=29)
    assert [reading.held for reading in readings] == [frame % 3 != 0 for frame in range(len(readings))]
    assert readings[1].probabilities == readings[0].probabilities != readings[3].probabilities


def test_a_regression_model_gives_values(make_model, creeping):
    model = make_model("lstm", 10, class_names=(), scale=Scale("pspi", 0, 16), loss="mse", train_prior=())
    _, values = told(fed(LivePredictor(model, ALL), creeping))
    whole = model.as_causal().predict(creeping)
    np.testing.assert_allclose(values[:, 0], whole.frame_values, atol=1e-5)


def test_a_tuned_threshold_and_a_mix_of_classes_hold_for_steps(make_model, creeping):
    model = make_model("lstm", 10, class_names=("none", "pain"), train_prior=(0.4, 0.6))
    model.threshold = 0.9
    model = model.with_prior({"none": 0.9, "pain": 0.1})
    readings = fed(LivePredictor(model, ALL), creeping, until=29)
    whole = model.as_causal().predict(creeping, end_s=29 / 30)
    assert readings[-1].label == whole.label
    assert readings[-1].probabilities == pytest.approx(whole.probabilities, abs=1e-5)


@pytest.fixture
def push(picture):
    def pushed(live, x, time_s, side=20, shade=0):
        (reading,) = live.push(picture(x, side, shade), time_s)
        return reading

    return pushed


def test_states(make_model, push):
    live = LivePredictor(make_model("lstm"), LiveSettings(warm_up_s=0.5, gap_s=1.0, window_s=4))
    states = [push(live, 20, i / 10).state for i in range(8)]
    assert states == ["warming_up"] * 5 + ["ok"] * 3
    gone = [push(live, 20, i / 10, side=0) for i in range(8, 22)]
    assert [reading.state for reading in gone[:2]] == ["ok", "ok"]  # The last face is held for a moment.
    assert {reading.state for reading in gone[4:]} == {"no_face"}
    assert all(reading.label is None and not reading.probabilities for reading in gone[4:])
    back = [push(live, 20, i / 10) for i in range(22, 30)]
    assert back[2].state == "warming_up" and back[-1].state == "ok" and back[-1].window_s < 0.8
    lost = live.lose_signal(3.5)
    assert (lost.state, lost.label, lost.box) == ("signal_lost", None, None)
    assert push(live, 20, 4.0).state == "warming_up"
    assert push(live, 20, 9.0).window_s == 0  # Without pictures for longer than gap_s.


def test_another_person_is_told_and_what_was_seen_of_the_first_is_forgotten(make_model, push):
    live = LivePredictor(make_model("lstm"), LiveSettings(warm_up_s=0.3, window_s=9))
    assert push(live, 5, 0.0).state == "warming_up"
    assert [push(live, 5, i / 10).state for i in range(1, 6)][-1] == "ok"
    other = [push(live, 40, 0.6 + i / 10, side=40) for i in range(10)]
    first = next(i for i, reading in enumerate(other) if reading.state == "other_face")
    after = [reading.state for reading in other[first:]]
    assert after[:3] == ["other_face"] * 3 and after[-1] == "ok"
    alone = LivePredictor(make_model("lstm"), LiveSettings(warm_up_s=0.3, window_s=9))
    again = [push(alone, 40, i / 10, side=40) for i in range(10 - first)]
    assert other[-1].probabilities == pytest.approx(again[-1].probabilities, abs=0.05)


def test_the_reference_of_a_person_is_made_of_the_first_seconds(make_model, creeping):
    model = make_model("lstm", 10, normalise=("subject",))
    with pytest.raises(PainseqError, match="reference_s"):
        LivePredictor(model, ALL)
    readings = fed(LivePredictor(model, replace(ALL, reference_s=0.5)), creeping, until=29)
    assert [reading.state for reading in readings] == ["warming_up"] * 5 + ["ok"] * (len(readings) - 5)
    scale = PersonScale(np.full(model.in_shape, 0.1, np.float32), np.full(model.in_shape, 2.0, np.float32))
    _, probabilities = told(fed(LivePredictor(model, ALL, scale), creeping))
    rows = model.as_causal().read(creeping)
    answer = model.answer(scale.apply(rows.features, rows.present)[None], rows.present[None])
    np.testing.assert_allclose(probabilities[-1], answer.probabilities[0], atol=1e-5)
    with pytest.raises(PainseqError, match="reference"):
        LivePredictor(make_model("lstm"), ALL, scale)


def test_a_given_reference_is_of_one_person_until_the_next_is_confirmed(make_model, push):
    model = make_model("lstm", normalise=("subject",))
    scale = PersonScale(np.zeros(model.in_shape, np.float32), np.ones(model.in_shape, np.float32))
    live = LivePredictor(model, LiveSettings(warm_up_s=0, window_s=9), scale)
    assert push(live, 5, 0.0).state == "ok"
    states = [push(live, 40, 0.1 + i / 10, side=40).state for i in range(30)]
    assert states[-1] == "other_face"
    live.confirm_person()
    assert push(live, 40, 3.2, side=40).state == "ok"


@pytest.mark.parametrize("points", [False, True])
def test_a_still_face_is_skipped_but_not_for_long_and_its_features_are_held(make_model, points, push):
    live = LivePredictor(make_model("lstm", 10, points), LiveSettings(warm_up_s=0, window_s=9))
    still = [push(live, 20, i / 10) for i in range(10)]
    assert [reading.skipped for reading in still] == [i % 3 != 0 for i in range(10)]
    moved = [push(live, 20 + 4 * i, 0.9 + i / 10) for i in range(1, 4)] if points else []
    moved += [] if points else [push(live, 20, 0.9 + i / 10, shade=60 * (i % 2)) for i in range(1, 4)]
    assert not any(reading.skipped for reading in moved)
    assert live.counts.processed + live.counts.skipped == live.counts.samples == 13


def test_the_rule_of_the_paper_takes_every_tenth_frame_of_a_still_face(make_model, push, picture):
    settings = LiveSettings(warm_up_s=0, window_s=9, skipping=Skipping("paper"))
    live = LivePredictor(make_model("lstm", None, True), settings)
    taken = [i + 1 for i in range(30) if not push(live, 20, i / 10).skipped]
    assert taken == [1, 10, 20, 30]
    with pytest.raises(PainseqError, match="landmarks"):
        LivePredictor(make_model("lstm"), settings).push(picture(20), 0.0)


def test_what_is_skipped_is_held_or_left_out(make_model, push, picture):
    model = make_model("lstm", 10)
    said = {}
    for drop in (False, True):
        live = LivePredictor(model, LiveSettings(warm_up_s=0, window_s=9, skipping=Skipping("face", drop=drop)))
        said[drop] = [[*push(live, 20, i / 10).probabilities.values()] for i in range(7)]
    row = model.features(LivePredictor(model)._follower.push(picture(20), 0.0).crop[None].copy())
    for drop, frames in ((False, 7), (True, 3)):
        answer = model.answer(np.repeat(row, frames, axis=0)[None], np.ones((1, frames), bool))
        np.testing.assert_allclose(said[drop][-1], answer.probabilities[0], atol=1e-5)


def test_pictures_that_come_slowly_stand_for_several_samples(make_model, picture):
    live = LivePredictor(make_model("lstm", 10), LiveSettings(warm_up_s=0, window_s=9, gap_s=9))
    found = [live.push(picture(20 + i), i * 0.4) for i in range(3)]
    assert [[round(reading.time_s, 3) for reading in readings] for readings in found] == [
        [0.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8],
    ]  # fmt: skip
    assert [reading.skipped for reading in found[1]] == [True, True, False, True]


def test_a_source_that_no_live_model_can_read_is_refused(make_model, make_record, push, picture):
    model = make_model("lstm")
    with pytest.raises(PainseqError, match="uint8"):
        LivePredictor(model).push(np.zeros((8, 8), np.uint8), 0.0)
    live = LivePredictor(model, source="camera 2")
    live.push(picture(20), 5.0)
    with pytest.raises(PainseqError, match="camera 2"):
        live.push(picture(20), 4.0)
    with pytest.raises(PainseqError, match="Sidecar"):
        LivePredictor(model, locator=Sidecar())
    for wrong in ({"window_s": 0}, {"hop_s": -1}, {"warm_up_s": float("nan")}):
        with pytest.raises(PainseqError, match=next(iter(wrong))):
            LiveSettings(**wrong)
    for wrong in ({"rule": "all"}, {"threshold": 0}, {"most_s": -1}):
        with pytest.raises(PainseqError, match=next(iter(wrong))):
            Skipping(**wrong)
    assert FaceCrops(Sidecar()).causal is False


def numbered(frame):
    return np.full((1, 1, 1), frame, np.uint8)


@given(
    st.lists(st.floats(0.01, 0.3), min_size=1, max_size=40),
    st.sampled_from([2, 5, 7.3, 30]),
)
def test_samples_are_those_of_a_file(steps_s, fps):
    times_s = np.concatenate([[0.0], np.cumsum(steps_s)])
    sampler = Sampler(fps)
    samples = [
        sample for frame, time_s in enumerate(times_s.tolist()) for sample in sampler.push(numbered(frame), time_s)
    ]
    samples += sampler.finish()
    indices, offsets = frame_indices(times_s, fps=fps)
    assert [int(sample.image.item()) for sample in samples] == indices.tolist()
    assert [sample.time_s for sample in samples] == offsets.tolist()
    assert [sample.repeated for sample in samples] == [False, *(np.diff(indices) == 0).tolist()]
