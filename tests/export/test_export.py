"""A whole folder: what is in it, that it appears at once, and which models are refused."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

import painseq.runtime
from painseq.errors import PainseqError
from painseq.export import export, graph_process
from painseq.export.faces import exported_face
from painseq.extractors import Pixels, TimmBackbone
from painseq.faces import FaceAlignment, FaceCrops, FaceMesh, FullFrame, Sidecar, YuNet
from painseq.heads import LSTM, LinearProbe
from painseq.live import LivePredictor, LiveSettings, Skipping
from painseq.model import PainModel, load
from painseq.model.averaging import AveragedModel
from painseq.model.checkpoint import write_checkpoint
from painseq.model.record import StreamRecord
from painseq.runtime.folder import FileRecord, read_folder
from painseq.spec import spec_of

PRIOR = {"no_pain": 0.8, "low_pain": 0.1, "high_pain": 0.1}


@pytest.fixture
def model_of(make_record):
    """Makes a model of a small network and a head."""

    def make(head, extractor=None, locator=None, **fields):
        extractor = TimmBackbone("test_resnet", input_size_px=32) if extractor is None else extractor
        face = FaceCrops(Sidecar() if locator is None else locator, size_px=32)
        record = make_record(
            head=spec_of(head),
            in_shape=head.in_shape,
            extractor=extractor.record(),
            face=face.spec(),
            **fields,
        )
        return PainModel(record, head, extractor, face)

    return make


@pytest.fixture(scope="module")
def exported(make_record, tmp_path_factory):
    """A checkpoint of a network and an LSTM, and its folder, each graph written by a process of its own."""
    place = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    head = LSTM(extractor.out_shape, 3, units=(4, 3), dense=4)
    face = FaceCrops(Sidecar(str(place)), size_px=32)
    record = make_record(
        head=spec_of(head), in_shape=head.in_shape, extractor=extractor.record(), face=face.record()
    )  # fmt: skip
    write_checkpoint(place / "best.ckpt", record, head, extractor)
    export(place / "best.ckpt", place / "exported" / "lstm", prior=PRIOR)
    return place / "best.ckpt", place / "exported" / "lstm"


@pytest.mark.slow
def test_a_folder_predicts_what_its_checkpoint_predicts(exported):
    checkpoint, folder = exported
    record, model = read_folder(folder), load(checkpoint).with_prior(PRIOR)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*record.files, "model.json"])
    assert set(record.files) == {"extractor.onnx", "head.onnx", "head_step.onnx"}
    assert record.record == model.record and record.prior == PRIOR and record.source.name == "best.ckpt"
    assert record.step.state == {"h_first": (4,), "c_first": (4,), "h_second": (3,), "c_second": (3,)}
    assert record.face_crops(folder).identity() == model.face.identity()
    assert record.face_crops(folder).locator.directory is None, "a folder of this machine"
    crops = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    mask = np.array([[True, True, False, True, False, True, True]])
    without_torch = painseq.runtime.load(folder)
    rows = without_torch.features(crops.numpy())[None]
    for found, wanted in (
        (without_torch.answer(rows, mask), model.answer(model.features(crops.numpy())[None], mask)),
        (without_torch.step(rows[0], without_torch.first_state(7))[0], model.step(rows[0], model.first_state(7))[0]),
    ):
        assert found.label.tolist() == wanted.label.tolist()
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)


@pytest.mark.slow
def test_a_folder_says_live_what_its_checkpoint_says(exported):
    checkpoint, folder = exported
    settings = LiveSettings(warm_up_s=0, window_s=0.6, skipping=Skipping("none"))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
    said = []
    for model in (load(checkpoint).with_prior(PRIOR), painseq.runtime.load(folder)):
        live = LivePredictor(model, settings, locator=FullFrame())
        said.append([live.push(picture, 0.2 * i) for i, picture in enumerate(pictures)])
    for (wanted,), (found,) in zip(*said, strict=True):
        assert (found.state, found.label) == (wanted.state, wanted.label)
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-4)


@pytest.mark.slow
def test_a_folder_that_was_changed_is_refused(exported, tmp_path):
    _, folder = exported
    for name in read_folder(folder).files:
        copy = tmp_path / name
        copy.mkdir()
        for path in folder.iterdir():
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= path.name == name
            (copy / path.name).write_bytes(content)
        with pytest.raises(PainseqError, match=name.replace(".", r"\.")):
            read_folder(copy)
        (copy / name).unlink()
        with pytest.raises(PainseqError, match=name.replace(".", r"\.")):
            read_folder(copy)


@pytest.mark.slow
def test_a_folder_is_not_written_over_nor_exported_again(exported, tmp_path):
    checkpoint, folder = exported
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(PainseqError, match="not empty"):
        export(checkpoint, folder)
    with pytest.raises(PainseqError, match="exported"):
        export(folder, tmp_path / "again")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("fails", "asked"),
    [
        (lambda names: False, ["extractor head head_step"]),
        (lambda names: len(names) > 1, ["extractor head head_step", "head head_step", "head_step"]),
    ],
)
def test_a_graph_that_fails_after_another_is_written_by_a_process_of_its_own(fails, asked, monkeypatch):
    def write(job, on_written):
        found.append(" ".join(job.files))
        names = list(job.files)
        for name in names[:1] if fails(names) else names:
            on_written(name)
        if fails(names):
            raise PainseqError("fixed")

    found, written = [], []
    monkeypatch.setattr(graph_process, "_run", write)
    job = graph_process.Job("best.ckpt", {"extractor": "e", "head": "h", "head_step": "s"}, None, [])
    graph_process.run(job, lambda: written.append(1))
    assert found == asked and len(written) == 3


def test_a_graph_that_fails_alone_is_an_error(monkeypatch):
    def write(job, on_written):
        found.append(" ".join(job.files))
        if "head" in job.files:
            on_written("head")
        raise PainseqError("head_step differs")

    found: list[str] = []
    monkeypatch.setattr(graph_process, "_run", write)
    with pytest.raises(PainseqError, match="head_step"):
        graph_process.run(graph_process.Job("a.ckpt", {"head": "h", "head_step": "s"}, None, []), lambda: None)
    assert found == ["head head_step", "head_step"]


def test_a_graph_that_fails_leaves_nothing_behind(model_of, tmp_path, monkeypatch):
    def fail(job, on_written):
        raise PainseqError("head.onnx differs from torch")

    monkeypatch.setattr("painseq.export.graph_process.run", fail)
    with pytest.raises(PainseqError, match="differs"):
        export(model_of(LinearProbe((384,), 3)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_an_exported_model_cannot_be_is_refused(model_of, tmp_path):
    probe = LinearProbe((384,), 3)
    model = model_of(probe)
    second = model_of(probe, streams=(StreamRecord("cnn", {}), StreamRecord("clip_vectors", {})))
    movements = model_of(probe, locator=YuNet("here.onnx"), streams=(StreamRecord("movements", {}),))
    of_alignment = model_of(LinearProbe((136,), 3), locator=FaceAlignment(), streams=(StreamRecord("landmarks", {}),))
    boxes = model_of(probe, locator=FaceMesh())
    boxes.face = FaceCrops(FaceMesh(), kind="landmark_box", size_px=32)
    for refused, fact in (
        (AveragedModel([model, model]), "average"),
        (second, "clip_vectors"),
        (model_of(probe, locator=FaceAlignment()), "FaceAlignment"),
        (movements, "FaceMesh"),
        (model_of(probe, locator=YuNet(str(tmp_path / "absent.onnx"))), r"absent\.onnx"),
    ):
        with pytest.raises(PainseqError, match=fact):
            export(refused, tmp_path / "out")
        assert not list(tmp_path.iterdir())
    for refused, locator, fact in (
        (of_alignment, FaceMesh(), "68 points of FaceAlignment"),
        (of_alignment, YuNet(), "68 points of FaceAlignment"),
        (boxes, YuNet(), "YuNet finds no landmarks"),
        (boxes, FullFrame(), "FullFrame finds no landmarks"),
    ):
        with pytest.raises(PainseqError, match=fact):
            export(refused, tmp_path / "out", locator)
        assert not list(tmp_path.iterdir())


def test_the_locators_files_are_copied(model_of, tmp_path, caplog):
    (tmp_path / "mine.onnx").write_bytes(b"detector")
    (tmp_path / "mesh.task").write_bytes(b"mesh")
    yunet, task = str(tmp_path / "mine.onnx"), str(tmp_path / "mesh.task")
    for locator, wanted in (
        (YuNet(yunet, min_score=0.7), {"yunet_model.onnx": b"detector"}),
        (FaceMesh(task, yunet), {"facemesh_model.task": b"mesh", "facemesh_yunet_model.onnx": b"detector"}),
        (FullFrame(), {}),
        (Sidecar("somewhere"), {}),
    ):
        folder = tmp_path / type(locator).__name__
        folder.mkdir()
        with caplog.at_level(logging.WARNING):
            face, names = exported_face(model_of(LinearProbe((384,), 3), locator=FaceAlignment()), locator, folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted and set(names) == set(wanted)
        rebuilt = FaceCrops.from_spec(face)
        assert type(rebuilt.locator) is type(locator) and str(tmp_path) not in str(face)
        assert getattr(rebuilt.locator, "min_score", 0.6) == getattr(locator, "min_score", 0.6)
        assert bool(caplog.records) == isinstance(locator, Sidecar)


def test_a_head_of_pixels_has_no_extractor_file(make_record, model_of, tmp_path, monkeypatch):
    from painseq.heads import ViViT

    def write(job, on_written):
        for name, path in job.files.items():
            written.append(name)
            Path(path).write_bytes(b"graph")

    written: list[str] = []
    monkeypatch.setattr("painseq.export.graph_process.run", write)
    head = ViViT((3, 32, 32), 3, frames=4, tubelet=(2, 16), width=8, depth=1, heads=2)
    record = export(model_of(head, Pixels(32)), tmp_path / "out")
    assert written == ["head"] and record.extractor is None
    assert record.head.max_frames == 4 and record.head.in_shape == (3, 32, 32)
    assert read_folder(tmp_path / "out").files == record.files
    assert record.files["head.onnx"].bytes == 5 and isinstance(record.files["head.onnx"], FileRecord)


@pytest.mark.slow
def test_a_head_of_another_package_is_exported_if_it_is_trusted(make_record, tmp_path, monkeypatch):
    (tmp_path / "their_lab.py").write_text(
        "from torch import nn\n"
        "from painseq.batch import masked_mean\n"
        "from painseq.heads import Head\n\n"
        "class Theirs(Head):\n"
        '    level = "video"\n'
        "    def __init__(self, in_shape, num_classes):\n"
        "        super().__init__(in_shape, num_classes)\n"
        "        self.net = nn.Linear(in_shape[0], num_classes)\n"
        "    def forward(self, x, mask):\n"
        "        return self.net(masked_mean(x, mask))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import their_lab

    head = their_lab.Theirs((4,), 3)
    record = make_record(head=spec_of(head), in_shape=(4,))
    write_checkpoint(tmp_path / "best.ckpt", record, head, None)
    with pytest.raises(PainseqError, match="their_lab"):
        export(tmp_path / "best.ckpt", tmp_path / "out")
    export(tmp_path / "best.ckpt", tmp_path / "out", trust=["their_lab"])
    assert set(read_folder(tmp_path / "out").files) == {"head.onnx"}
