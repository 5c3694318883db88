"""Explanations as videos, and faces drawn from landmarks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.explain import Attribution, Frames, film_strip, write_overlay_video
from painseq.explain.attribution import COARSE
from painseq.explain.overlay_video import PANEL_PX, overlay_frames
from painseq.explain.sketch import sketch
from painseq.synthetic.clips import ClipJob, draw_clip
from painseq.video import open_video, read_chunks

SIDE, FRAMES, FPS = 48, 10, 5


@pytest.fixture(scope="module")
def landmarks():
    job = ClipJob(Path(), "a", "a", "a", "x", "electrical", 2.0, FRAMES / FPS, FPS, SIDE, 0, 2, 1, 1)
    return torch.from_numpy(draw_clip(job).landmarks)


@pytest.fixture
def explained(landmarks):
    """Makes an attribution of green or other crops; a spot moves from left to right; frame 4 has no face."""

    def make(colour=1, points=landmarks):
        crops = torch.zeros(FRAMES, 3, SIDE, SIDE, dtype=torch.uint8)
        crops[:, colour] = 255
        present = torch.arange(FRAMES) != 4
        values = torch.zeros(FRAMES, SIDE, SIDE)
        for frame in range(FRAMES):
            values[frame, 16:32, 4 * frame : 4 * frame + 8] = float(present[frame])
        clip = Frames(crops, present, torch.arange(FRAMES) / FPS, landmarks=points)
        return Attribution(values, clip, "gradcam", 0, "no_pain", 0.0)

    return make


CURVE = (np.arange(FRAMES) / FPS, np.linspace(-1, 1, FRAMES), "relevance")


@pytest.mark.parametrize("curves", [(), (CURVE, CURVE)])
def test_a_video_has_the_frames_and_the_rate_of_the_clip(explained, tmp_path, curves):
    assert write_overlay_video(tmp_path / "o.mp4", explained(), False, curves) == FRAMES
    with open_video(tmp_path / "o.mp4") as video:
        assert np.allclose(video.times_s, np.arange(FRAMES) / FPS, atol=1e-3)
        shown = np.concatenate([images for images, _ in read_chunks(video)])
    meant = np.stack(list(overlay_frames(explained(), False, curves)))
    assert shown.shape == meant.shape
    # As far as H.264 keeps them: each is nearest to the one that it should be.
    small = [part[:, ::8, ::8].astype(float).reshape(FRAMES, -1) for part in (shown, meant)]
    distance = np.abs(small[0][:, None] - small[1][None]).mean(axis=2)
    assert distance.argmin(axis=1).tolist() == list(range(FRAMES))
    bright = meant[:, :, :PANEL_PX].sum(axis=3) > 500
    columns = [np.flatnonzero(frame[100:190].mean(axis=0) > 0.5) for frame in bright]
    # Within half a place of the coarse map.
    assert [float(c.mean()) / PANEL_PX * SIDE for i, c in enumerate(columns) if i != 4] == pytest.approx(
        [4 * frame + 4 for frame in range(FRAMES) if frame != 4], abs=SIDE / COARSE / 2
    )


def test_a_video_of_a_varying_rate_is_as_long_as_the_clip(explained, tmp_path):
    usual = explained()
    times_s = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.64, 0.68, 0.72])
    varying = dataclasses.replace(usual, clip=dataclasses.replace(usual.clip, times_s=times_s))
    write_overlay_video(tmp_path / "o.mp4", varying, False)
    with open_video(tmp_path / "o.mp4") as video:
        assert video.times_s[-1] == pytest.approx(0.72, abs=1e-3)


def test_one_frame_is_a_video_too(explained, landmarks, tmp_path):
    clip = Frames(torch.zeros(1, 3, 8, 8), torch.tensor([True]), torch.zeros(1))
    one = Attribution(torch.ones(1, 8, 8), clip, "gradcam", 0, "no_pain", 0.0)
    assert write_overlay_video(tmp_path / "o.mp4", one, False, [(np.zeros(1), np.ones(1), "pain")]) == 1


def strip(attribution, show_faces):
    return film_strip(attribution.clip, attribution.heat(), "title", show_faces)


def test_no_pixel_of_a_face_is_drawn_unless_it_may_be(explained):
    green, blue = explained(1), explained(2)
    assert strip(green, False) == strip(blue, False)
    assert strip(green, True) != strip(blue, True)
    for one, other in zip(overlay_frames(green, False), overlay_frames(blue, False), strict=True):
        assert np.array_equal(one, other)
    shown = next(overlay_frames(green, True))
    assert (shown[:60, -60:] == [0, 255, 0]).all()


@pytest.mark.parametrize("side", [8, SIDE, 75])
def test_a_map_that_stands_for_a_face_is_coarse(explained, side):
    """A map of single pixels, as of a gradient, would show the face: as fine as it is, less is drawn of it."""
    clip = Frames(torch.zeros(2, 3, side, side), torch.tensor([True, False]), torch.arange(2) / FPS)
    values = torch.rand(2, side, side, generator=torch.Generator().manual_seed(0)) * clip.present[:, None, None]
    noise = Attribution(values, clip, "gradient_x_input", 0, "no_pain", 0.0)
    fine, coarse = noise.heat(), noise.heat(coarse=True)
    assert torch.equal(fine[0], values[0] / values[0].max()) and coarse.shape == fine.shape
    assert float(coarse.max()) == pytest.approx(1) and not coarse[1].any()
    if side > 16:
        assert coarse[0].diff().abs().mean() < 0.2 * fine[0].diff().abs().mean()
    even = Attribution(torch.ones(2, side, side), clip, "gradcam", 0, "no_pain", 0.0)
    assert torch.allclose(even.heat(coarse=True)[0], torch.ones(side, side))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_crops_of_either_kind_can_be_shown(explained, kind):
    found = explained()
    clip = dataclasses.replace(found.clip, x=found.clip.x.to(kind))
    picture = strip(dataclasses.replace(found, clip=clip), True)
    assert picture == strip(found, True)


def test_the_drawn_face_is_that_of_the_landmarks(explained, landmarks):
    assert strip(explained(), False) != strip(explained(points=None), False)
    turned = landmarks + 3
    assert strip(explained(), False) != strip(explained(points=turned), False)


def test_a_sketch_has_ink_at_the_landmarks_and_little_elsewhere(landmarks):
    picture = sketch(landmarks[0], SIDE, 144)
    assert picture.shape == (144, 144) and picture.min() == 0 and picture.max() == 1
    assert picture.mean() < 0.1
    columns, rows = (landmarks[0].numpy() * 3).round().astype(int).clip(1, 142).T
    near = [picture[y - 1 : y + 2, x - 1 : x + 2].max() for x, y in zip(columns, rows, strict=True)]
    assert min(near) > 0.3


@pytest.mark.parametrize("points", [5, 106])
def test_other_landmarks_are_dots_in_an_ellipse(points):
    generator = torch.Generator().manual_seed(0)
    some = torch.rand(points, 2, generator=generator) * 20 + 14
    picture = sketch(some, SIDE, 96)
    columns, rows = (some.numpy() * 2).astype(int).T
    assert picture[rows, columns].min() > 0.5 and picture.mean() < 0.5


def test_unknown_landmarks_draw_nothing(landmarks):
    broken = landmarks[0].clone()
    broken[5, 0] = float("nan")
    assert not sketch(broken, SIDE, 48).any() and not sketch(None, SIDE, 48).any()
    assert not sketch(landmarks[0] + 1000, SIDE, 48).any()
