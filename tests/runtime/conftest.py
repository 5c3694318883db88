"""An exported folder made by hand: the mean of each colour, and softmax of its mean over time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from painseq.faces import FaceCrops, FullFrame
from painseq.runtime.folder import (
    EXTRACTOR,
    HEAD,
    HEAD_STEP,
    ExportedRecord,
    ExtractorRecord,
    HeadRecord,
    SourceRecord,
    StateRecord,
    measured_files,
)

OPSET = 20


def _save(path: Path, nodes, inputs, outputs, values) -> None:
    onnx = pytest.importorskip("onnx")
    kinds = {"uint8": 2, "int64": 7, "bool": 9, "float": 1}
    describe = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, takes, gives, **settings) for kind, takes, gives, settings in nodes],
        path.stem,
        [describe(name, kinds[kind], shape) for name, kind, shape in inputs],
        [describe(name, kinds[kind], shape) for name, kind, shape in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_extractor(path: Path) -> None:
    nodes = [
        ("Cast", ["crops"], ["pixels"], {"to": 1}),
        ("ReduceMean", ["pixels", "axes"], ["means"], {"keepdims": 0}),
        ("Div", ["means", "most"], ["features"], {}),
    ]
    shapes = [("crops", "uint8", ["n", 3, 16, 16])], [("features", "float", ["n", 3])]
    _save(path, nodes, *shapes, {"axes": np.array([2, 3]), "most": np.float32(255)})


def write_head(path: Path) -> None:
    nodes = [
        ("Cast", ["mask"], ["weight"], {"to": 1}),
        ("Unsqueeze", ["weight", "last"], ["weights"], {}),
        ("Mul", ["x", "weights"], ["real"], {}),
        ("ReduceSum", ["real", "one"], ["sum"], {"keepdims": 0}),
        ("ReduceSum", ["weight", "one"], ["count"], {"keepdims": 1}),
        ("Div", ["sum", "count"], ["mean"], {}),
        ("Softmax", ["mean"], ["probabilities"], {"axis": -1}),
        ("Equal", ["count", "zero"], ["empty"], {}),
        ("Squeeze", ["empty", "last"], ["nobody"], {}),
        ("ArgMax", ["probabilities"], ["largest"], {"axis": 1, "keepdims": 0}),
        ("Where", ["nobody", "none", "largest"], ["label"], {}),
    ]
    inputs = [("x", "float", ["b", "t", 3]), ("mask", "bool", ["b", "t"])]
    outputs = [("label", "int64", ["b"]), ("probabilities", "float", ["b", 3])]
    values = {"last": np.array([-1]), "one": np.array([1]), "zero": np.float32(0), "none": np.array(-1)}
    _save(path, nodes, inputs, outputs, values)


def write_step(path: Path) -> None:
    nodes = [
        ("Add", ["sum", "x"], ["next_sum"], {}),
        ("Add", ["count", "one"], ["next_count"], {}),
        ("Div", ["next_sum", "next_count"], ["mean"], {}),
        ("Softmax", ["mean"], ["probabilities"], {"axis": -1}),
        ("ArgMax", ["probabilities"], ["label"], {"axis": 1, "keepdims": 0}),
    ]
    state = [("sum", "float", ["b", 3]), ("count", "float", ["b", 1])]
    outputs = [("label", "int64", ["b"]), ("probabilities", "float", ["b", 3])]
    outputs += [(f"next_{name}", kind, shape) for name, kind, shape in state]
    _save(path, nodes, [("x", "float", ["b", 3]), *state], outputs, {"one": np.float32(1)})


@pytest.fixture
def write_folder(tmp_path, make_record) -> Callable[..., Path]:
    """Writes the folder; the fields of its `model.json` can be changed."""

    def write(**changes: object) -> Path:
        folder = tmp_path / "exported"
        folder.mkdir(exist_ok=True)
        for name, graph in ((EXTRACTOR, write_extractor), (HEAD, write_head), (HEAD_STEP, write_step)):
            graph(folder / name)
        record = make_record(in_shape=(3,))
        exported = ExportedRecord(
            record,
            FaceCrops(FullFrame(), size_px=16, margin=0).spec(),
            measured_files(folder, (EXTRACTOR, HEAD, HEAD_STEP)),
            ExtractorRecord("fp32", "onnxruntime"),
            HeadRecord("video", None, record.in_shape),
            StateRecord({"sum": (3,), "count": (1,)}),
            SourceRecord("best.ckpt", "0" * 64),
            {"painseq": "0.1.0"},
        )
        replace(exported, **changes).write(folder)
        return folder

    return write


@pytest.fixture
def colours(tmp_path) -> Path:
    """A video of plain pictures, each in a colour of its own, and their shares of red, green and blue."""
    from painseq.video import write_video

    random = np.random.default_rng(0)
    shares = random.uniform(0.2, 0.8, (12, 3))
    write_video(tmp_path / "colours.mp4", (np.full((32, 32, 3), 255 * share, np.uint8) for share in shares), 5)
    return tmp_path / "colours.mp4"
