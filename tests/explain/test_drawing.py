"""Film strips."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from painseq.explain import Frames, film_strip
from painseq.explain.drawing import contact_sheet, overlay


def strip(show_faces: bool, frames: int = 10, **more: object) -> np.ndarray:
    """Faces of pure green, no heat."""
    crops = torch.zeros(frames, 3, 16, 16, dtype=torch.uint8)
    crops[:, 1] = 255
    present = torch.arange(frames) % 3 != 1
    heat = more.pop("heat", torch.zeros(frames, 16, 16))
    picture = film_strip(Frames(crops, present, torch.arange(frames) / 5), heat, "a title", show_faces, **more)
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def green(picture: np.ndarray) -> int:
    return int(((picture[..., 1] > 200) & (picture[..., 0] < 60) & (picture[..., 2] < 60)).sum())


def test_faces_are_drawn_only_when_they_may_be_shown():
    assert green(strip(True)) > 1000
    assert green(strip(False)) == 0


def test_a_frame_between_two_without_a_face_is_seen_in_the_curve():
    alone = np.where(np.arange(10) == 4, 0.5, np.nan)
    picture = strip(False, curves=[(np.arange(10) / 5, alone, "pain")])
    assert 1 <= (picture[..., 2] - picture[..., 0] > 40).sum() < 50


@pytest.mark.parametrize("frames", [1, 3, 30])
def test_a_curve_stands_below_and_any_length_can_be_drawn(frames):
    curve = (np.arange(frames) / 5, np.linspace(0, 1, frames), "pain")
    signed = (np.arange(frames) / 5, np.linspace(-1, 1, frames), "relevance")
    heights = [strip(False, frames, curves=curves).shape[0] for curves in ([], [curve], [curve, signed])]
    assert heights == sorted(set(heights))


def test_without_a_map_the_curves_stand_alone():
    curve = (np.arange(10) / 5, np.linspace(0, 1, 10), "pain")
    assert green(strip(True, heat=None, curves=[curve])) == 0


def test_the_stronger_the_heat_the_more_it_covers():
    face = np.full((2, 2, 3), 255, np.uint8)
    mixed = overlay(face, np.array([[0.0, 0.3], [0.6, 1.0]]))
    assert mixed.shape == (2, 2, 3) and np.allclose(mixed[0, 0], 1)
    distance = np.abs(mixed - 1).sum(axis=-1).ravel()
    assert np.all(np.diff(distance[:3]) > 0) and mixed.min() >= 0 and mixed.max() <= 1


def test_a_contact_sheet_is_a_picture():
    sheet = contact_sheet([np.zeros((8, 8, 3), np.uint8)] * 5, list("abcde"), columns=3)
    assert Image.open(io.BytesIO(sheet)).format == "PNG"
