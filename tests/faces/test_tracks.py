"""Tracks on disk."""

import json
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from painseq.data.datasets import VideoClips
from painseq.data.labels import label_scheme
from painseq.data_modules import BioVid
from painseq.errors import PainseqError
from painseq.faces import Face, FaceCrops, Locator, Sidecar, tracks
from painseq.faces.track import FaceTrack
from painseq.faces.tracks import StoredTrack, TrackFolder
from painseq.records import Clip, Manifest
from painseq.video import video_digest, write_video


class Wandering(Locator):
    """A face that wanders, or no more than was allowed."""

    needs_pixels: ClassVar[bool] = True

    def __init__(self, most_looks: int = 10**9, points: int = 0) -> None:
        self.most_looks = most_looks
        self.points = points
        self.looks = 0

    def identity(self) -> dict[str, object]:
        return {"points": self.points}

    def locate(self, images: NDArray[np.uint8] | None, times_s: NDArray[np.float64], video: Path) -> list[list[Face]]:
        self.looks += len(times_s)
        assert self.looks <= self.most_looks, "it looked"
        found: list[list[Face]] = []
        for moment in times_s:
            x = 20 + 10 * np.sin(5 * moment)
            points = np.full((self.points, 2), x, np.float32) if self.points else None
            here = Face(np.array([x, 10, x + 30, 50], np.float32), 0.9, points)
            found.append([] if 0.5 < moment < 0.8 else [here])
        return found


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracks") / "a.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (45, 64, 96, 3), dtype=np.uint8), 30)
    return path


def crops(locator: Locator, **settings: object) -> FaceCrops:
    return FaceCrops(locator, size_px=16, max_gap_s=0.1, **settings)  # type: ignore[arg-type]


def written(out: Path, faces: FaceCrops, video: Path, fps: float | None = None) -> Path:
    folder = TrackFolder(out, faces.tracking())
    folder.begin()
    place = folder.place(video, 0, None, fps)
    folder.write(place, faces.find_track(video, fps=fps))
    return place


def test_a_video_of_many_clips_is_looked_at_once(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looked = []
    monkeypatch.setattr(tracks, "video_digest", lambda *source: looked.append(source) or video_digest(*source))
    folder = TrackFolder(tmp_path / "tracks", crops(Wandering()).tracking())
    places = {folder.place(video, start_s, None, fps) for start_s in (0, 0.5) for fps in (None, 4)}
    assert len(places) == 4 and looked == [(video, None)]


@pytest.mark.parametrize("points", [0, 5])
@pytest.mark.parametrize("settings", [{}, {"smooth_s": 0.0, "margin": 0.5}, {"kind": "landmark_box"}])
def test_crops_from_a_track_are_those_of_the_locator(
    video: Path, tmp_path: Path, points: int, settings: dict[str, object]
):
    if settings.get("kind") == "landmark_box":
        settings = {"kind": "landmark_box" if points else "square"}
    written(tmp_path / "tracks", crops(Wandering(points=points)), video)
    fresh = list(crops(Wandering(points=points), **settings).clip(video, chunk_frames=20))
    again = list(crops(Wandering(0, points), tracks=tmp_path / "tracks", **settings).clip(video, chunk_frames=20))
    assert [len(chunk) for chunk in again] == [20, 20, 5]
    for one, other in zip(fresh, again, strict=True):
        assert other.reused_track and not one.reused_track
        for name in ("crops", "times_s", "present", "boxes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (other.landmarks is None) == (points == 0)
        if one.landmarks is not None:
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
    followed = crops(Wandering(0, points), tracks=str(tmp_path / "tracks")).follow(video)
    np.testing.assert_array_equal(followed.boxes, crops(Wandering(points=points)).follow(video).boxes)


def test_a_clip_without_a_track_is_searched(video: Path, tmp_path: Path):
    written(tmp_path, crops(Wandering()), video, fps=10)
    locator = Wandering()
    faces = crops(locator, tracks=str(tmp_path))
    assert next(iter(faces.clip(video, fps=10))).reused_track and not locator.looks
    for span in ({"fps": 15}, {"fps": 10, "end_s": 1.0}, {"fps": 10, "start_s": 0.1}):
        looks = locator.looks
        assert not next(iter(faces.clip(video, **span))).reused_track and locator.looks > looks  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2  # Reading writes nothing.


def test_tracks_found_otherwise_are_refused(video: Path, tmp_path: Path):
    written(tmp_path, crops(Wandering()), video)
    for faces, what in (
        (crops(Wandering(), every_s=0.1, tracks=tmp_path), r"every_s(?=.*\b0\.2\b)(?=.*\b0\.1\b)"),
        (crops(Wandering(points=5), tracks=tmp_path), r"locator\.points(?=.*\b0\b)(?=.*\b5\b)"),
        (FaceCrops(Wandering(), tracks=tmp_path), r"max_gap_s(?=.*\b0\.1\b)(?=.*\b0\.5\b)"),
    ):
        with pytest.raises(PainseqError, match=what):
            next(iter(faces.clip(video)))
        with pytest.raises(PainseqError, match=what):
            TrackFolder(tmp_path, faces.tracking()).begin()
    with pytest.raises(PainseqError, match=r"nowhere"):
        next(iter(crops(Wandering(), tracks=tmp_path / "nowhere").clip(video)))
    for content in ("{", "[]", json.dumps({"format": 99, "tracking": {}})):
        (tmp_path / "tracks.json").write_text(content)
        with pytest.raises(PainseqError, match=r"tracks\.json"):
            next(iter(crops(Wandering(), tracks=tmp_path).clip(video)))


def test_a_damaged_track_is_told_by_name(video: Path, tmp_path: Path):
    faces = crops(Wandering(), tracks=tmp_path)
    place = written(tmp_path, faces, video)
    whole = place.read_bytes()
    for content in (b"", whole[:-10], b"nonsense" * 9):
        place.write_bytes(content)
        with pytest.raises(PainseqError, match=re.escape(place.name)):
            next(iter(faces.clip(video)))
    folder = TrackFolder(tmp_path, faces.tracking())
    stored = faces.find_track(video)
    folder.write(place, StoredTrack(stored.face[:-1], 3))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\b44\b)(?=.*\b45\b)"):
        next(iter(faces.clip(video)))
    face = stored.face
    folder.write(
        place,
        StoredTrack(FaceTrack(face.times_s, face.boxes[:, :3], face.present, face.scores, None, face.switched), 3),
    )
    with pytest.raises(PainseqError, match=r"(?s)(?=.*boxes)(?=.*\(45, 3\))(?=.*\(45, 4\))"):
        next(iter(faces.clip(video)))


def test_a_write_that_fails_leaves_nothing(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    faces = crops(Wandering())
    place = written(tmp_path, faces, video)
    before = place.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        written(tmp_path, faces, video)
    assert place.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_how_often_the_locator_looked_is_kept(video: Path, tmp_path: Path):
    locator = Wandering()
    place = written(tmp_path, crops(locator, every_s=0.1), video)
    stored = TrackFolder(tmp_path, crops(locator, every_s=0.1).tracking()).read(place)
    assert 0 < stored.located == locator.looks <= 45
    assert stored.face.spans_without_face()[0][0] == pytest.approx(16 / 30)


def test_neither_a_record_nor_another_locator_takes_the_tracks_along(tmp_path: Path):
    faces = FaceCrops(Wandering(), tracks=tmp_path)
    init_args = faces.spec()["init_args"]
    recorded = faces.record()["init_args"]
    assert isinstance(init_args, dict) and isinstance(recorded, dict)
    assert init_args["tracks"] == str(tmp_path) and recorded["tracks"] is None
    assert faces.with_locator(Wandering(points=2)).tracks is None
    assert faces.fingerprint() == FaceCrops(Wandering()).fingerprint()
    assert (
        FaceCrops(Wandering(), every_s=0, max_gap_s=1).fingerprint()
        == FaceCrops(Wandering(), every_s=0.0, max_gap_s=1.0).fingerprint()
    )


def test_clips_of_crops_come_from_the_tracks(video: Path, tmp_path: Path):
    written(tmp_path, crops(Wandering()), video, fps=10)
    manifest = Manifest("biovid", video.parent, (Clip("one", "S1", "a.mp4", "BL1"),))
    scheme = label_scheme("biovid", "binary", BioVid.facts)
    sample = VideoClips(manifest, scheme, crops(Wandering(0), tracks=tmp_path), fps=10)[0]
    fresh = VideoClips(manifest, scheme, crops(Wandering()), fps=10)[0]
    assert sample.video is not None and fresh.video is not None
    np.testing.assert_array_equal(sample.video.numpy(), fresh.video.numpy())
    assert sample.present.tolist() == fresh.present.tolist() and not sample.present.all()


def test_tracks_are_refused_where_no_picture_is_searched(tmp_path):
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\bSidecar\b)(?=.*\btracks\b)"):
        FaceCrops(Sidecar(), tracks=tmp_path)


def test_times_from_which_another_person_may_be_followed_are_kept(tmp_path: Path):
    boxes = np.array([[0, 0, 10, 10]] * 2 + [[np.nan] * 4] * 2 + [[50, 0, 60, 10]] * 2, np.float32)
    present, times_s = np.isfinite(boxes[:, 0]), np.arange(6) / 2
    folder = TrackFolder(tmp_path, {})
    for name, switched in (("told", [1]), ("before", [])):
        marks = np.isin(np.arange(6), switched)
        folder.write(tmp_path / name, StoredTrack(FaceTrack(times_s, boxes, present, present * 1.0, None, marks), 6))
    assert folder.read(tmp_path / "told").face.switched_s == (0.5,)
    # Tracks of earlier versions have no marks: the boxes around the gap tell.
    assert folder.read(tmp_path / "before").face.switched_s == (2.0,)
