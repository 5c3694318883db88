"""YuNet and FaceAlignment without their weights."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.faces import FaceAlignment, Locator, YuNet
from painseq.spec import build, spec_of


def test_yunet_checks_its_settings(tmp_path: Path):
    missing = YuNet(str(tmp_path / "none.onnx"))
    with pytest.raises(PainseqError, match=r"none\.onnx"):
        missing.locate(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1), tmp_path / "a.mp4")
    with pytest.raises(PainseqError, match=r"none\.onnx"):
        missing.identity()
    with pytest.raises(PainseqError, match="min_score"):
        YuNet(min_score=1.5)
    with pytest.raises(PainseqError, match="max_side_px"):
        YuNet(max_side_px=8)


def test_yunet_identity_is_the_models_content(tmp_path: Path):
    (tmp_path / "other").mkdir()
    a, b, c = tmp_path / "a.onnx", tmp_path / "other" / "b.onnx", tmp_path / "c.onnx"
    for path, content in ((a, b"one"), (b, b"one"), (c, b"two")):
        path.write_bytes(content)
    assert YuNet(str(a)).identity() == YuNet(str(b)).identity() != YuNet(str(c)).identity()
    assert YuNet(str(a)).identity() != YuNet(str(a), min_score=0.5).identity()
    again = build(spec_of(YuNet(str(a), 0.7, 480)), Locator)  # type: ignore[type-abstract]
    assert isinstance(again, YuNet) and (again.model, again.min_score, again.max_side_px) == (str(a), 0.7, 480)


def test_a_file_that_is_no_model(tmp_path: Path):
    pytest.importorskip("cv2", exc_type=ImportError)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(PainseqError, match=r"a\.onnx"):
        YuNet(str(path)).locate(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1), path)


def test_opencv_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(PainseqError, match="opencv-python-headless"):
        YuNet(str(path)).locate(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1), path)


class FakeAligner:
    """Answers as face_alignment 1.5 does: lists, nothing, or None."""

    settings: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, landmarks_type: object, **settings: object) -> None:
        FakeAligner.settings = settings
        self.face_detector = self
        self.answers = iter([[np.array([1, 2, 11, 12, 0.9]), np.array([20, 20, 30, 30, 0.6])], [], None, "lost"])

    def detect_from_image(self, image: np.ndarray) -> object:
        answer = next(self.answers)
        return [np.array([1, 2, 11, 12, 0.9])] if answer == "lost" else answer

    def get_landmarks_from_image(self, image: np.ndarray, detected_faces: list[np.ndarray]) -> object:
        if image[0, 0, 0] == 99:
            return None
        return [np.full((68, 2), box[0], np.float32) for box in detected_faces]


@pytest.fixture
def fake_package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("face_alignment")
    module.FaceAlignment = FakeAligner  # type: ignore[attr-defined]
    module.LandmarksType = types.SimpleNamespace(TWO_D=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    return module


def test_face_alignment_gives_boxes_and_landmarks_or_nothing(fake_package: types.ModuleType):
    images = np.zeros((4, 40, 40, 3), np.uint8)
    images[3] = 99
    locator = FaceAlignment()
    found = locator.locate(images, np.arange(4) / 30, Path("a.mp4"))
    assert [len(faces) for faces in found] == [2, 0, 0, 0]
    assert found[0][0].box.tolist() == [1, 2, 11, 12] and found[0][1].score == 0.6
    assert found[0][0].landmarks is not None and found[0][0].landmarks.shape == (68, 2)
    assert FakeAligner.settings == {"device": "cpu", "face_detector": "sfd", "compile": False}
    assert pickle.loads(pickle.dumps(locator))._aligner is None  # noqa: S301 (made here)


def test_face_alignment_identity_leaves_out_the_device():
    assert FaceAlignment("cuda").identity() == FaceAlignment("cpu").identity()
    assert FaceAlignment(detector="blazeface").identity() != FaceAlignment().identity()
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'other')(?=.*\bsfd\b)(?=.*\bblazeface\b)"):
        FaceAlignment(detector="other")  # type: ignore[arg-type]


def test_face_alignment_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(PainseqError, match=r"face-alignment"):
        FaceAlignment().locate(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), Path("a.mp4"))


def test_face_alignment_offline(fake_package: types.ModuleType, monkeypatch: pytest.MonkeyPatch):
    def offline(*args: object, **settings: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(fake_package, "FaceAlignment", offline)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*no route to host)(?=.*checkpoints)"):
        FaceAlignment().locate(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1), Path("a.mp4"))
