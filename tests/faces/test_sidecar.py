"""Faces stored beside the video."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from painseq.errors import PainseqError
from painseq.faces import Sidecar


def store(path: Path, count: int = 10, fps: float = 10, **changes: np.ndarray | None) -> None:
    start = np.arange(count, dtype=np.float32)
    tensors: dict[str, np.ndarray | None] = {
        "times_s": np.arange(count) / fps,
        "boxes": np.stack([start, start, start + 10, start + 12], axis=1),
        "scores": np.full(count, 0.5, np.float32),
        "landmarks": np.tile(start[:, None, None], (1, 68, 2)),
    }
    tensors |= changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


def test_each_frame_takes_the_nearest_row(tmp_path: Path):
    store(tmp_path / "a.faces.safetensors")
    found = Sidecar().locate(None, np.array([0.0, 0.14, 0.16, 0.9, 0.94, 1.2]), tmp_path / "a.mp4")
    assert [[float(face.box[0]) for face in faces] for faces in found] == [[0], [1], [2], [9], [9], []]
    face = found[2][0]
    assert face.score == 0.5 and face.box.tolist() == [2, 2, 12, 14]
    assert face.landmarks is not None and face.landmarks.shape == (68, 2)


def test_a_box_that_is_not_finite_is_no_face_and_rows_at_one_time_are_several(tmp_path: Path):
    boxes = np.tile(np.array([[0, 0, 9, 9]], np.float32), (4, 1))
    boxes[3] = np.nan
    store(tmp_path / "a.faces.safetensors", 4, times_s=np.array([0, 0, 0.1, 0.2]), boxes=boxes, landmarks=None)
    found = Sidecar().locate(None, np.array([0, 0.1, 0.2]), tmp_path / "a.mp4")
    assert [len(faces) for faces in found] == [2, 1, 0]
    assert found[0][0].landmarks is None


def test_a_directory_of_its_own_and_none(tmp_path: Path):
    (tmp_path / "faces").mkdir()
    store(tmp_path / "faces" / "a.faces.safetensors")
    assert len(Sidecar(str(tmp_path / "faces")).locate(None, np.zeros(2), tmp_path / "a.mp4")) == 2
    with pytest.raises(PainseqError, match=r"(?s)(?=.*\ba\.faces\.safetensors)(?=.*\ba\.csv)"):
        Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4")
    assert Sidecar("here").identity() == Sidecar("there").identity()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scores": None}, "scores"),
        ({"times_s": None}, "times_s"),
        ({"boxes": np.zeros((3, 4), np.float32)}, "boxes"),
        ({"landmarks": np.zeros((10, 68, 3), np.float32)}, "landmarks"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, np.ndarray | None], word: str):
    store(tmp_path / "a.faces.safetensors", **changes)
    with pytest.raises(PainseqError, match=word):
        Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4")


def test_a_damaged_sidecar(tmp_path: Path):
    (tmp_path / "a.faces.safetensors").write_bytes(b"nonsense")
    with pytest.raises(PainseqError, match=r"\ba\.faces\.safetensors"):
        Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4")


def openface(path: Path, rows: list[str]) -> None:
    header = ["frame", "timestamp", "confidence", "success"]
    header += [f"{axis}_{i}" for axis in "xy" for i in range(68)]
    path.write_text("\n".join([", ".join(header), *rows]) + "\n")


def test_openface_rows(tmp_path: Path):
    points = ", ".join(str(value) for value in [*range(100, 168), *range(200, 268)])
    openface(
        tmp_path / "a.csv",
        [f"1, 0.000, 0.98, 1, {points}", f"2, 0.033, 0.1, 0, {points}", f"3, 0.067, 0.9, 1, {points}"],
    )
    found = Sidecar().locate(None, np.arange(3) / 30, tmp_path / "a.mp4")
    assert [len(faces) for faces in found] == [1, 0, 1]
    face = found[0][0]
    assert face.box.tolist() == [100, 200, 167, 267] and face.score == 0.98
    assert face.landmarks is not None and face.landmarks[5].tolist() == [105, 205]


def test_a_table_that_is_not_openface_or_is_damaged(tmp_path: Path):
    (tmp_path / "a.csv").write_text("frame,label\n1,2\n")
    with pytest.raises(PainseqError, match="timestamp"):
        Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4")
    openface(tmp_path / "a.csv", ["1, 0.0, 0.9"])
    with pytest.raises(PainseqError, match=r"\ba\.csv.*\b2\b"):
        Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4")
    openface(tmp_path / "a.csv", [])
    assert Sidecar().locate(None, np.zeros(1), tmp_path / "a.mp4") == [[]]
