"""Exported models on real videos: what runs without torch answers as the checkpoint does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import painseq.runtime
from painseq.data.streams import MovementStream
from painseq.export import export
from painseq.export.graphs import graph_of
from painseq.export.onnx_files import write_graph
from painseq.extractors import VGG16, Extractor, Pixels, TimmBackbone
from painseq.faces import FaceCrops, FaceMesh, YuNet
from painseq.faces.movements import NAMES
from painseq.heads import LSTM, Head, RandomForest, ViViT
from painseq.heads.head import Rows
from painseq.model import PainModel, load
from painseq.model.record import StreamRecord
from painseq.spec import spec_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
CNN = (StreamRecord("cnn", {}),)


@pytest.fixture
def model_of(make_record):
    """Makes a model whose head is not fitted."""

    def make(head: Head, extractor: Extractor, face: FaceCrops, streams=CNN) -> PainModel:
        record = make_record(
            head=spec_of(head), in_shape=head.in_shape, extractor=extractor.record(), face=face.record(), fps=2.0,
            streams=streams,
        )  # fmt: skip
        return PainModel(record, head, extractor, face)

    return make


@pytest.fixture
def yunet(assets: Path) -> str:
    pytest.importorskip("cv2", exc_type=ImportError)
    return str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx")


@pytest.fixture
def in_this_process(monkeypatch):
    """Graphs are written in this process, which saves starting torch."""

    def run(job, on_written) -> None:
        for name, path in job.files.items():
            write_graph(graph_of(load(job.checkpoint, job.trust), name), Path(path))

    monkeypatch.setattr("painseq.export.graph_process.run", run)


def agree(model: PainModel, folder: Path, video: Path, end_s: float | None = None) -> dict[str, object]:
    """Compare the predictions of both; return that of the exported one."""
    wanted = model.predict(video, end_s=end_s).to_dict()
    found = painseq.runtime.load(folder).predict(video, end_s=end_s).to_dict()
    numbers = ("probabilities", "frame_probabilities", "backends")
    same = {key for key in wanted if key not in numbers}
    assert {key: found[key] for key in same} == {key: wanted[key] for key in same}
    assert set(found["probabilities"]) == set(wanted["probabilities"])
    for name, probability in wanted["probabilities"].items():
        assert found["probabilities"][name] == pytest.approx(probability, abs=1e-4)
    np.testing.assert_allclose(found["frame_probabilities"], wanted["frame_probabilities"], atol=1e-4)
    return found


def test_vgg16_and_an_lstm_on_faces_that_come_and_go(model_of, assets, yunet, tmp_path):
    weights = assets / "weights" / "backbone" / "vgg16_imagenet_features_tvnorm_fp16.safetensors"
    model = model_of(LSTM((512,), 3), VGG16(str(weights), input_size_px=64), FaceCrops(YuNet(yunet), size_px=64))
    record = export(model, tmp_path / "exported")  # each graph by a process of its own
    assert {"extractor.onnx", "head.onnx", "head_step.onnx", "yunet_model.onnx"} == set(record.files)
    found = agree(model, tmp_path / "exported", assets / "videos" / "face_noface.mov", 4.0)
    assert 0 < found["faceless_frames"] < found["frames"] and found["label"] is not None


def test_trees_on_the_movements_of_a_face(model_of, assets, yunet, tmp_path, in_this_process):
    task = str(assets / "weights" / "face_mesh" / "face_landmarker.task")
    head = RandomForest((len(NAMES),), 3, trees=10)
    x, target = torch.rand(40, 6, len(NAMES)), torch.arange(40) % 3
    head.fit_rows(Rows(x, torch.ones(40, 6, dtype=torch.bool), target, torch.ones(40)), None)
    streams = (StreamRecord("movements", MovementStream(task).identity),)
    model = model_of(head, TimmBackbone("test_resnet", input_size_px=32),
                     FaceCrops(FaceMesh(task, yunet), size_px=32), streams)  # fmt: skip
    record = export(model, tmp_path / "exported")
    assert {"head.onnx", "facemesh_model.task", "facemesh_yunet_model.onnx"} == set(record.files)
    assert agree(model, tmp_path / "exported", assets / "videos" / "single_face.mp4")["label"] is not None


def test_a_transformer_of_pixels_and_a_video_without_a_face(model_of, assets, yunet, tmp_path, in_this_process):
    head = ViViT((3, 32, 32), 3, frames=10, tubelet=(2, 16), width=16, depth=2, heads=2)
    model = model_of(head, Pixels(32), FaceCrops(YuNet(yunet), size_px=32))
    export(model, tmp_path / "exported")
    assert agree(model, tmp_path / "exported", assets / "videos" / "single_face.mp4")["label"] is not None
    assert agree(model, tmp_path / "exported", assets / "videos" / "no_face.mp4")["label"] is None
