"""The face mesh on real faces, against the values of its makers' own runtime."""

import pickle
import zipfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from painseq.data.streams.landmarks import mirror
from painseq.errors import LocatorUnavailable
from painseq.faces import FaceCrops, FaceMesh
from painseq.faces.fixed_point import from_fixed_point, to_fixed_point
from painseq.faces.landmarks import normalise
from painseq.faces.mesh_nets import FaceLandmarkerBundle, Region
from painseq.faces.mesh_points import IBUG_68, MIRRORED, OUTLINES, POINTS
from painseq.faces.tracks import TrackFolder
from painseq.video import open_video

VIDEOS = ("single_face.mp4", "WolfgangLanger_Pexels.mp4", "face_noface.mov")


def bundle_file(assets: Path) -> Path:
    return assets / "weights" / "face_mesh" / "face_landmarker.task"


@pytest.fixture(scope="module")
def mesh(assets: Path) -> FaceMesh:
    pytest.importorskip("cv2", exc_type=ImportError)
    yunet = assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"
    return FaceMesh(str(bundle_file(assets)), str(yunet))


def golden(assets: Path, video: str) -> dict[str, np.ndarray]:
    """Frame, region, points and coefficients of the frames in which the makers' runtime finds a face."""
    with np.load(assets / "golden" / f"golden_{Path(video).stem}_facelandmarker.npz") as values:
        seen = np.isfinite(values["roi"]).all(axis=1)
        return {name: values[name][seen] for name in values.files}


@pytest.mark.parametrize("video", VIDEOS)
def test_points_and_coefficients_are_those_of_the_makers_runtime(assets: Path, mesh: FaceMesh, video: str):
    known = golden(assets, video)
    with open_video(assets / "videos" / video, "pyav") as opened:
        images = opened.frames(known["frame"].astype(np.int64))
    found = [
        mesh.bundle.points(image, Region(*map(float, roi))) for image, roi in zip(images, known["roi"], strict=True)
    ]
    points = np.stack([points for points, _ in found])
    assert points.shape == (len(images), POINTS, 3) and all(presence > 0.5 for _, presence in found)
    assert np.abs(points[..., :2] - known["landmarks"]).max() < 0.5
    assert np.abs(mesh.bundle.movements(points) - known["blendshapes"]).max() < 0.03
    np.testing.assert_allclose(mesh.bundle.movements(known["landmarks"]), known["blendshapes"], atol=1e-4)


@pytest.mark.parametrize("video", [*VIDEOS, "no_face.mp4"])
def test_a_face_is_followed_through_every_frame_that_shows_it(assets: Path, mesh: FaceMesh, video: str):
    face = FaceCrops(mesh, max_gap_s=0, backend="pyav").follow(assets / "videos" / video)
    if video == "no_face.mp4":
        assert not face.present.any()
        return
    known = golden(assets, video)
    assert face.present[known["frame"]].all()
    assert face.present.all() or (video == "face_noface.mov" and face.present.sum() == 72)
    assert face.landmarks is not None
    points = face.landmarks[known["frame"]]
    between_eyes = np.linalg.norm(known["landmarks"][:, 263] - known["landmarks"][:, 33], axis=1)
    error = np.linalg.norm(points[..., :2] - known["landmarks"], axis=2).mean(axis=1) / between_eyes
    assert error.max() < 0.03


def test_the_ibug_points_lie_where_another_detector_finds_them(assets: Path, mesh: FaceMesh):
    dlib = np.load(assets / "golden" / "single_face.npz")["dlib68"]
    face = FaceCrops(mesh, backend="pyav").follow(assets / "videos" / "single_face.mp4")
    assert face.landmarks is not None
    apart = np.linalg.norm(face.landmarks[:, IBUG_68, :2] - dlib, axis=2)[:, 17:]
    between_eyes = np.linalg.norm(dlib[:, 45] - dlib[:, 36], axis=1)
    assert np.nanmean(apart / between_eyes[:, None]) < 0.05


def test_the_mesh_of_a_mirrored_picture_is_the_mirrored_mesh(assets: Path, mesh: FaceMesh):
    import torch

    with open_video(assets / "videos" / "single_face.mp4", "pyav") as opened:
        image = opened.frames(np.array([30]))[0]
    (face,), (other,) = mesh.locate(np.stack([image, image[:, ::-1]]), np.zeros(2), Path())
    assert face.landmarks is not None and other.landmarks is not None
    straight, mirrored = (
        torch.from_numpy(normalise(points[None], np.ones(1, bool))) for points in (face.landmarks, other.landmarks)
    )
    assert float((mirror(straight) - mirrored).abs().max()) < 0.1 < float((straight - mirrored).abs().max())
    assert float((mirror(straight[:, : 2 * 468]) - mirror(straight)[:, : 2 * 468]).abs().max()) == 0


def test_the_tables_of_points_are_whole():
    assert sorted(MIRRORED) == list(range(POINTS)) and (MIRRORED[MIRRORED] == np.arange(POINTS)).all()
    assert len(set(IBUG_68)) == 68 and max(max(line) for line in OUTLINES) < POINTS


def test_the_mirror_table_is_that_of_the_canonical_mesh(assets: Path):
    np.testing.assert_array_equal(MIRRORED, np.load(assets / "golden" / "face_mesh_mirror478.npy"))


def test_several_faces_are_found_and_each_once(assets: Path, mesh: FaceMesh):
    from PIL import Image

    image = np.asarray(Image.open(assets / "images" / "multi_face.jpg").convert("RGB"))
    follow = mesh.follow(Path())
    first, second = follow(np.stack([image, image]), np.array([0.0, 0.04]))
    assert len(first) > 1 and len(second) == len(first)
    for face, again in zip(first, second, strict=True):
        assert np.abs(face.box - again.box).max() < 0.1 * (face.box[2] - face.box[0])


def test_a_copy_and_several_threads_give_the_same(assets: Path, mesh: FaceMesh):
    videos = [assets / "videos" / name for name in ("face_noface.mov", "single_face.mp4")]
    faces = FaceCrops(pickle.loads(pickle.dumps(mesh)))  # noqa: S301 (made here)
    with ThreadPool(2) as pool:
        together = pool.map(faces.follow, videos)
    for found, video in zip(together, videos, strict=True):
        np.testing.assert_array_equal(found.landmarks, FaceCrops(mesh).follow(video).landmarks)


def test_a_stored_track_keeps_the_points_to_a_64th_of_a_pixel(assets: Path, mesh: FaceMesh, tmp_path: Path):
    video = assets / "videos" / "face_noface.mov"
    faces = FaceCrops(mesh)
    folder = TrackFolder(tmp_path, faces.tracking())
    folder.begin()
    place = folder.place(video, 0, None, None)
    track = faces.find_track(video)
    folder.write(place, track)
    again = folder.read(place).face
    assert track.face.landmarks is not None and again.landmarks is not None
    np.testing.assert_allclose(again.landmarks, track.face.landmarks, rtol=0, atol=1 / 128 + 1e-4)
    assert place.stat().st_size < 0.55 * track.face.landmarks.nbytes


def test_every_frame_is_looked_at_whatever_the_crops_ask_for(mesh: FaceMesh):
    assert FaceCrops(mesh, every_s=0.2).identity() == FaceCrops(mesh, every_s=0).identity()


@given(st.integers(0, 1000), st.floats(0.1, 4000), st.floats(-200, 4000))
def test_fixed_point_is_exact_to_its_step(seed: int, extent_px: float, offset_px: float):
    points = np.random.default_rng(seed).uniform(0, extent_px, (3, 20, 3)).astype(np.float32) + np.float32(offset_px)
    points[1] = np.nan
    again = from_fixed_point(*to_fixed_point(points))
    step_px = max(1 / 64, extent_px / 65535)
    np.testing.assert_allclose(again, points, rtol=1e-6, atol=step_px * 0.51)
    assert np.isnan(again[1]).all()


def test_another_file_is_refused_with_both_digests(assets: Path, tmp_path: Path):
    pytest.importorskip("cv2", exc_type=ImportError)
    broken = tmp_path / "face_landmarker.task"
    broken.write_bytes(bundle_file(assets).read_bytes()[:100_000])
    other = tmp_path / "other.task"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("face_landmarks_detector.tflite", b"\0" * 64)
    image = np.zeros((64, 64, 3), np.uint8)
    for file in (broken, other, tmp_path / "absent.task"):
        with pytest.raises(LocatorUnavailable, match=file.name):
            FaceLandmarkerBundle(str(file)).points(image, Region(32, 32, 64))
