"""One random transformation for a whole clip."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from painseq.data.augment import Augment, Transformation
from painseq.errors import PainseqError
from painseq.spec import build, spec_of

OFF = {
    "rotation_deg": 0.0,
    "shift": 0.0,
    "zoom": 0.0,
    "brightness": (1.0, 1.0),
    "flip": 0.0,
    "grid_distortion": 0.0,
}


def only(**strengths: object) -> Augment:
    return Augment(**{**OFF, **strengths})  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(seed))


def smooth(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1, 3, H, W) without edges, so that small differences of place make small differences of value."""
    pictures = np.random.default_rng(seed).uniform(0, 255, (3, height, width))
    pictures = ndimage.gaussian_filter(pictures, (0, 2, 2))
    pictures = 255 * (pictures - pictures.min()) / np.ptp(pictures)
    return torch.from_numpy(pictures.round().astype(np.uint8))[None]


shapes = st.tuples(st.integers(0, 5), st.just(3), st.integers(1, 40), st.integers(1, 40))


@settings(deadline=None)
@given(shapes, st.integers(0, 99))
def test_without_strength_nothing_changes(shape: tuple[int, ...], seed: int):
    video = noise(*shape, seed=seed)
    out, flipped = only()(video, seeded(seed))
    assert torch.equal(out, video) and flipped is False


def test_a_large_picture_does_not_change_either():
    video = noise(1, 3, 8, 4096)
    assert torch.equal(only()(video, seeded())[0], video)


@settings(deadline=None)
@given(shapes, st.integers(0, 99))
def test_flip_alone_is_the_mirror_image(shape: tuple[int, ...], seed: int):
    video = noise(*shape, seed=seed)
    out, flipped = only(flip=1.0)(video, seeded(seed))
    assert torch.equal(out, torch.flip(video, [-1])) and flipped is True


@settings(deadline=None, max_examples=50)
@given(shapes, st.integers(0, 99), st.floats(0, 180), st.floats(0, 1), st.floats(0, 0.9), st.floats(0, 0.25))
def test_shape_type_and_determinism(shape, seed, rotation_deg, shift, zoom, grid_distortion):
    video = noise(*shape, seed=seed)
    before = video.clone()
    augment = Augment(rotation_deg, shift, zoom, (0.5, 2.0), 0.5, grid_distortion)
    out, flipped = augment(video, seeded(seed))
    assert out.shape == video.shape and out.dtype == torch.uint8 and isinstance(flipped, bool)
    again, flipped_again = augment(video, seeded(seed))
    assert torch.equal(out, again) and flipped == flipped_again and torch.equal(video, before)


def test_every_frame_of_a_clip_moves_alike():
    video = noise(40, 3, 60, 50)
    generator = seeded(3)
    out, _ = Augment()(video, generator)
    for frame in (0, 7, 39):
        alone, _ = Augment()(video[frame : frame + 1], seeded(3))
        assert torch.equal(out[frame], alone[0])
    other, _ = Augment()(video, generator)
    assert not torch.equal(out, other)


def blob(height: int, width: int, x: float, y: float) -> torch.Tensor:
    rows, columns = np.mgrid[:height, :width]
    dot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    return torch.from_numpy(dot.round().astype(np.uint8)).expand(1, 3, height, width)


def moved(augment: Augment, x: float, y: float, seed: int) -> tuple[float, float]:
    """How far a dot at (x, y) of a picture 80 wide and 60 high moves, in pixels."""
    before = ndimage.center_of_mass(blob(60, 80, x, y)[0, 0].numpy())
    after = ndimage.center_of_mass(augment(blob(60, 80, x, y), seeded(seed))[0][0, 0].numpy())
    return after[1] - before[1], after[0] - before[0]


# Of a picture 80 wide and 60 high, the first inner corner of the cells lies at (15.5, 11.5), the centre 24 to the right
# of it and 18 below.
BOUNDS = [
    ({"shift": 0.05}, (0.05 * 80, 0.05 * 60)),
    ({"zoom": 0.1}, (0.1 * 24, 0.1 * 18)),
    ({"rotation_deg": 5.0}, (np.sin(np.pi / 36) * 18 + 0.1, np.sin(np.pi / 36) * 24 + 0.1)),
    ({"grid_distortion": 0.2}, (0.2 * 80 / 5, 0.2 * 60 / 5)),
]


@pytest.mark.parametrize(("strength", "most"), BOUNDS)
def test_strengths_bound_how_far_a_dot_moves(strength: dict[str, float], most: tuple[float, float]):
    steps = np.array([moved(only(**strength), 15.5, 11.5, seed) for seed in range(60)])
    farthest = np.abs(steps).max(axis=0)
    assert (farthest <= np.array(most) + 0.15).all()
    assert (farthest >= 0.8 * np.array(most) - 0.15).all()
    assert (steps.min(axis=0) < 0).all() and (steps.max(axis=0) > 0).all()


def transformation(**changes: object) -> Transformation:
    plain = {"angle_deg": 0.0, "zoom": 1.0, "shift": (0.0, 0.0), "brightness": 1.0, "flip": False}
    return Transformation(**{**plain, "corners": torch.zeros(2, 4, 4), **changes})  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    st.booleans(),
)
def test_rotation_zoom_and_shift_are_those_of_scipy(height, width, angle_deg, zoom, shift, flip):
    picture = smooth(height, width)
    out = transformation(angle_deg=angle_deg, zoom=zoom, shift=shift, flip=flip).apply(picture)[0].numpy()
    angle = np.deg2rad(angle_deg)
    # In scipy's order of axes, y first: clockwise on a screen, whose y points down.
    forward = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array([height, width]) - 1) / 2
    back = np.linalg.inv(forward)
    offset = centre - back @ (centre + np.array([shift[1] * height, shift[0] * width]))
    channels = picture[0].numpy()[:, :, ::-1] if flip else picture[0].numpy()
    for channel, seen in zip(channels.astype(float), out, strict=True):
        expected = ndimage.affine_transform(channel, back, offset, order=1, mode="grid-constant")
        assert np.abs(seen - expected).max() < 0.6


def test_the_angle_is_clockwise():
    video = torch.zeros(1, 3, 21, 21, dtype=torch.uint8)
    video[..., 2, 10] = 255
    assert transformation(angle_deg=90.0).apply(video)[0, 0, 10, 18] == 255


def test_grid_distortion_is_that_of_scipy():
    height, width = 45, 60
    picture = smooth(height, width)
    corners = (torch.rand(2, 4, 4, generator=seeded()) - 0.5) / 2
    out = transformation(corners=corners).apply(picture)[0].numpy()
    # Edges of the cells, in pixels; the corners on the border stay.
    edges = (np.linspace(-0.5, height - 0.5, 6), np.linspace(-0.5, width - 0.5, 6))
    bent = np.pad(corners.numpy(), [(0, 0), (1, 1), (1, 1)])
    places = np.stack(np.mgrid[:height, :width], axis=-1).astype(float)
    x, y = (RegularGridInterpolator(edges, part)(places) for part in bent)
    source = [places[..., 0] + y * height / 5, places[..., 1] + x * width / 5]
    for channel, seen in zip(picture[0].numpy().astype(float), out, strict=True):
        expected = ndimage.map_coordinates(channel, source, order=1, mode="grid-constant")
        assert np.abs(seen - expected).max() < 0.6


def test_brightness_multiplies_and_ends_at_255():
    video = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    for factor in (0.0, 0.9, 1.1, 3.0):
        out, _ = only(brightness=(factor, factor))(video, seeded())
        expected = np.clip(np.rint(video.numpy().astype(np.float32) * np.float32(factor)), 0, 255)
        np.testing.assert_array_equal(out.numpy(), expected)


def test_what_comes_from_outside_is_black():
    white = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    out = transformation(shift=(0.25, -0.5)).apply(white)[0]
    assert not out[:, :, :10].any() and not out[:, 20:].any() and bool((out[:, :20, 10:] == 255).all())


def test_draws_fill_their_ranges_and_no_more():
    generator, augment = seeded(), Augment(flip=0.3)
    draws = [augment.draw(generator) for _ in range(2000)]
    columns = {
        "angle": ([drawn.angle_deg for drawn in draws], -3.0, 3.0),
        "zoom": ([drawn.zoom for drawn in draws], 0.95, 1.05),
        "right": ([drawn.shift[0] for drawn in draws], -0.03, 0.03),
        "down": ([drawn.shift[1] for drawn in draws], -0.03, 0.03),
        "brightness": ([drawn.brightness for drawn in draws], 0.9, 1.1),
        "corners": (torch.stack([drawn.corners for drawn in draws]).flatten().tolist(), -0.1, 0.1),
    }
    for values, low, high in columns.values():
        span = high - low
        assert low <= min(values) < low + 0.01 * span and high - 0.01 * span < max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < 0.03 * span
    assert abs(np.corrcoef([drawn.shift for drawn in draws], rowvar=False)[0, 1]) < 0.1
    assert abs(np.mean([drawn.flip for drawn in draws]) - 0.3) < 0.04


def test_strengths_do_not_change_what_else_is_drawn():
    one, other = seeded(5), seeded(5)
    Augment()(noise(1, 3, 8, 8), one)
    only(flip=0.5)(noise(2, 3, 9, 9), other)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize(
    "changes",
    [
        {"rotation_deg": -1.0},
        {"rotation_deg": float("nan")},
        {"shift": 1.1},
        {"zoom": 1.0},
        {"brightness": (1.1, 0.9)},
        {"brightness": (-0.1, 1.0)},
        {"brightness": (1.0, float("inf"))},
        {"brightness": (1.0,)},
        {"flip": 1.5},
        {"grid_distortion": 0.3},
    ],
)
def test_senseless_strengths_are_refused(changes: dict[str, object]):
    with pytest.raises(PainseqError, match=next(iter(changes))):
        only(**changes)


@pytest.mark.parametrize("video", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_only_clips_of_uint8(video: torch.Tensor):
    with pytest.raises(ValueError, match="uint8"):
        Augment()(video, seeded())


def test_its_specification_builds_it_again():
    augment = Augment(2.0, 0.01, 0.02, (0.8, 1.2), 0.25, 0.2)
    again = build(spec_of(augment), Augment)
    assert spec_of(again) == spec_of(augment)
    video = noise(2, 3, 20, 20)
    assert torch.equal(augment(video, seeded())[0], again(video, seeded())[0])
