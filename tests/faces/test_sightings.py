"""Faces in every frame, from looks at few of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from painseq.faces import Face, Locator
from painseq.faces.sightings import Sightings

FPS = 30
VIDEO = Path("a.mp4")


def face(x: float, y: float = 50, side: float = 40, points: float | None = None) -> Face:
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    return Face(box, x / 1000, None if points is None else np.array([[x, y], [x, y + points]], np.float32))


class Known(Locator):
    """Knows the faces in each frame, whose number stands in the picture's first pixel."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self, faces: Sequence[Sequence[Face]]) -> None:
        self.faces = faces
        self.looked: list[int] = []

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        assert images is not None and video == VIDEO
        numbers = images[:, 0, 0, 0].tolist()
        np.testing.assert_allclose(times_s, np.array(numbers) / FPS)
        self.looked += numbers
        return [list(self.faces[number]) for number in numbers]


def pictures(count: int, cuts: Sequence[int] = ()) -> NDArray[np.uint8]:
    images = np.zeros((count, 16, 16, 3), np.uint8)
    for cut in cuts:
        images[cut:] += 100
    images[:, 0, 0, 0] = np.arange(count)
    return images


def sight(
    faces: Sequence[Sequence[Face]], every_s: float, sizes: Sequence[int] = (), cuts: Sequence[int] = ()
) -> tuple[list[list[Face]], list[int]]:
    """What is given for all frames, and the frames looked at; the frames handed over in parts of these sizes."""
    locator = Known(faces)
    sightings = Sightings(locator, VIDEO, np.arange(len(faces)) / FPS, every_s)
    images, found = pictures(len(faces), cuts), []
    borders = np.minimum(np.cumsum(sizes, dtype=int), len(faces))
    for part in np.split(images, borders):
        found += sightings.add(part)
    assert sightings.located == len(locator.looked) == len({*locator.looked})
    return found, sorted(locator.looked)


def middles(found: Sequence[Sequence[Face]]) -> list[list[float]]:
    return [[float(one.box[0] + one.box[2]) / 2 for one in faces] for faces in found]


def test_steady_motion_is_interpolated():
    truth = [[face(100 + i / 10, points=3 + i / 50)] for i in range(20)]
    found, looked = sight(truth, 0.2)
    assert looked == [0, 6, 12, 18, 19]
    np.testing.assert_allclose(middles(found), middles(truth), atol=1e-4)
    for one, other in zip(found, truth, strict=True):
        assert one[0].score == pytest.approx(other[0].score)
        np.testing.assert_allclose(one[0].landmarks, other[0].landmarks, atol=1e-4)


def test_zero_is_every_frame():
    truth = [[face(100 + 30 * (i % 3))] if i % 4 else [] for i in range(20)]
    found, looked = sight(truth, 0)
    assert looked == list(range(20)) and found == truth


def test_frames_further_apart_than_that_are_all_looked_at():
    assert sight([[face(100)]] * 5, 0.02)[1] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        [],  # the face goes
        [face(100), face(300)],  # another one comes
        [face(110)],  # it moves
        [face(100, side=50)],  # it grows
        [face(100, points=3)],  # it gets landmarks
    ],
)
def test_around_a_change_every_frame_is_looked_at(change: list[Face]):
    truth = [[face(100)]] * 9 + [change] * 9
    found, looked = sight(truth, 0.2)
    assert looked == [0, *range(6, 13), 17]
    assert middles(found) == middles(truth)


def test_landmarks_that_move_are_looked_at_and_a_still_box_does_not_hide_them():
    truth = [[face(100, points=abs(i - 9))] for i in range(19)]
    assert sight(truth, 0.3)[1] == list(range(19))
    assert sight([[face(100)]] * 19, 0.3)[1] == [0, 9, 18]


def test_nobody_on_either_side_is_nobody_between():
    found, looked = sight([[]] * 19, 0.3)
    assert looked == [0, 9, 18] and found == [[]] * 19


def test_two_faces_keep_to_themselves():
    truth = [[face(100 + i / 10), face(300 - i / 10)][:: 1 if i % 2 else -1] for i in range(13)]
    found, looked = sight(truth, 0.2)
    assert looked == [0, 6, 12]
    for one, other in zip(middles(found), middles(truth), strict=True):
        np.testing.assert_allclose(sorted(one), sorted(other), atol=1e-3)


@pytest.mark.parametrize("sizes", [[], [8, 8], [7, 1, 1]])
def test_both_sides_of_a_cut_are_looked_at(sizes: list[int]):
    truth = [[face(100)]] * 8 + [[face(101)]] * 11
    found, looked = sight(truth, 0.3, sizes, cuts=[8])
    assert looked == [0, 7, 8, 9, 18] and middles(found) == middles(truth)


moves = st.lists(st.sampled_from([0.0, 0.2, 0.5, 4.0, -300.0]), min_size=1, max_size=60)


@given(
    moves, st.lists(st.integers(0, 9), max_size=12), st.sampled_from([0, 0.1, 0.2, 0.5]), st.sets(st.integers(1, 59))
)
def test_the_parts_do_not_matter_and_what_was_looked_at_is_given(
    steps: list[float], sizes: list[int], every_s: float, cuts: set[int]
):
    places = np.cumsum(steps)
    truth = [[face(x)] if x >= 0 else [] for x in places]
    cuts_here = sorted(cut for cut in cuts if cut < len(truth))[:1]
    found, looked = sight(truth, every_s, sizes, cuts_here)
    again, the_same = sight(truth, every_s, (), cuts_here)
    assert looked == the_same and len(found) == len(truth)
    for one, other in zip(found, again, strict=True):
        assert [part.box.tolist() for part in one] == [part.box.tolist() for part in other]
    assert {0, len(truth) - 1} <= {*looked}
    assert every_s == 0 or np.diff(looked).max(initial=0) / FPS <= max(every_s, 1 / FPS) + 1e-6
    assert all(found[frame] == truth[frame] for frame in looked)


@pytest.mark.parametrize("sizes", [[], [3, 1, 5], [10]])
def test_frames_after_a_cut_are_named(sizes: list[int]):
    locator = Known([[face(50)]] * 20)
    sightings = Sightings(locator, VIDEO, np.arange(20) / FPS, 0.2)
    for part in np.split(pictures(20, cuts=[4, 10]), np.cumsum(sizes, dtype=int)):
        sightings.add(part)
    assert sightings.cuts == {4, 10}
