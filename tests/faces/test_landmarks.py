"""Landmarks as a stream: place and size taken out, and mirrored."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from painseq.data.streams.landmarks import mirror
from painseq.errors import PainseqError
from painseq.faces.landmarks import normalise
from painseq.synthetic.expression import AUS
from painseq.synthetic.face import landmarks_of, shape_of
from painseq.synthetic.look import draw_look


def generated(frames: int, seed: int) -> np.ndarray:
    """Landmarks of one generated person in any expressions, in face units."""
    rng = np.random.default_rng(seed)
    look = draw_look(rng)
    return landmarks_of(look, shape_of(look, rng.uniform(0, 5, (frames, len(AUS)))))


def stream_of(points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(normalise(points * 100, np.ones(len(points), bool)))


def test_normalised_as_its_definition_says():
    points = np.random.default_rng(0).uniform(0, 640, (7, 5, 2)).astype(np.float32)
    stream = normalise(points, np.ones(7, bool))
    assert stream.shape == (7, 10) and stream.dtype == np.float32
    for frame, row in zip(points.astype(np.float64), stream, strict=True):
        centred = frame - frame.mean(axis=0)
        radius = np.sqrt(np.mean([x * x + y * y for x, y in centred]))
        np.testing.assert_allclose(row, (centred / radius).reshape(-1), atol=1e-5)
        np.testing.assert_allclose(row[2:4], centred[1] / radius, atol=1e-5)


@settings(deadline=None)
@given(st.integers(0, 99), st.floats(0.5, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_place_and_size_do_not_matter(seed: int, scale: float, x: float, y: float):
    points = generated(3, seed)
    torch.testing.assert_close(stream_of(points * scale + [x / 100, y / 100]), stream_of(points), rtol=0, atol=1e-4)


def test_zero_without_a_face_and_where_there_is_no_shape():
    points = np.random.default_rng(0).uniform(0, 100, (6, 68, 2)).astype(np.float32)
    points[1] = np.nan
    points[2, 5, 1] = np.nan
    points[3] = 7.0
    points[4] = np.inf
    present = np.array([True, False, True, True, True, False])
    stream = normalise(points, present)
    assert np.isfinite(stream).all()
    assert stream.any(axis=1).tolist() == [True, False, False, False, False, False]
    assert normalise(points[:0], present[:0]).shape == (0, 136)


def test_generated_faces_are_nearly_their_own_mirror_image():
    for seed in range(5):
        stream = stream_of(generated(20, seed))
        there = mirror(stream)
        assert float((there - stream).abs().max()) < 0.1
        x, y = stream.unflatten(1, (68, 2)).unbind(dim=2)
        assert float((torch.stack([-x, y], dim=2).flatten(1) - stream).abs().max()) > 1


def partners(points: np.ndarray) -> list[int]:
    """For each point the one nearest to its mirror image, each taken once: the assignment of least squares."""
    points = points - points.mean(axis=0)
    distances = ((points[:, None] - points[None] * [-1, 1]) ** 2).sum(axis=2)
    return linear_sum_assignment(distances)[1].tolist()


def exchanged() -> list[int]:
    """Which point `mirror` puts in each place."""
    numbers = torch.arange(68.0)
    return mirror(torch.stack([numbers, numbers], dim=1).reshape(1, -1))[0, 1::2].int().tolist()


def test_points_are_exchanged_with_those_that_lie_on_the_other_side():
    assert all(partners(frame) == exchanged() for seed in range(5) for frame in generated(3, seed))


def test_real_faces_say_the_same(assets):
    for frame in np.load(assets / "golden" / "single_face.npz")["faceapi68"]:
        x, y = frame[42:48].mean(axis=0) - frame[36:42].mean(axis=0)
        upright = frame @ (np.array([[x, -y], [y, x]]) / np.hypot(x, y))
        assert partners(upright) == exchanged()


@settings(deadline=None)
@given(st.integers(0, 99))
def test_mirrored_twice_it_is_as_before(seed: int):
    stream = torch.randn(4, 136, generator=torch.Generator().manual_seed(seed))
    once = mirror(stream)
    assert torch.equal(mirror(once), stream) and not torch.equal(once, stream)


@settings(deadline=None)
@given(st.integers(0, 99))
def test_it_is_the_stream_of_the_mirrored_picture(seed: int):
    points = generated(3, seed)
    in_mirror = points[:, exchanged()] * [-1, 1] + [6.4, 0]
    torch.testing.assert_close(mirror(stream_of(points)), stream_of(in_mirror), rtol=0, atol=1e-4)


@pytest.mark.parametrize("points", [5, 100])
def test_other_points_cannot_be_mirrored(points: int):
    with pytest.raises(PainseqError, match=rf"(?s)(?=.*\b{points}\b)(?=.*\bflip\b)"):
        mirror(torch.zeros(3, 2 * points))
