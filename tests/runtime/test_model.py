"""Models of exported folders, without torch."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.runtime import load
from painseq.runtime.folder import EXTRACTOR, HEAD, HEAD_STEP, ExtractorRecord, HeadRecord, StateRecord, measured_files
from painseq.video import open_video

pytest.importorskip("onnxruntime")


def softmax(x):
    exact = np.exp(x - x.max(axis=-1, keepdims=True))
    return exact / exact.sum(axis=-1, keepdims=True)


def test_a_folder_predicts_a_video(write_folder, colours):
    model = load(write_folder(), threads=1)
    assert isinstance(model, Predictor) and model.level == "video" and model.class_names[0] == "no_pain"
    with open_video(colours) as opened:
        shares = opened.frames(np.arange(12)).mean(axis=(1, 2)) / 255
    found = model.predict(colours)
    expected = softmax(shares.mean(axis=0))
    np.testing.assert_allclose([*found.probabilities.values()], expected, atol=1e-3)
    assert found.label == model.class_names[int(expected.argmax())]
    assert found.frames == 12 and found.frame_probabilities.shape == (12, 3)
    so_far = shares.cumsum(axis=0) / np.arange(1, 13)[:, None]
    np.testing.assert_allclose(found.frame_probabilities, softmax(so_far), atol=1e-3)
    assert found.backends["device"] == "cpu" and found.backends["engine"] == "onnxruntime fp32"


def test_answers_of_batches_and_of_clips_without_a_face(write_folder):
    model = load(write_folder())
    rows = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    answer = model.answer(rows, mask)
    assert answer.label[2] == -1 and np.isnan(answer.probabilities[2]).all()
    for row, present, probabilities in zip(rows[:2], mask[:2], answer.probabilities[:2], strict=True):
        np.testing.assert_allclose(probabilities, softmax(row[present].mean(axis=0)), atol=1e-6)
    assert model.features(np.zeros((4, 3, 16, 16), np.uint8)).shape == (4, 3)


def test_steps_lead_to_the_answer_of_the_clip(write_folder):
    model = load(write_folder())
    rows = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    state = first = model.first_state(2)
    for frame in range(5):
        answer, state = model.step(rows[:, frame], state)
    whole = model.answer(rows, np.ones((2, 5), bool))
    np.testing.assert_allclose(answer.probabilities, whole.probabilities, atol=1e-6)
    assert not first["count"].any() and model.steps
    clips_only = load(write_folder(step=None))
    assert not clips_only.steps
    for ask in (clips_only.first_state, lambda: clips_only.step(rows[:, 0], state)):
        with pytest.raises(PainseqError, match="LSTM"):
            ask()


def test_longer_clips_than_the_head_takes_are_refused(write_folder):
    model = load(write_folder(head=HeadRecord("video", 4, (3,))))
    with pytest.raises(PainseqError, match=r"\b4 frames\b.*\b5\b"):
        model.answer(np.zeros((1, 5, 3), np.float32), np.ones((1, 5), bool))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step": StateRecord({"sum": (3,)})}, HEAD_STEP),
        ({"head": HeadRecord("frame", None, (3,))}, f"{HEAD}.*votes"),
    ],
)
def test_graphs_other_than_the_record_tells_are_refused(write_folder, changes, named):
    with pytest.raises(PainseqError, match=named):
        load(write_folder(**changes))


def test_a_file_that_is_no_graph_is_refused(write_folder):
    from painseq.runtime.folder import measured_files, read_folder

    folder = write_folder()
    (folder / HEAD).write_bytes(b"no graph")
    exported = replace(read_only(folder), files=measured_files(folder, (EXTRACTOR, HEAD, HEAD_STEP)))
    exported.write(folder)
    assert read_folder(folder) == exported
    with pytest.raises(PainseqError, match=rf"onnxruntime.*{HEAD}"):
        load(folder)


def read_only(folder: Path):
    """The record of a folder whose files were changed."""
    from painseq.files import parse_json
    from painseq.runtime.folder import MODEL, ExportedRecord

    return ExportedRecord.from_dict(parse_json((folder / MODEL).read_bytes()))


def test_nothing_is_noted_of_what_is_run(tmp_path):
    (tmp_path / "telemetry" / "openvino_telemetry").mkdir(parents=True)
    code = """
import painseq, onnxruntime
try:
    import openvino_telemetry
except ImportError:
    print("kept from it")
"""
    path = os.pathsep.join([str(tmp_path / "telemetry"), *sys.path])
    env = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": path}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run([sys.executable, "-B", "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "kept from it\n", done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["telemetry"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tpu", "cpu:1"])
def test_devices_that_are_not_there_are_refused(write_folder, device):
    import onnxruntime

    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has a GPU here")
    with pytest.raises(PainseqError, match=device):
        load(write_folder(), device)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_cannot_be_used_is_not_replaced_silently(write_folder, monkeypatch, caplog):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has a GPU here")
    # As where onnxruntime-gpu is installed, and no driver: a session then goes on with the CPU.
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(PainseqError, match="cannot use a GPU"):
        load(write_folder(), "cuda")
    with caplog.at_level("INFO", "painseq"):
        assert load(write_folder(), "auto").device == "cpu"
    assert "cannot use a GPU" in caplog.text


def test_openvino_is_asked_for_where_it_is_missing(write_folder):
    try:
        import openvino  # noqa: F401
    except ImportError:
        folder, names = write_folder(), ("extractor.xml", "extractor.bin")
        for name in names:
            (folder / name).write_bytes(b"")
        of_openvino = {"extractor": ExtractorRecord("bf16", "openvino")}
        write_folder(**of_openvino, files=measured_files(folder, (*names, HEAD, HEAD_STEP)))
        with pytest.raises(PainseqError, match=r"extractor\.xml.*painseq\[openvino\]"):
            load(folder)
        with pytest.raises(PainseqError, match="on the CPU only"):
            load(folder, "cuda")
    else:
        pytest.skip("OpenVINO is installed")


def test_a_folder_is_no_checkpoint(write_folder):
    import painseq

    with pytest.raises(PainseqError, match=r"painseq\.runtime\.load"):
        painseq.load(write_folder())


FORBIDDEN = (
    *("torch", "torchvision", "pytorch_lightning", "lightning", "torchmetrics", "timm", "sklearn", "scipy"),
    *("matplotlib", "pandas", "jsonargparse", "captum", "huggingface_hub", "jinja2"),
)
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def without_torch(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where only the packages of the runtime can be imported."""
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, timeout=300)


def test_a_video_is_predicted_without_torch_and_what_it_brings(write_folder, colours):
    folder = write_folder()
    expected = load(folder).predict(colours)
    done = without_torch(
        f"import painseq.runtime\nprint(painseq.runtime.load({str(folder)!r}).predict({str(colours)!r}).probabilities)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(dict(expected.probabilities))
