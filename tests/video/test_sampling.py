"""Which frames are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.video import frame_indices


@pytest.mark.parametrize("native", [30.0, 30000 / 1001, 29.97])
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("frames", [300, 450])
def test_ten_seconds_at_30_fps_are_the_first_300_frames(native: float, rounded: bool, frames: int):
    times_s = np.arange(frames) / native
    if rounded:
        times_s = times_s.round(3)
    indices, samples_s = frame_indices(times_s, 0.0, 10.0, 30.0)
    np.testing.assert_array_equal(indices, np.arange(300))
    np.testing.assert_allclose(samples_s, np.arange(300) / 30)


@pytest.mark.parametrize("start_s", [0.0, 0.1, 3.7, 10.0, 20.0, 49.9])
def test_a_span_that_starts_anywhere_has_its_300_frames(start_s: float):
    indices, samples_s = frame_indices(np.arange(1800) / 30, start_s, start_s + 10, 30.0)
    np.testing.assert_array_equal(indices, round(start_s * 30) + np.arange(300))
    assert samples_s[0] == 0


def test_without_fps_every_frame_of_the_span():
    times_s = np.array([0.0, 0.5, 0.7, 1.5, 2.0])
    indices, samples_s = frame_indices(times_s, 0.5, 2.0, None)
    assert indices.tolist() == [1, 2, 3]
    np.testing.assert_allclose(samples_s, [0.0, 0.2, 1.0])


def test_equally_near_takes_the_earlier_frame():
    indices, _ = frame_indices(np.array([0.0, 0.2, 0.4]), 0.0, None, 10.0)
    assert indices.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_short_video_ends_early_and_an_empty_span_is_empty():
    times_s = np.arange(25) / 25
    assert len(frame_indices(times_s, 0, 10, 30)[0]) == 30
    assert len(frame_indices(times_s, 5, 10, 30)[0]) == 0
    assert len(frame_indices(times_s, 5, 10, None)[0]) == 0
    assert frame_indices(np.zeros(1), 0, None, 10)[0].tolist() == [0]
    assert len(frame_indices(np.zeros(0), 0, None, 10)[0]) == 0


@pytest.mark.parametrize(
    ("start_s", "end_s", "fps", "word"),
    [(-1, None, None, "start_s"), (2, 1, None, "end_s"), (0, None, 0, "fps"), (0, None, float("nan"), "fps")],
)
def test_senseless_spans_are_refused(start_s: float, end_s: float | None, fps: float | None, word: str):
    with pytest.raises(PainseqError, match=word):
        frame_indices(np.arange(3.0), start_s, end_s, fps)


steps_s = st.lists(st.floats(0.005, 0.2), min_size=1, max_size=60)


@given(steps_s, st.floats(0, 3), st.one_of(st.none(), st.floats(0.1, 5)), st.floats(0.5, 60))
def test_each_sample_is_the_nearest_frame(steps: list[float], start_s: float, length_s: float | None, fps: float):
    times_s = np.concatenate([[0.0], np.cumsum(steps)])
    end_s = None if length_s is None else start_s + length_s
    indices, samples_s = frame_indices(times_s, start_s, end_s, fps)
    np.testing.assert_allclose(samples_s, np.arange(len(samples_s)) / fps)
    assert np.all(np.diff(indices) >= 0)
    moments = start_s + samples_s
    distances = np.abs(times_s[None] - moments[:, None])
    np.testing.assert_allclose(distances[np.arange(len(indices)), indices], distances.min(axis=1), atol=2e-6)
    limit = times_s[-1] + np.median(np.diff(times_s)) / 2
    assert np.all(moments <= limit + 1e-5)
    following = start_s + len(indices) / fps
    assert following > min(limit, np.inf if end_s is None else end_s) - 1e-5


@given(steps_s, st.floats(0, 3), st.floats(0.1, 5))
def test_every_frame_lies_in_its_span(steps: list[float], start_s: float, length_s: float):
    times_s = np.concatenate([[0.0], np.cumsum(steps)])
    indices, samples_s = frame_indices(times_s, start_s, start_s + length_s, None)
    inside = (times_s >= start_s - 1e-6) & (times_s < start_s + length_s - 1e-6)
    np.testing.assert_array_equal(indices, np.flatnonzero(inside))
    np.testing.assert_allclose(samples_s, times_s[inside] - start_s)
