"""One face followed through a clip."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.faces import Face, FaceTrack, track
from painseq.faces.track import Smoother, Tracker, joined, switch_warning, switched_in


def face(x: float, y: float = 50, side: float = 20, score: float = 0.9, landmarks: bool = False) -> Face:
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    points = np.array([[x, y], [x + 1, y]], np.float32) if landmarks else None
    return Face(box, score, points)


def centres(boxes: np.ndarray) -> list[float]:
    return ((boxes[:, 0] + boxes[:, 2]) / 2).round(3).tolist()


def test_the_largest_at_first_then_the_nearest():
    frames = [[face(20), face(80, side=30)], [face(20, side=40), face(82, side=10)], [face(84), face(20)]]
    found = track(frames, np.arange(3) / 10, smooth_s=0, max_gap_s=0.5)
    assert centres(found.boxes) == [80, 82, 84]
    assert found.present.all()


def test_short_gaps_are_bridged_and_long_ones_are_not():
    frames = [[face(10, landmarks=True)], [], [], [face(16, score=0.6, landmarks=True)], *[[]] * 5]
    frames += [[face(20, landmarks=True)]]
    found = track(frames, np.arange(10) / 10, smooth_s=0, max_gap_s=0.3)
    assert found.present.tolist() == [True] * 4 + [False] * 5 + [True]
    assert centres(found.boxes[:4]) == [10, 12, 14, 16]
    np.testing.assert_allclose(found.scores[:4], [0.9, 0.8, 0.7, 0.6], atol=1e-6)
    assert found.landmarks is not None
    np.testing.assert_allclose(found.landmarks[:4, 0, 0], [10, 12, 14, 16])
    assert np.isnan(found.boxes[4:9]).all() and np.isnan(found.landmarks[4:9]).all()


def test_gaps_count_in_seconds():
    frames = [[face(10)], [], [face(14)], [], [face(18)]]
    found = track(frames, np.array([0, 0.1, 0.2, 0.6, 1.2]), smooth_s=0, max_gap_s=0.25)
    assert found.present.tolist() == [True, True, True, False, True]


def test_nothing_is_extrapolated():
    found = track([[], [face(10)], [face(10)], []], np.arange(4) / 30, smooth_s=1, max_gap_s=1)
    assert found.present.tolist() == [False, True, True, False]


def test_a_far_jump_is_out_of_sight_until_the_gap_has_passed():
    frames = [[face(20)], [face(20)], *[[face(90), face(60, side=10)]] * 6]
    found = track(frames, np.arange(8) / 10, smooth_s=0, max_gap_s=0.3)
    assert found.present.tolist() == [True, True, False, False, False, True, True, True]
    assert centres(found.boxes[5:]) == [90, 90, 90]


def test_a_jump_that_comes_back_is_bridged():
    frames = [[face(20)], [face(90)], [face(22)]]
    found = track(frames, np.arange(3) / 10, smooth_s=0, max_gap_s=0.5)
    assert centres(found.boxes) == [20, 21, 22]


def test_smoothing_averages_noise_within_a_run_only():
    frames = [[face(50 + (-1) ** i)] for i in range(9)] + [[]] * 9 + [[face(90)]] * 9
    found = track(frames, np.arange(27) / 10, smooth_s=0.4, max_gap_s=0.2)
    middle = np.array(centres(found.boxes[2:7]))
    assert np.abs(middle - 50).max() < 0.3
    assert centres(found.boxes[18:]) == [90] * 9


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-1, 1),
)
def test_steady_motion_stays_as_it_is(seen: list[bool], smooth_s: float, max_gap_s: float, speed: float):
    times_s = np.arange(len(seen)) / 10
    frames = [[face(50 + speed * i)] if ok else [] for i, ok in enumerate(seen)]
    found = track(frames, times_s, smooth_s, max_gap_s)
    assert np.all(found.present >= np.array(seen))
    assert np.array_equal(found.present, np.isfinite(found.boxes).all(axis=1))
    expected = 50 + speed * np.arange(len(seen))
    middles = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
    np.testing.assert_allclose(middles[found.present], expected[found.present], atol=1e-3)
    for a, b in itertools.pairwise(np.flatnonzero(found.present)):
        assert b - a == 1 or times_s[b] - times_s[a] > max_gap_s


@pytest.mark.parametrize("frames", [[], [[], [], []]])
def test_no_face_at_all(frames: list[list[Face]]):
    found = track(frames, np.arange(len(frames)) / 30, 0.2, 0.5)
    assert not found.present.any() and found.boxes.shape == (len(frames), 4) and found.landmarks is None


def test_a_locator_that_gives_landmarks_to_some_faces_only_is_told():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b0\.033\b)(?=.*landmarks)(?=.*\b2\b)"):
        track([[face(10, landmarks=True)], [face(10)]], np.arange(2) / 30, 0.2, 0.5)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b0\.067\b)(?=.*landmarks)(?=.*\b2\b)"):
        track([[face(10)], [], [face(10, landmarks=True)]], np.arange(3) / 30, 0.2, 0.5)


def test_spans_without_a_face():
    found = track([[], [face(10)], [face(10)], [], []], np.arange(5) / 10, 0, 0)
    assert found.spans_without_face() == [(0.0, 0.0), (0.3, 0.4)]
    assert found[1:3].spans_without_face() == [] and len(found[1:3]) == 2


def test_each_smoothed_box_is_the_mean_of_its_own_window():
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.01, 0.1, 30))
    frames = [[face(x)] for x in rng.uniform(48, 52, 30)]
    raw, smooth = (track(frames, times_s, width, 0.5).boxes for width in (0, 0.4))
    for i, now in enumerate(times_s):
        half = min(0.2, now - times_s[0], times_s[-1] - now) + 1e-6
        np.testing.assert_allclose(smooth[i], raw[np.abs(times_s - now) <= half].mean(axis=0), rtol=1e-6)


frame = st.lists(st.tuples(st.floats(0, 99), st.floats(1, 40)), max_size=2)


@given(
    st.lists(st.tuples(frame, st.sampled_from([0.04, 0.1, 0.7])), max_size=40),
    st.lists(st.integers(0, 7), max_size=30),
    st.sampled_from([0, 0.05, 0.2, 1.0]),
    st.sampled_from([0, 0.1, 0.5]),
    st.booleans(),
)
def test_however_the_frames_are_handed_over_the_track_is_the_same_bit_for_bit(
    clip: list[tuple[list[tuple[float, float]], float]],
    sizes: list[int],
    smooth_s: float,
    max_gap_s: float,
    landmarks: bool,
):
    frames = [[face(x, side=side, landmarks=landmarks) for x, side in faces] for faces, _ in clip]
    times_s = np.cumsum([step for _, step in clip])
    whole = track(frames, times_s, smooth_s, max_gap_s)
    tracker, smoother = Tracker(max_gap_s), Smoother(smooth_s)
    parts: list[FaceTrack] = []
    borders = [0, *np.minimum(np.cumsum([*sizes, len(frames)]), len(frames)).tolist()]
    for first, end in itertools.pairwise(borders):
        parts.append(smoother.add(tracker.add(times_s[first:end], frames[first:end])))
        if end:
            settled = sum(len(part) for part in parts)
            assert np.all(times_s[settled:end] >= times_s[end - 1] - max_gap_s - smooth_s / 2 - 1e-5)
    parts += [smoother.add(tracker.finish()), smoother.finish()]
    again = joined(parts)
    assert (again.landmarks is None) == (whole.landmarks is None)
    for name in ("times_s", "boxes", "present", "scores", "landmarks", "switched"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert np.array_equal(again.times_s, times_s)


def switched(frames: list[list[Face]], fps: float = 10, **settings: object) -> FaceTrack:
    tracker = Tracker(0.3, **settings)  # type: ignore[arg-type]
    return joined([tracker.add(np.arange(len(frames)) / fps, frames), tracker.finish()])


HIDDEN_FOR_A_WHILE = [[face(20), face(70)]] * 3 + [[face(70)]] * 8 + [[face(21), face(70)]] * 3


def test_another_person_followed_after_a_gap_is_told():
    found = switched(HIDDEN_FOR_A_WHILE)
    assert found.switched_s == (0.6,) and centres(found.boxes[6:]) == [70] * 8
    assert "0.60 s" in switch_warning(found.switched_s)
    assert found[7:].switched_s == ()


def test_only_the_same_person_is_followed_if_asked_for():
    found = switched(HIDDEN_FOR_A_WHILE, same_person=True)
    assert found.switched_s == ()
    assert found.present.tolist() == [True] * 3 + [False] * 8 + [True] * 3
    assert centres(found.boxes[11:]) == [21] * 3


@pytest.mark.parametrize(
    ("before", "after", "is_other"),
    [
        ([face(50)], [face(60)], False),
        ([face(50)], [face(50, side=28)], False),
        ([face(50)], [face(75)], True),
        ([face(50)], [face(50, side=32)], True),
        ([face(50)], [face(50, side=12)], True),
        # Within reach of the last box, but where another face was before.
        ([face(50), face(66)], [face(65)], True),
        # One face found twice is not two people.
        ([face(50), face(54)], [face(53)], False),
    ],
)
def test_after_a_gap_a_face_of_the_same_person_is_near_and_of_the_same_size(
    before: list[Face], after: list[Face], is_other: bool
):
    found = switched([before] * 2 + [[]] * 6 + [after] * 2)
    assert found.switched_s == ((0.8,) if is_other else ())
    assert found.present.tolist() == [True] * 2 + [False] * 6 + [True] * 2
    (alone,) = {tuple(switched([before] * 2 + [[]] * 6 + [after] * 2, same_person=True).present[8:])}
    assert alone == (not is_other,) * 2


def test_a_person_who_moves_far_in_a_short_gap_stays_the_same():
    frames = [[face(20)]] * 3 + [[]] * 2 + [[face(38)]] * 3
    assert switched(frames).switched_s == switched(frames, same_person=True).switched_s == ()
    assert switched(frames, same_person=True).present.all()


def test_the_face_next_to_one_that_vanishes_is_another_persons():
    frames = [[face(50), face(64)]] * 3 + [[face(64)]] * 3
    assert switched(frames).switched_s == (0.3,)
    assert switched(frames, same_person=True).present.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("after", "fps", "is_other"),
    [
        (face(50, landmarks=True), 25, False),
        (face(52, landmarks=True), 25, False),
        (face(55, landmarks=True), 25, True),
        (face(50, side=28, landmarks=True), 25, True),
        # Seconds apart, a face may have moved that far without a cut.
        (face(55, landmarks=True), 2, False),
        # The same box, with other landmarks.
        (Face(face(50).box, 0.9, face(50, landmarks=True).landmarks + 5), 25, True),
    ],
)
def test_a_face_that_jumps_at_a_cut_may_be_another_persons(after: Face, fps: float, is_other: bool):
    frames = [[face(50, landmarks=True)]] * 3 + [[after]] * 3
    found = joined([(tracker := Tracker(0.3)).add(np.arange(6) / fps, frames, {3}), tracker.finish()])
    assert found.switched_s == ((3 / fps,) if is_other else ()) and found.present.all()
    without = joined([(tracker := Tracker(0.3)).add(np.arange(6) / fps, frames), tracker.finish()])
    assert without.switched_s == ()


@given(st.lists(frame, max_size=40))
def test_marks_change_nothing_else_and_are_found_again_in_the_boxes(clip: list[list[tuple[float, float]]]):
    found = switched([[face(x, side=side) for x, side in faces] for faces in clip])
    again = switched_in(found.boxes, found.present)
    assert not (again & ~found.switched).any()
