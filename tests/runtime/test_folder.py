"""What an exported folder says of itself, and that a changed or unfinished one is refused."""

import json
from dataclasses import replace

import pytest

from painseq.errors import PainseqError
from painseq.faces import FullFrame, YuNet
from painseq.faces.crops import FaceCrops
from painseq.runtime.folder import (
    EXTRACTOR,
    HEAD,
    HEAD_STEP,
    MODEL,
    ChangeRecord,
    ExportedRecord,
    ExtractorRecord,
    HeadRecord,
    Int8Record,
    SourceRecord,
    StateRecord,
    measured_files,
    read_folder,
)

YUNET = "yunet.onnx"
CHANGE = ChangeRecord(0.75, 0.5, -0.25, None, None, 1, "bootstrap", "only one subject")


@pytest.fixture
def exported(tmp_path, make_record):
    record = make_record()
    for name in (EXTRACTOR, HEAD, HEAD_STEP, YUNET):
        (tmp_path / name).write_bytes(name.encode() * 10)
    made = ExportedRecord(
        record,
        FaceCrops(YuNet(YUNET)).spec(),
        measured_files(tmp_path, (EXTRACTOR, HEAD, HEAD_STEP, YUNET)),
        ExtractorRecord("int8", "onnxruntime"),
        HeadRecord("video", None, record.in_shape),
        StateRecord({"hidden": (2, 16), "cell": (2, 16)}),
        SourceRecord("best.ckpt", "0" * 64),
        {"painseq": "0.1.0"},
        Int8Record(("biovid/a", "biovid/b"), 40, ("biovid/c",), 30, 0.95, 0.97, 0.01, 0.2, CHANGE),
    )
    made.write(tmp_path)
    return made


def test_a_folder_is_read_as_it_was_written(tmp_path, exported):
    assert read_folder(tmp_path) == exported
    bare = replace(exported, face=None, extractor=None, step=None, int8=None)
    assert ExportedRecord.from_dict(json.loads(json.dumps(bare.to_dict()))) == bare


def test_the_locator_uses_the_files_of_the_folder(tmp_path, exported):
    assert exported.face_crops(tmp_path).locator.model == str(tmp_path / YUNET)
    assert replace(exported, face=None).face_crops(tmp_path) is None
    whole = replace(exported, face=FaceCrops(FullFrame(), size_px=32).spec())
    assert whole.face_crops(tmp_path).size_px == 32


@pytest.mark.parametrize("name", [EXTRACTOR, HEAD, HEAD_STEP, YUNET])
@pytest.mark.parametrize("harm", ["changed", "cut", "removed"])
def test_a_changed_cut_or_missing_file_is_refused(tmp_path, exported, name, harm):
    content = (tmp_path / name).read_bytes()
    if harm == "removed":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content[:-1] + b"!" if harm == "changed" else content[:-1])
    with pytest.raises(PainseqError, match=name):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format is 2"),
        ({"head": {"level": "clip", "max_frames": None, "in_shape": [1]}}, "head.level"),
        ({"head": {"level": "video", "max_frames": None, "in_shape": [10**6]}}, "1000000"),
        ({"files": {"../head.onnx": {"sha256": "0", "bytes": 1}}}, r"\.\./head"),
        ({"files": {}}, HEAD),
        ({"files": {HEAD: {"sha256": 7, "bytes": 1}}}, "sha256"),
        ({"record": {"format": 3}}, "class_names"),
        ({"extractor": {"precision": "fp8", "engine": "onnxruntime"}}, "fp8"),
        ({"extractor": {"precision": "fp32", "engine": "openvino"}}, r"extractor\.xml, extractor\.bin"),
        ({"head": {"level": "video", "max_frames": 0, "in_shape": []}}, "max_frames is 0"),
        ({"step": {"state": {"hidden": [-1]}}}, "hidden"),
        ({"step": {"state": {"hidden": [10**6, 10**6]}}}, "hidden"),
        ({"face": FaceCrops(YuNet("/elsewhere/yunet.onnx")).spec()}, "/elsewhere/yunet"),
        ({"face": FaceCrops(YuNet("unlisted.onnx")).spec()}, "unlisted"),
        ({"face": FaceCrops(YuNet(YUNET), tracks="tracks").spec()}, "tracks"),
    ],
)
def test_another_model_json_is_refused(tmp_path, exported, change, named):
    (tmp_path / MODEL).write_text(json.dumps(exported.to_dict() | change))
    with pytest.raises(PainseqError, match=named):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"[]", b'{"format": 1', b"[" * 100_000])
def test_an_unfinished_folder_is_refused(tmp_path, exported, content):
    if content is None:
        (tmp_path / MODEL).unlink()
    else:
        (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(PainseqError, match=MODEL):
        read_folder(tmp_path)
    with pytest.raises(PainseqError, match="missing is not a folder"):
        read_folder(tmp_path / "missing")
