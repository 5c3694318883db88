"""One face followed picture by picture, against the same pictures read from a file in one go."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces import (
    CropChunk,
    Face,
    FaceCrops,
    FaceFollower,
    FaceMesh,
    FollowedFace,
    FullFrame,
    Locator,
    Sidecar,
    YuNet,
)
from painseq.faces.sightings import LiveSightings
from painseq.faces.track import Smoother, Tracker, joined, smoothed
from painseq.video import open_video, write_video

FPS = 30


class Corners(Locator):
    """Finds the bright square, with 68 points of which the eyes tilt with its place; a stand-in for a detector."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self) -> None:
        self.looked_s: list[float] = []

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        assert images is not None
        self.looked_s += times_s.tolist()
        found: list[list[Face]] = []
        for image in images:
            y, x = np.nonzero(image.mean(axis=2) > 128)
            if not len(x):
                found.append([])
                continue
            box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
            points = np.tile(box[:2], (68, 1))
            points[[42, 45]] += [8, 2 + box[0] / 10]
            found.append([Face(box, 0.5, points)])
        return found


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 30 fps: a square that creeps, is away for 0.2 and 0.7 s, then runs; a cut before the last half."""
    path = tmp_path_factory.mktemp("follower") / "moving.mp4"
    frames = np.zeros((90, 64, 96, 3), np.uint8)
    for i, frame in enumerate(frames):
        x = i // 10 if i < 60 else 20 + (i - 60)
        frame[:] = 0 if i < 75 else 80
        if not (12 <= i < 18 or 30 <= i < 51):
            frame[20:36, x : x + 16] = 255
    write_video(path, frames, FPS, crf=5)
    return path


def together(chunks: Sequence[CropChunk]) -> CropChunk:
    names = ("crops", "times_s", "present", "boxes", "landmarks", "angles_rad")
    found = {
        name: None if getattr(chunks[0], name) is None else np.concatenate([getattr(chunk, name) for chunk in chunks])
        for name in names
    }
    return CropChunk(backend=chunks[0].backend, switched_s=sum((chunk.switched_s for chunk in chunks), ()), **found)


def pushed(face: FaceCrops, video: Path) -> list[FollowedFace]:
    follower = FaceFollower(face)
    with open_video(video, face.backend) as opened:
        return [
            follower.push(opened.frames([frame])[0], time_s) for frame, time_s in enumerate(opened.times_s.tolist())
        ]


def check_equal(face: FaceCrops, video: Path) -> list[FollowedFace]:
    """One by one and from the file in one go, bit for bit."""
    whole, single = together(list(face.as_causal().clip(video, chunk_frames=50))), pushed(face, video)
    np.testing.assert_array_equal(np.stack([one.crop for one in single]), whole.crops)
    np.testing.assert_array_equal(np.stack([one.box for one in single]), whole.boxes)
    assert [one.present for one in single] == whole.present.tolist()
    assert tuple(one.time_s for one in single if one.switched) == whole.switched_s
    for frame, one in enumerate(single):
        if one.present and whole.landmarks is not None:
            np.testing.assert_array_equal(one.landmarks, whole.landmarks[frame])
        if one.present and whole.angles_rad is not None:
            assert one.angle_rad == whole.angles_rad[frame]
    return single


@pytest.mark.parametrize("every_s", [0.2, 0])
@pytest.mark.parametrize("kind", ["square", "aligned", "landmark_box"])
def test_picture_by_picture_is_the_file_in_one_go(moving: Path, kind, every_s: float):
    single = check_equal(FaceCrops(Corners(), kind, size_px=16, max_gap_s=0.3, every_s=every_s), moving)
    assert [one.is_cut for one in single].index(True) == 75
    held = 9 if every_s == 0 else 12  # for max_gap_s after the face was last looked at, or held
    assert [one.present for one in single[30:51]] == [True] * held + [False] * (21 - held)


def test_the_whole_frame_can_be_followed(moving: Path):
    assert all(one.present and one.faces == 1 for one in check_equal(FaceCrops(FullFrame(), size_px=16), moving))


def test_nothing_ahead_is_looked_at(moving: Path):
    face = FaceCrops(Corners(), size_px=16, causal=True)
    whole = together(list(face.clip(moving)))
    for end_s in (0.4, 1.5, 2.2):
        part = together(list(face.clip(moving, end_s=end_s)))
        np.testing.assert_array_equal(part.crops, whole.crops[: len(part)])
        np.testing.assert_array_equal(part.boxes, whole.boxes[: len(part)])


def test_the_locator_looks_seldom_at_a_still_face_and_always_at_a_fast_one(moving: Path):
    face = FaceCrops(locator := Corners(), size_px=16)
    follower = FaceFollower(face)
    with open_video(moving) as opened:
        for frame, time_s in enumerate(opened.times_s.tolist()):
            follower.push(opened.frames([frame])[0], time_s)
    looked = {round(time_s * FPS) for time_s in locator.looked_s}
    assert follower.located == len(looked) == len(locator.looked_s)
    assert not looked & {1, 2, 3, 4, 5} and set(range(67, 90)) <= looked


@pytest.mark.parametrize("name", ["single_face.mp4", "face_noface.mov", "no_face.mp4"])
@pytest.mark.parametrize("locator", ["yunet", "mesh"])
def test_real_videos(assets: Path, name: str, locator: str):
    pytest.importorskip("cv2", exc_type=ImportError)
    yunet = str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx")
    mesh = str(assets / "weights" / "face_mesh" / "face_landmarker.task")
    if locator == "yunet":
        check_equal(FaceCrops(YuNet(yunet), size_px=64), assets / "videos" / name)
    elif name == "single_face.mp4":
        check_equal(FaceCrops(FaceMesh(mesh, yunet), "aligned", size_px=64), assets / "videos" / name)


def test_memory_does_not_grow():
    follower = FaceFollower(FaceCrops(Corners(), size_px=8))
    image = np.zeros((32, 32, 3), np.uint8)
    peaks = []
    for part in range(3):
        tracemalloc.start()
        for i in range(300):
            image[:] = 0
            image[4:28, i % 8 : i % 8 + 20] = 255 * (i % 40 > 3)
            follower.push(image, (300 * part + i) / 25)
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        follower.face.locator.looked_s.clear()  # type: ignore[attr-defined]
    assert peaks[2] < peaks[1] + 4096


def test_a_live_source_needs_a_locator_of_pictures_and_times_that_do_not_go_back():
    with pytest.raises(PainseqError, match=r"(?s)(?=.*Sidecar)(?=.*YuNet)"):
        FaceFollower(FaceCrops(Sidecar()))
    follower = FaceFollower(FaceCrops(FullFrame(), size_px=8), "camera 3")
    follower.push(np.zeros((8, 8, 3), np.uint8), 2.0)
    with pytest.raises(PainseqError, match=r"(?s)camera 3.*1\.0.*2\.0"):
        follower.push(np.zeros((8, 8, 3), np.uint8), 1.0)


def test_causal_is_part_of_the_identity_only_where_it_is_set():
    plain = FaceCrops(Sidecar(), tracks=None)
    assert "causal" not in plain.identity() and plain.as_causal().tracking()["causal"] is True
    assert plain.as_causal().fingerprint() != plain.fingerprint() and not plain.causal
    assert FaceCrops.from_spec(plain.as_causal().record()).causal


def face_at(x: float, side: float = 40) -> Face:
    return Face(np.array([x - side / 2, 30, x + side / 2, 30 + side], np.float32), 1.0)


def test_a_face_that_goes_is_held_for_the_longest_gap_but_not_beyond_a_cut():
    tracker = Tracker(0.3, causal=True)
    frames = [[face_at(50)], *[[]] * 5, [face_at(52)], [], []]
    found = tracker.add(np.arange(9) / 10, frames, cuts={8})
    assert found.present.tolist() == [True, True, True, True, False, False, True, True, False]
    assert found.boxes[[1, 3, 7], 0].tolist() == [30, 30, 32] and not len(tracker.finish())


def test_smoothing_uses_the_earlier_half_of_the_window_and_begins_anew_with_another_person():
    frames = [[face_at(50 + i)] for i in range(6)] + [[face_at(75)]] * 2
    track = Tracker(0.5, causal=True).add(np.arange(8) / 10, frames, cuts={6})
    assert track.switched.tolist() == [False] * 6 + [True, False]
    assert (smoothed(track, 0.4, causal=True).boxes[:, 0] + 20).tolist() == [50, 50.5, 51, 52, 53, 54, 75, 75]


def test_after_lost_pictures_another_face_in_the_place_is_told():
    image, other = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    image[20:36, 10:26], other[20:36, 30:46] = 255, 255
    for lost_s, is_other in ((0.2, False), (2.0, True)):
        follower = FaceFollower(FaceCrops(Corners(), size_px=8, max_gap_s=0.5))
        assert follower.push(image, 0.0).present
        follower.interrupt()
        after = follower.push(other, lost_s)
        assert (after.present, after.switched, after.is_cut) == (True, is_other, False)


steps = st.lists(
    st.tuples(st.lists(st.floats(0, 99), max_size=2), st.sampled_from([0.04, 0.1, 0.7]), st.booleans()), max_size=30
)


@given(steps, st.lists(st.integers(0, 7), max_size=20), st.sampled_from([0, 0.05, 0.2, 1.0]))
def test_a_causal_track_is_final_at_once_however_the_frames_are_handed_over(clip, sizes, smooth_s: float):
    frames, times_s = [[face_at(x) for x in faces] for faces, _, _ in clip], np.cumsum([step for _, step, _ in clip])
    cuts = {frame for frame, (_, _, cut) in enumerate(clip) if cut}
    whole = smoothed(Tracker(0.3, causal=True).add(times_s, frames, cuts), smooth_s, causal=True)
    tracker, smoother = Tracker(0.3, causal=True), Smoother(smooth_s, causal=True)
    parts, first = [], 0
    for size in [*sizes, len(frames)]:
        part = slice(first, min(first + size, len(frames)))
        here = {cut - first for cut in cuts if part.start <= cut < part.stop}
        parts.append(smoother.add(tracker.add(times_s[part], frames[part], here)))
        assert len(parts[-1]) == part.stop - part.start
        first = part.stop
    again = joined(parts)
    assert not len(tracker.finish()) and not len(smoother.finish())
    for name in ("times_s", "boxes", "present", "switched"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


class Numbered(Corners):
    """A face that moves by so many pixels a frame, at 25 frames a second."""

    def __init__(self, step_px: float) -> None:
        super().__init__()
        self.step_px = step_px

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        self.looked_s += times_s.tolist()
        return [[face_at(50 + self.step_px * time_s * 25)] for time_s in times_s]


@pytest.mark.parametrize(("step_px", "looks"), [(0.05, [0, 5, 10, 15]), (0.5, [0, *range(5, 20)])])
def test_faces_are_held_as_long_as_they_move_little(step_px: float, looks: list[int]):
    sightings = LiveSightings(locator := Numbered(step_px), Path("camera"), 0.2)
    left = [sightings.look(np.zeros((8, 8, 3), np.uint8), frame / 25)[0][0].box[0] for frame in range(20)]
    assert [round(time_s * 25) for time_s in locator.looked_s] == looks
    last_look = [max(look for look in looks if look <= frame) for frame in range(20)]
    np.testing.assert_allclose(left, 30 + step_px * np.array(last_look), rtol=1e-6)
