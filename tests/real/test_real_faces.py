"""Tracking instead of detecting, on real faces: how far the crops lie from those of every-frame detection."""

import pickle
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.faces import FaceCrops, YuNet
from painseq.faces.track import smoothed
from painseq.faces.tracks import TrackFolder
from painseq.video import open_video, write_video

CROP_PX = 224


@pytest.fixture(scope="module")
def yunet(assets: Path) -> YuNet:
    pytest.importorskip("cv2", exc_type=ImportError)
    return YuNet(str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"))


@pytest.mark.parametrize("name", ["single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov", "no_face.mp4"])
def test_crops_lie_within_five_pixels_of_those_of_every_frame(assets: Path, yunet: YuNet, name: str):
    video = assets / "videos" / name
    stored = FaceCrops(yunet).find_track(video)
    few, every = smoothed(stored.face, 0.2), FaceCrops(yunet, every_s=0).follow(video)
    np.testing.assert_array_equal(few.present, every.present)
    assert stored.located < 0.4 * len(few)
    if not every.present.any():
        return
    squares = []
    for boxes in (few.boxes[few.present], every.boxes[few.present]):
        centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) * 1.2
        squares.append(np.concatenate([centre - side / 2, centre + side / 2], axis=1))
    apart_px = np.abs(squares[0] - squares[1]).max(axis=1) / side[:, 0] * CROP_PX
    assert apart_px.max() < 5 and np.percentile(apart_px, 95) < 2.5 and apart_px.mean() < 1


def test_crops_of_a_stored_track_are_the_same(assets: Path, yunet: YuNet, tmp_path: Path):
    video = assets / "videos" / "single_face.mp4"
    faces = FaceCrops(yunet, size_px=64)
    folder = TrackFolder(tmp_path, faces.tracking())
    folder.begin()
    folder.write(folder.place(video, 0, None, None), faces.find_track(video))
    (fresh,) = faces.clip(video, chunk_frames=72)
    (again,) = FaceCrops(yunet, size_px=64, tracks=tmp_path).clip(video, chunk_frames=72)
    assert again.reused_track and not fresh.reused_track
    np.testing.assert_array_equal(fresh.crops, again.crops)


def test_threads_share_a_locator(assets: Path, yunet: YuNet):
    videos = [assets / "videos" / name for name in ("single_face.mp4", "no_face.mp4")] * 2
    again = pickle.loads(pickle.dumps(yunet))  # noqa: S301 (made here)
    faces = FaceCrops(again)
    with ThreadPool(4) as pool:
        together = pool.map(faces.follow, videos)
    for found, video in zip(together, videos, strict=True):
        np.testing.assert_array_equal(found.boxes, FaceCrops(yunet).follow(video).boxes)


FPS = 24


@pytest.fixture(scope="module")
def two_people(assets: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two people, each in pictures of 320 x 180, 72 frames."""
    frames = []
    for name in ("single_face.mp4", "WolfgangLanger_Pexels.mp4"):
        with open_video(assets / "videos" / name) as video:
            images = [Image.fromarray(image).resize((320, 180)) for image in video.frames(np.arange(72))]
            frames.append(np.stack([np.asarray(image) for image in images]))
    return frames[0], frames[1]


@pytest.mark.parametrize("hidden", [0, 1])
def test_another_person_followed_while_one_is_hidden_is_told(
    two_people: tuple[np.ndarray, np.ndarray], yunet: YuNet, tmp_path: Path, hidden: int
):
    """Whoever of two people side by side has the larger face; the other one is followed, or nobody."""
    images = np.concatenate(two_people, axis=2)
    write_video(tmp_path / "all.mp4", images, FPS)
    whole = FaceCrops(yunet).find_track(tmp_path / "all.mp4").face
    assert whole.present.all() and whole.switched_s == ()
    followed = int(whole.boxes[0, 0] > 320)
    part = images[24 : 24 + round(1.2 * FPS)]
    part[:, :, 320 * hidden : 320 * (hidden + 1)] = 0
    write_video(tmp_path / "hidden.mp4", images, FPS)
    found = FaceCrops(yunet).find_track(tmp_path / "hidden.mp4").face
    alone = FaceCrops(yunet, same_person=True).find_track(tmp_path / "hidden.mp4").face
    assert alone.switched_s == () and ((alone.boxes[alone.present, 0] > 320) == followed).all()
    if hidden != followed:
        assert found.switched_s == () and found.present.all() and alone.present.all()
        return
    assert found.switched_s == pytest.approx([23 / FPS + 0.5], abs=1.5 / FPS)
    assert (found.boxes[60:, 0] > 320).all() != followed
    np.testing.assert_array_equal(alone.present[:24], True)
    assert not alone.present[26:50].any() and alone.present[56:].all()


def test_a_cut_to_another_person_is_told(two_people: tuple[np.ndarray, np.ndarray], yunet: YuNet, tmp_path: Path):
    write_video(tmp_path / "cut.mp4", np.concatenate([two_people[0][:30], two_people[1][:30]]), FPS)
    found = FaceCrops(yunet).find_track(tmp_path / "cut.mp4").face
    assert found.switched_s == pytest.approx([30 / FPS], abs=1e-3)
    alone = FaceCrops(yunet, same_person=True).find_track(tmp_path / "cut.mp4").face
    assert alone.present.tolist() == [True] * 30 + [False] * 30
    for faces in (FaceCrops(yunet, size_px=32), FaceCrops(yunet, size_px=32, every_s=0)):
        assert sum((chunk.switched_s for chunk in faces.clip(tmp_path / "cut.mp4")), ()) == found.switched_s


@pytest.mark.parametrize("name", ["single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov", "no_face.mp4"])
def test_videos_of_one_person_are_not_doubted(assets: Path, yunet: YuNet, name: str):
    tracks = [FaceCrops(yunet, same_person=same).find_track(assets / "videos" / name).face for same in (False, True)]
    assert tracks[0].switched_s == ()
    for part in ("boxes", "present", "scores"):
        np.testing.assert_array_equal(getattr(tracks[0], part), getattr(tracks[1], part))


def test_a_person_who_moves_far_while_hidden_for_a_moment_stays_the_same(
    two_people: tuple[np.ndarray, np.ndarray], yunet: YuNet, tmp_path: Path
):
    images = two_people[1].copy()
    images[30:35] = 0
    images[35:] = np.roll(images[35:], 30, axis=2)
    write_video(tmp_path / "moved.mp4", images, FPS)
    found = FaceCrops(yunet, same_person=True).find_track(tmp_path / "moved.mp4").face
    assert found.present.all() and found.switched_s == ()
