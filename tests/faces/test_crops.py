"""Crops of one face from a video file."""

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.faces import CropChunk, Face, FaceCrops, FullFrame, Locator, Sidecar
from painseq.faces.alignment import eye_angles
from painseq.faces.cropping import cut, cut_turned
from painseq.faces.mesh_points import ibug_68
from painseq.video import Video, write_video

SIDE = 16


class Bright(Locator):
    """Finds the bright square; a stand-in for a detector."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self, threshold: int = 128) -> None:
        self.threshold = threshold
        self.seen_s: list[float] = []

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        assert images is not None and len(images) == len(times_s)
        self.seen_s += times_s.tolist()
        found: list[list[Face]] = []
        for image in images:
            y, x = np.nonzero(image.mean(axis=2) > self.threshold)
            box = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else None
            found.append([] if box is None else [Face(np.array(box, np.float32), 1.0)])
        return found


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 30 fps: a white square moves right, half a pixel a frame; it is away in frames 20 to 39."""
    path = tmp_path_factory.mktemp("faces") / "moving.mp4"
    frames = np.zeros((60, 64, 96, 3), np.uint8)
    for i, frame in enumerate(frames):
        if not 20 <= i < 40:
            frame[20 : 20 + SIDE, 10 + i // 2 : 10 + i // 2 + SIDE] = 255
    write_video(path, frames, 30, crf=5)
    return path


def together(chunks: Sequence[CropChunk]) -> CropChunk:
    names: tuple[str, ...] = ("crops", "times_s", "present", "boxes")
    names += tuple(name for name in ("landmarks", "angles_rad") if getattr(chunks[0], name) is not None)
    joined = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names}
    return CropChunk(**joined, backend=chunks[0].backend)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_crops_follow_the_face_and_mask_its_absence(moving: Path, backend: str):
    faces = FaceCrops(Bright(), size_px=32, margin=0.0, smooth_s=0.2, max_gap_s=0.2, backend=backend)
    chunks = list(faces.clip(moving, chunk_frames=7))
    assert [len(chunk) for chunk in chunks] == [7] * 8 + [4]
    clip = together(chunks)
    expected = np.array([not 20 <= i < 40 for i in range(60)])
    np.testing.assert_array_equal(clip.present, expected)
    np.testing.assert_allclose(clip.times_s, np.arange(60) / 30)
    assert clip.crops.shape == (60, 3, 32, 32) and clip.crops.dtype == np.uint8
    assert clip.crops[expected].mean() > 235 and not clip.crops[~expected].any()
    np.testing.assert_allclose(clip.boxes[expected, 0], 10 + np.flatnonzero(expected) / 2, atol=1)
    assert clip.backend in ("decord", "pyav")


def test_a_gap_is_bridged(moving: Path):
    clip = together(list(FaceCrops(Bright(), size_px=8, max_gap_s=1.0, smooth_s=0).clip(moving)))
    assert clip.present.all()
    np.testing.assert_allclose((clip.boxes[:, 0] + clip.boxes[:, 2]) / 2, 18 + np.arange(60) / 2, atol=1)


def test_a_span_is_sampled_and_its_times_are_its_own(moving: Path):
    locator = Bright()
    clip = together(list(FaceCrops(locator, size_px=8, every_s=0).clip(moving, 1.0, 1.8, fps=10)))
    np.testing.assert_allclose(clip.times_s, np.arange(8) / 10)
    np.testing.assert_allclose(locator.seen_s, 1.0 + np.arange(8) / 10)
    assert clip.present.tolist() == [False] * 4 + [True] * 4


def test_chunks_do_not_change_the_crops(moving: Path):
    faces = FaceCrops(Bright(), size_px=16)
    one, many = (together(list(faces.clip(moving, fps=24, chunk_frames=n))) for n in (500, 5))
    np.testing.assert_array_equal(one.crops, many.crops)
    np.testing.assert_array_equal(one.boxes, many.boxes)


def test_the_locator_looks_at_few_frames_and_the_crops_are_nearly_the_same(tmp_path: Path):
    frames = np.zeros((60, 64, 96, 3), np.uint8)
    for i, frame in enumerate(frames):
        if not 20 <= i < 40:
            frame[10:50, 10 + i // 6 : 50 + i // 6] = 255
    write_video(tmp_path / "slow.mp4", frames, 30, crf=5)
    rarely, always = Bright(), Bright()
    few, every = (
        together(list(FaceCrops(locator, size_px=32, max_gap_s=0.2, every_s=every_s).clip(tmp_path / "slow.mp4")))
        for locator, every_s in ((rarely, 0.2), (always, 0))
    )
    assert len(rarely.seen_s) < 25 and len(always.seen_s) == 60
    np.testing.assert_array_equal(few.present, every.present)
    np.testing.assert_allclose(few.boxes, every.boxes, atol=1)


def test_each_picture_is_decoded_once(moving: Path, monkeypatch: pytest.MonkeyPatch):
    decoded: list[int] = []
    frames = Video.frames
    monkeypatch.setattr(Video, "frames", lambda video, indices: decoded.extend(indices) or frames(video, indices))
    list(FaceCrops(Bright(), size_px=8).clip(moving))
    assert decoded == list(range(60))


def test_memory_does_not_grow_with_the_video(coded_video: Callable[[Path, int, float], Path], tmp_path: Path):
    peaks = []
    for seconds in (4, 12):
        path = coded_video(tmp_path / f"{seconds}.mp4", 25 * seconds, 25)
        chunks = FaceCrops(Bright(), size_px=8, backend="pyav").clip(path)
        tracemalloc.start()
        assert sum(len(chunk) for chunk in chunks) == 25 * seconds
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_chunk_tells_where_its_time_went_and_lies_channels_last(moving: Path):
    chunk = next(iter(FaceCrops(Bright(), size_px=8).clip(moving, chunk_frames=16)))
    assert set(chunk.seconds) == {"decode", "locate", "crop"} and min(chunk.seconds.values()) > 0
    assert not chunk.reused_track
    assert chunk.crops.transpose(0, 2, 3, 1).flags.c_contiguous
    assert CropChunk(chunk.crops, chunk.times_s, chunk.present, chunk.boxes, "pyav").seconds == {}


class Late(Locator):
    """Landmarks, in pixels that it looks at, of a face that comes late; for one frame without them where told."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self, bare_s: float | None = None) -> None:
        self.bare_s = bare_s

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        box = np.array([10, 10, 40, 40], np.float32)
        points = np.array([[10, 12], [30, 35]], np.float32)
        return [[] if moment < 1 else [Face(box, 1.0, None if moment == self.bare_s else points)] for moment in times_s]


def test_landmarks_of_a_face_that_comes_late(moving: Path):
    chunks = list(FaceCrops(Late(), size_px=8).clip(moving, chunk_frames=10))
    assert chunks[0].landmarks is None and chunks[-1].landmarks is not None
    whole = next(iter(FaceCrops(Late(), size_px=8).clip(moving)))
    assert whole.landmarks is not None and whole.landmarks.shape == (60, 2, 2)
    np.testing.assert_array_equal(np.isfinite(whole.landmarks).all(axis=(1, 2)), whole.present)
    assert whole.present.tolist() == [False] * 30 + [True] * 30


def test_landmarks_of_some_faces_only_are_an_error_that_names_the_video(moving: Path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*moving\.mp4)(?=.*\b1\.5)(?=.*landmarks)"):
        list(FaceCrops(Late(1.5), size_px=8, every_s=0).clip(moving))


def test_an_empty_span_has_no_chunk(moving: Path):
    assert list(FaceCrops(Bright()).clip(moving, 10.0, 12.0)) == []


def test_the_whole_frame(moving: Path):
    clip = together(list(FaceCrops(FullFrame(), size_px=96, margin=0).clip(moving)))
    assert clip.present.all()
    assert not clip.crops[:, :, :16].any() and not clip.crops[:, :, -16:].any()  # 96x64 in a square
    assert clip.crops[0, :, 40:48, 12:24].mean() > 235
    assert FullFrame().locate(np.zeros((1, 5, 7, 3), np.uint8), np.zeros(1), moving)[0][0].box.tolist() == [0, 0, 7, 5]


class Points(Locator):
    """Landmarks that span a known box; the box itself lies elsewhere."""

    needs_pixels: ClassVar[bool] = False

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        assert images is None
        boxes = [(10 + 15 * t + (i % 2), 20.0, 26 + 15 * t + (i % 2), 36.0) for i, t in enumerate(times_s)]
        return [
            [Face(np.array([0, 0, 50, 50], np.float32), 1.0, np.array([[x0, y1], [x1, y0]], np.float32))]
            for x0, y0, x1, y1 in boxes
        ]


def test_the_landmark_box_is_that_of_each_frame(moving: Path):
    clip = together(list(FaceCrops(Points(), "landmark_box", size_px=32, margin=0.5, smooth_s=1).clip(moving, 0, 0.5)))
    shaken = 10 + np.arange(15) / 2 + np.arange(15) % 2
    np.testing.assert_allclose(clip.boxes[:, 0], shaken, atol=1e-3)
    np.testing.assert_allclose(clip.boxes[:, 2] - clip.boxes[:, 0], SIDE, atol=1e-3)
    assert clip.crops[::2].mean() > 235


@pytest.mark.parametrize("kind", ["square", "landmark_box"])
def test_landmarks_come_in_pixels_of_the_frame(moving: Path, kind: Literal["square", "landmark_box"]):
    clip = together(list(FaceCrops(Points(), kind, size_px=8, smooth_s=1).clip(moving, 0, 0.5, chunk_frames=4)))
    assert clip.landmarks is not None and clip.landmarks.dtype == np.float32
    shaken = 10 + np.arange(15) / 2 + np.arange(15) % 2
    expected = np.stack([np.stack([shaken, shaken + SIDE], 1), np.tile([36.0, 20.0], (15, 1))], axis=2)
    np.testing.assert_allclose(clip.landmarks, expected, atol=1e-3)


def test_landmarks_are_nan_where_the_face_is_not_present(moving: Path, tmp_path: Path):
    from safetensors.numpy import save_file

    boxes = np.array([[10, 10, 30, 30], [200, 10, 220, 30], [np.nan] * 4, [10, 10, 30, 30]], np.float32)
    tensors = {
        "times_s": np.arange(4) / 30,
        "boxes": boxes,
        "scores": np.ones(4, np.float32),
        "landmarks": np.ones((4, 68, 2), np.float32),
    }
    save_file(tensors, tmp_path / "moving.faces.safetensors")
    faces = FaceCrops(Sidecar(str(tmp_path)), size_px=8, smooth_s=0, max_gap_s=0)
    for frame, seen in enumerate([True, False, False, True]):
        clip = together(list(faces.clip(moving, frame / 30, frame / 30 + 0.01)))
        assert clip.present.tolist() == [seen]
        assert (clip.landmarks is None) == (frame == 2)  # No face was found at all.
        assert clip.landmarks is None or bool(np.isfinite(clip.landmarks).all()) == seen


def test_no_landmarks_from_a_locator_without(moving: Path):
    assert together(list(FaceCrops(Bright(), size_px=8).clip(moving))).landmarks is None


def test_the_landmark_box_needs_landmarks(moving: Path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bBright\b)(?=.*landmarks)"):
        list(FaceCrops(Bright(), "landmark_box").clip(moving))
    dark = FaceCrops(Bright(), "landmark_box", size_px=8).clip(moving, 0.8, 1.2)
    assert not together(list(dark)).present.any()


def test_a_box_outside_the_picture_or_without_size_is_no_face(moving: Path, tmp_path: Path):
    from safetensors.numpy import save_file

    boxes = np.array([[200, 10, 220, 30], [10, 10, 10.2, 10.2], [10, 10, 30, 30]], np.float32)
    tensors = {"times_s": np.arange(3) / 30, "boxes": boxes, "scores": np.ones(3, np.float32)}
    save_file(tensors, tmp_path / "moving.faces.safetensors")
    faces = FaceCrops(Sidecar(str(tmp_path)), size_px=8, smooth_s=0, max_gap_s=0)
    assert together(list(faces.clip(moving, 0, 0.01))).present.tolist() == [False]
    assert together(list(faces.clip(moving, 1 / 30, 0.05))).present.tolist() == [False]
    assert together(list(faces.clip(moving, 2 / 30, 0.08))).present.tolist() == [True]


class Tilted(Locator):
    """68 points of which only the corners of the eyes are known, on a line that turns by a degree a frame."""

    needs_pixels: ClassVar[bool] = False

    def __init__(self, points: int = 68, first_degrees: float = 0.0) -> None:
        self.points = points
        self.first_degrees = first_degrees

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        found = []
        for frame in range(len(times_s)):
            angle = np.radians(self.first_degrees + frame)
            direction = np.array([np.cos(angle), np.sin(angle)])
            points = np.tile(np.array([48.0, 32.0]), (self.points, 1))
            for corner, place in zip((36, 39, 42, 45), (-8, -4, 4, 8), strict=True):
                points[corner] += place * direction
            found.append([Face(np.array([32, 20, 64, 52], np.float32), 1.0, points.astype(np.float32))])
        return found


def test_aligned_crops_are_turned_until_the_eyes_are_level(moving: Path):
    clip = together(list(FaceCrops(Tilted(), "aligned", size_px=16, smooth_s=0.2).clip(moving, chunk_frames=7)))
    upright = together(list(FaceCrops(Tilted(), size_px=16, smooth_s=0.2).clip(moving)))
    assert clip.angles_rad is not None and upright.angles_rad is None
    np.testing.assert_allclose(np.degrees(clip.angles_rad), np.arange(60), atol=1e-3)
    np.testing.assert_array_equal(clip.boxes, upright.boxes)
    np.testing.assert_array_equal(clip.landmarks, upright.landmarks)
    assert clip.crops.shape == upright.crops.shape and not np.array_equal(clip.crops, upright.crops)
    track = FaceCrops(Tilted(), "aligned", size_px=16).follow(moving)
    np.testing.assert_array_equal(track.angles_rad, clip.angles_rad)


def test_angles_around_half_a_turn_are_averaged_the_short_way(moving: Path):
    angles = FaceCrops(Tilted(first_degrees=150), "aligned", smooth_s=0.2).follow(moving).angles_rad
    away = np.degrees(angles) - (150 + np.arange(60))
    np.testing.assert_allclose((away + 180) % 360 - 180, 0, atol=1e-3)


def test_the_eyes_of_the_mesh_are_those_of_the_68_points():
    mesh = np.random.default_rng(0).uniform(0, 100, (3, 478, 3)).astype(np.float32)
    angles = eye_angles(mesh)
    np.testing.assert_array_equal(angles, eye_angles(ibug_68(mesh)))
    np.testing.assert_array_equal(angles, eye_angles(mesh[:, :468, :2]))


def test_aligned_crops_need_landmarks_whose_eyes_are_known(moving: Path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bBright\b)(?=.*landmarks)(?=.*aligned)"):
        list(FaceCrops(Bright(), "aligned").clip(moving))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b50\b)(?=.*\b68\b)(?=.*\b478\b)"):
        list(FaceCrops(Tilted(50), "aligned").clip(moving))


def test_specification_builds_the_same_crops():
    faces = FaceCrops(Sidecar("somewhere"), "landmark_box", 112, 0.1, 0.3, 0.4, "pyav")
    again = FaceCrops.from_spec(faces.spec())
    assert again.spec() == faces.spec() and isinstance(again.locator, Sidecar)
    assert again.fingerprint() == faces.fingerprint()


def test_whereabouts_and_decoder_do_not_change_the_identity_and_the_rest_does():
    def of(directory: str | None = None, **changes: object) -> str:
        return FaceCrops(Sidecar(directory), **changes).fingerprint()  # type: ignore[arg-type]

    assert of() == of("elsewhere") == of(backend="pyav")
    changes = [{"size_px": 112}, {"margin": 0.1}, {"smooth_s": 0.1}, {"max_gap_s": 0.1}, {"kind": "landmark_box"}]
    assert len({of(), *(of(**change) for change in changes)}) == 6
    assert len({of(), of(kind="aligned"), of(kind="aligned", margin=0.1), of(kind="aligned", smooth_s=0.1)}) == 4
    assert FaceCrops(FullFrame()).fingerprint() != of()
    assert of(every_s=0) == of() != FaceCrops(Bright()).fingerprint()
    assert FaceCrops(Bright(), every_s=0).fingerprint() != FaceCrops(Bright()).fingerprint()


def test_same_person_is_part_of_the_identity_only_where_it_is_set():
    plain, same = FaceCrops(Sidecar()), FaceCrops(Sidecar(), same_person=True)
    assert "same_person" not in plain.tracking() and same.tracking()["same_person"] is True
    assert FaceCrops.from_spec(same.record()).same_person and plain.fingerprint() != same.fingerprint()


def test_a_locator_from_elsewhere_needs_trust():
    spec = FaceCrops(Sidecar()).spec()
    init_args = spec["init_args"]
    assert isinstance(init_args, dict)
    init_args["locator"] = {"class_path": "elsewhere.Locator", "init_args": {}}
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'elsewhere')(?=.*trust)"):
        FaceCrops.from_spec(spec)
    with pytest.raises(PainseqError, match=r"painseq\.faces\.crops\.FaceCrops"):
        FaceCrops.from_spec({"class_path": "painseq.faces.crops.FaceCrops"})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "round"},
        {"size_px": 0},
        {"margin": -1},
        {"smooth_s": float("nan")},
        {"max_gap_s": -0.1},
        {"every_s": -1},
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, object]):
    with pytest.raises(PainseqError, match=next(iter(changes))):
        FaceCrops(FullFrame(), **changes)  # type: ignore[arg-type]


IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_a_cut_of_whole_pixels_is_the_picture():
    np.testing.assert_array_equal(cut(IMAGE, np.array([10, 5, 30, 25], np.float32), 20), IMAGE[5:25, 10:30])


def test_outside_the_picture_is_black():
    patch = cut(IMAGE, np.array([-10, -10, 20, 20], np.float32), 30)
    np.testing.assert_array_equal(patch[10:, 10:], IMAGE[:20, :20])
    assert not patch[:10].any() and not patch[:, :10].any()


def smooth_picture(turned_rad: float) -> NDArray[np.uint8]:
    """Waves, turned clockwise about the middle of 120 x 100 pixels."""
    y, x = np.mgrid[:100, :120] + 0.5
    x, y = x - 60, y - 50
    cos, sin = np.cos(turned_rad), np.sin(turned_rad)
    x, y = cos * x + sin * y, cos * y - sin * x
    waves = [np.sin(x / 7 + y / 11), np.cos(x / 9), np.sin(y / 6)]
    return (np.stack(waves, axis=2) * 100 + 128).round().astype(np.uint8)


@pytest.mark.parametrize("size_px", [20, 64, 100])
@pytest.mark.parametrize("degrees", [-170.0, -90.0, -20.0, 0.0, 3.0, 45.0])
def test_a_turned_cut_of_a_turned_picture_is_the_upright_one(degrees: float, size_px: int):
    box, angle = np.array([34.5, 24, 84.5, 74], np.float32), np.radians(degrees)
    centred = np.array([35, 25, 85, 75], np.float32)
    upright = cut(smooth_picture(0), centred, size_px).astype(int)
    apart = cut_turned(smooth_picture(angle), centred, angle, size_px) - upright
    assert np.abs(apart).max() <= 6 and abs(apart.mean()) < 0.5
    assert (
        np.abs(
            cut_turned(smooth_picture(0), box, 0.0, size_px) - cut(smooth_picture(0), box, size_px).astype(int)
        ).max()
        <= 6
    )


def test_a_turned_cut_is_black_outside_the_picture():
    white = np.full((40, 60, 3), 255, np.uint8)
    corner = cut_turned(white, np.array([-20, -20, 20, 20], np.float32), np.pi / 4, 40)
    assert corner[19:21, 22:].min() == 255 and not corner[:, :18].any() and not corner[:8, 24].any()


@given(st.floats(-30, 55), st.floats(-30, 35), st.floats(4, 60), st.floats(4, 60))
def test_a_cut_is_that_of_the_whole_picture(left: float, top: float, width: float, height: float):
    from PIL import Image

    box = np.array([left, top, left + width, top + height], np.float32)
    x0, y0 = (max(0, int(np.ceil(-value))) for value in box[:2])
    x1, y1 = (max(0, int(np.ceil(value))) for value in (box[2] - 60, box[3] - 40))
    padded = Image.fromarray(np.pad(IMAGE, [(y0, y1), (x0, x1), (0, 0)]))
    area = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
    expected = padded.resize((16, 16), Image.Resampling.BILINEAR, box=tuple(float(value) for value in area))
    assert np.abs(cut(IMAGE, box, 16).astype(int) - np.asarray(expected)).max() <= 1
