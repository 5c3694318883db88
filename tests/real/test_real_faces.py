"""Tracking instead of detecting, on real faces: how far the crops lie from those of every-frame detection."""

import pickle
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest

from painseq.faces import FaceCrops, YuNet
from painseq.faces.track import smoothed
from painseq.faces.tracks import TrackFolder

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
