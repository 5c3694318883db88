"""Decoding and face location on real videos."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.faces import FaceCrops, Sidecar, YuNet
from painseq.video import open_video, probe_duration_s, read_chunks, write_video

FRAMES = {
    "single_face.mp4": 72,
    "no_face.mp4": 95,
    "face_noface.mov": 169,
    "WolfgangLanger_Pexels.mp4": 472,
}


@pytest.fixture(scope="module")
def yunet(assets: Path) -> YuNet:
    pytest.importorskip("cv2", exc_type=ImportError)
    return YuNet(str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"))


@pytest.mark.parametrize(("name", "count"), FRAMES.items())
def test_both_decoders_agree(assets: Path, name: str, count: int):
    path = assets / "videos" / name
    with open_video(path, "pyav") as pyav:
        assert len(pyav) == count
        assert pyav.times_s[0] == 0 and np.all(np.diff(pyav.times_s) > 0)
        assert probe_duration_s(path) == pytest.approx(pyav.duration_s, abs=0.1)
        if importlib.util.find_spec("decord") is None:
            pytest.skip("decord has no wheel here")
        with open_video(path, "decord") as decord:
            assert decord.size == pyav.size and len(decord) == count
            np.testing.assert_allclose(decord.times_s, pyav.times_s, atol=1e-3)
            wanted = np.unique(np.linspace(0, count - 1, 12).astype(int))
            a, b = decord.frames(wanted), pyav.frames(wanted)
            assert np.abs(a.astype(int) - b).max() <= 2
            a, b = (next(read_chunks(video, 0, None, None, 8))[0] for video in (decord, pyav))
            assert np.abs(a.astype(int) - b).max() <= 2


@pytest.mark.parametrize("name", ["no_face.mp4", "face_noface.mov"])
def test_decords_own_time_stamps_are_the_containers(assets: Path, name: str):
    decord = pytest.importorskip("decord", exc_type=ImportError)
    path = assets / "videos" / name
    reader = decord.VideoReader(str(path), num_threads=1)
    times_s = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    with open_video(path) as video:
        np.testing.assert_allclose(video.times_s, times_s[times_s >= 0], atol=1e-3)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of (N, 4) boxes, pair by pair."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.prod(np.clip(sides, 0, None), axis=1)
    return shared / (np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - shared)


@pytest.mark.parametrize("name", ["single_face.mp4", "no_face.mp4", "face_noface.mov"])
def test_the_face_is_found_where_it_was_and_nowhere_else(assets: Path, yunet: YuNet, name: str):
    known = np.load(assets / "golden" / f"{name.partition('.')[0]}.npz")["yunet_box"][:, :4]
    there = np.isfinite(known).all(axis=1)
    found = FaceCrops(yunet, smooth_s=0, max_gap_s=0).follow(assets / "videos" / name)
    np.testing.assert_array_equal(found.present, there)
    overlaps = overlap(found.boxes[there].astype(float), known[there].astype(float))
    assert np.all(overlaps > 0.8)
    assert not there.any() or overlaps.mean() > 0.9


def test_crops_of_a_face_that_leaves_are_masked(assets: Path, yunet: YuNet):
    chunks = list(FaceCrops(yunet, size_px=64).clip(assets / "videos" / "face_noface.mov", fps=10))
    present = np.concatenate([chunk.present for chunk in chunks])
    crops = np.concatenate([chunk.crops for chunk in chunks])
    assert 0 < present.sum() < len(present)
    assert not crops[~present].any() and crops[present].mean() > 30


def test_the_largest_of_several_faces(assets: Path, yunet: YuNet, tmp_path: Path):
    picture = Image.open(assets / "images" / "multi_face.jpg").convert("RGB")
    image = np.asarray(picture.resize((picture.width // 2 * 2, picture.height // 2 * 2)))
    write_video(tmp_path / "several.mp4", [image] * 6, 10)
    faces = yunet.locate(image[None], np.zeros(1), tmp_path)[0]
    assert len(faces) > 1
    largest = max(faces, key=lambda face: np.prod(face.box[2:] - face.box[:2]))
    found = FaceCrops(yunet).follow(tmp_path / "several.mp4")
    assert found.present.all()
    assert np.all(overlap(found.boxes.astype(float), np.tile(largest.box.astype(float), (6, 1))) > 0.8)


def test_a_real_openface_table(assets: Path):
    times_s = np.arange(100) / 1000
    found = Sidecar(str(assets / "au")).locate(None, times_s, Path("OpenFace_Test.mp4"))
    assert all(len(faces) == 1 for faces in found)
    landmarks = found[0][0].landmarks
    assert landmarks is not None and landmarks.shape == (68, 2)
    assert landmarks[0].tolist() == pytest.approx([277.276, 181.19], abs=1e-2)
    width, height = found[0][0].box[2:] - found[0][0].box[:2]
    assert 0.5 < width / height < 2
