"""Facial movements of videos: the table, its files, and the folder of many."""

import json
from pathlib import Path

import numpy as np
import pytest

import painseq
from painseq.errors import PainseqError
from painseq.faces import FaceMesh
from painseq.faces.movements import DEAD, MIRRORED, NAMES, Movements
from painseq.runs import locked_folder
from painseq.studies.movements import MovementOptions, find_videos, write_movements
from painseq.studies.movements_picture import STRIP_FRAMES, StripFrames


@pytest.fixture(scope="module")
def mesh(assets: Path) -> FaceMesh:
    pytest.importorskip("cv2", exc_type=ImportError)
    weights = assets / "weights"
    yunet = weights / "detectors" / "face_detection_yunet_2023mar.onnx"
    return FaceMesh(str(weights / "face_mesh" / "face_landmarker.task"), str(yunet))


def table_of(frames: int = 5, faceless: tuple[int, ...] = (1, 2)) -> Movements:
    rng = np.random.default_rng(0)
    success = ~np.isin(np.arange(frames), faceless)
    boxes = np.where(success[:, None], rng.uniform(0, 90, (frames, 4)), np.nan).astype(np.float32)
    values = np.where(success[:, None], rng.uniform(0, 1, (frames, 52)), np.nan).astype(np.float32)
    return Movements(np.arange(frames) / 25, success, boxes, values)


def test_there_are_52_and_each_has_its_partner_on_the_other_side():
    assert len(NAMES) == len(set(NAMES)) == 52 and set(DEAD) < set(NAMES)
    partners = {NAMES[a]: NAMES[b] for a, b in enumerate(MIRRORED)}
    assert partners["mouthSmileLeft"] == "mouthSmileRight" and partners["jawLeft"] == "jawRight"
    assert partners["jawOpen"] == "jawOpen" and [MIRRORED[i] for i in MIRRORED] == list(range(52))


def test_none_is_called_an_action_unit():
    assert not [name for name in NAMES if name.lower().startswith("au")]


def test_a_table_is_read_as_written(tmp_path: Path):
    table = table_of()
    table.write_csv(tmp_path / "t.csv")
    again = Movements.read_csv(tmp_path / "t.csv")
    np.testing.assert_array_equal(again.success, table.success)
    np.testing.assert_allclose(again.values, table.values, atol=1e-6)
    np.testing.assert_allclose(again.boxes, table.boxes, atol=0.01)
    columns = table.to_dict()
    assert columns["success"] == [1, 0, 0, 1, 1] and columns["eyeBlinkLeft"][1] is None
    json.dumps(columns, allow_nan=False)


def test_as_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = table_of().to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 5 and frame["jawOpen"].isna().tolist()[1]


def test_an_unknown_movement_is_named():
    with pytest.raises(PainseqError, match="AU04"):
        table_of()["AU04"]


def test_a_smile_is_seen_when_it_begins(assets: Path, mesh: FaceMesh):
    table = painseq.movements(assets / "videos" / "face_noface.mov", mesh, end_s=2.6)
    smile = (table["mouthSmileLeft"] + table["mouthSmileRight"]) / 2
    assert (
        float(smile[table.times_s < 0.5].max())
        < 0.2
        < 0.8
        < float(np.nanmin(smile[(table.times_s > 1) & (table.times_s < 2)]))
    )
    assert table.success.sum() == 72 and np.isnan(table.values[~table.success]).all()


def test_files_of_a_folder_are_written_once(assets: Path, mesh: FaceMesh, tmp_path: Path):
    videos = tmp_path / "videos"
    (videos / "deeper").mkdir(parents=True)
    (videos / "a.mp4").symlink_to(assets / "videos" / "single_face.mp4")
    (videos / "deeper" / "b.mp4").write_bytes(b"no video")
    (videos / "deeper" / "c.mp4").symlink_to(assets / "videos" / "no_face.mp4")
    options = MovementOptions(mesh, end_s=0.3, video=True)
    a, b, c = write_movements([videos], tmp_path / "out", options)
    assert a.problem is None and a.summary is not None and a.summary["frames"] == a.summary["frames_with_face"] == 9
    assert b.table is None and b.problem is not None and c.problem is not None
    assert c.summary is not None and c.summary["frames_with_face"] == 0
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert names == {".settings.json"} | {
        f"{name}.{kind}" for name in ("a", "deeper/c") for kind in ("csv", "png", "json", "mp4")
    }
    written = (tmp_path / "out" / "a.csv").stat().st_mtime_ns
    again, *_ = write_movements([videos], tmp_path / "out", options)
    assert again == a and (tmp_path / "out" / "a.csv").stat().st_mtime_ns == written
    with pytest.raises(PainseqError, match="end_s"):
        list(write_movements([videos], tmp_path / "out", MovementOptions(mesh, end_s=0.2, video=True)))


def test_a_second_process_is_refused(mesh: FaceMesh, tmp_path: Path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"no video")
    with locked_folder(tmp_path / "out"), pytest.raises(PainseqError, match="out"):
        next(write_movements([video], tmp_path / "out", MovementOptions(mesh)))
    (result,) = write_movements([video], tmp_path / "out", MovementOptions(mesh))
    assert result.problem and {path.name for path in (tmp_path / "out").iterdir()} == {".settings.json"}


def test_hidden_files_are_no_videos(tmp_path: Path):
    for name in ("a.MP4", "._a.mp4"):
        (tmp_path / name).touch()
    assert find_videos([tmp_path]) == {"a": tmp_path / "a.MP4"}


def test_two_videos_of_one_name_are_refused(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.mp4").touch()
    with pytest.raises(PainseqError, match=r"v\.csv"):
        find_videos([tmp_path / "a" / "v.mp4", tmp_path / "b" / "v.mp4"])


@pytest.mark.parametrize("show_faces", [False, True])
def test_faces_are_drawn_only_if_asked_for(show_faces: bool):
    frames = 65
    image = np.full((90, 90, 3), 200, np.uint8)
    strip = StripFrames(show_faces)
    for _ in range(frames):
        part = table_of(1, ())
        strip.add([image], np.random.default_rng(1).uniform(20, 60, (1, 478, 3)).astype(np.float32), part)
    stills = strip.stills()
    assert len(stills) == STRIP_FRAMES
    assert bool((stills[0].picture == 200).all(axis=2).any()) == show_faces
