"""What a checkpoint says of its model: written, read again, and checked, since it may come from elsewhere."""

import json
import math
from dataclasses import MISSING, fields

import pytest
import torch

from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.model.record import FORMAT, CalibrationRecord, DataRecord, ModelRecord, SplitRecord, ThresholdRecord

SPLIT = SplitRecord("official", ("a", "b"), ("c",), ())
TWO = {"class_names": ("no_pain", "pain"), "train_prior": (0.5, 0.5)}
TUNED = ThresholdRecord(0.31, "sensitivity=0.9", 5, 20, 200, 0.9, 0.7, True)
MEASURED = CalibrationRecord(ece=0.1, brier=0.5, overconfidence=-0.02, subjects=4, clips=8)
OWN = DataRecord("folder", {"none": ["0"], "some": ["1..3"]}, "f" * 16, SPLIT, {"none": 3, "some": 1}, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unknown_people": ("the extractor", "timm:vit")},
        {"data": OWN, "fitted_on": ("folder/a", "folder/b"), "fps": None},
        {"scale": Scale("pspi", 0.0, 16.0), "loss": "mse", "class_names": (), "train_prior": ()},
        {**TWO, "threshold": TUNED},
        {"calibration": MEASURED},
    ],
)
def test_a_record_is_plain_data_and_is_read_again(make_record, changes):
    record = make_record(**changes)
    written = json.loads(json.dumps(record.to_dict()))
    assert written["format"] == FORMAT and {field.name for field in fields(record)} < written.keys()
    assert ModelRecord.from_dict(written) == record
    assert ModelRecord.from_dict(written | {"of a later version": 1}) == record


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, ["2", "3"]),
        ({"fitted_on": "biovid/7"}, ["fitted_on", "'biovid/7'"]),
        ({"fitted_on": ["biovid/7", 9]}, ["fitted_on[1]", "9"]),
        ({"loss": "hinge"}, ["loss", "'hinge'", "corn"]),
        ({"baseline_clips": True}, ["baseline_clips", "True"]),
        ({"baseline_clips": 1.5}, ["baseline_clips", "1.5"]),
        ({"fps": "fast"}, ["fps", "'fast'"]),
        ({"fps": math.nan}, ["fps", "nan"]),
        ({"fps": 0}, ["fps", "0"]),
        ({"baseline_clips": -1}, ["baseline_clips", "-1"]),
        ({"class_names": ["pain", "pain", "none"]}, ["class_names", "pain"]),
        ({"class_names": []}, ["class_names"]),
        ({"class_names": ["none", "pain"]}, ["train_prior", "0.333"]),
        ({"train_prior": [1.0, 0.0, 0.0]}, ["train_prior", "0.0"]),
        ({"scale": {"name": "pspi", "low": 0.0, "high": math.inf}}, ["scale.high", "inf"]),
        ({"head": ["LSTM"]}, ["head", "LSTM"]),
        ({"in_shape": 5}, ["in_shape", "5"]),
        ({"scale": {"name": "pspi", "low": 0.0}}, ["scale.high"]),
        ({"data": {"name": "biovid"}}, ["data.fingerprint", "data.split"]),
        ({"threshold": TUNED.to_dict()}, ["threshold", "two classes"]),
        ({"threshold": {"value": 0.5}}, ["threshold.metric"]),
        ({"calibration": {**MEASURED.to_dict(), "ece": 1.5}}, ["calibration"]),
        ({"calibration": {**MEASURED.to_dict(), "subjects": 9}}, ["calibration"]),
    ],
)
def test_what_is_no_record_is_an_error_that_names_key_and_value(make_record, change, named):
    with pytest.raises(PainseqError) as caught:
        ModelRecord.from_dict(make_record().to_dict() | change)
    assert all(part in str(caught.value) for part in named)


def _endless() -> dict[str, object]:
    table: dict[str, object] = {}
    table["init_args"] = table
    return table


@pytest.mark.parametrize("key", ["format", *(field.name for field in fields(ModelRecord))])
@pytest.mark.parametrize(
    "value",
    [
        2**2000,
        -(2**2000),
        math.nan,
        torch.zeros(2),
        b"bytes",
        "x" * 10**6,
        {1: 2},
        {"class_path": [1]},
        [[]],
        _endless(),
    ],
    ids=["huge", "very negative", "nan", "tensor", "bytes", "long", "keys", "path", "nested", "endless"],
)
def test_hostile_values_are_errors_for_people(make_record, key, value):
    try:
        ModelRecord.from_dict(make_record().to_dict() | {key: value})
    except PainseqError as error:
        assert key in str(error) or "nested" in str(error)
        assert len(str(error)) < 500


@pytest.mark.parametrize("found", [None, [], "record", {}])
def test_a_file_without_a_record_is_no_checkpoint(found):
    with pytest.raises(PainseqError, match="not a checkpoint"):
        ModelRecord.from_dict(found)


def test_every_key_is_needed(make_record):
    later = {"painseq", "unknown_people", "fitted_videos", "threshold", "generated", "normalise", "calibration"}
    assert {field.name for field in fields(ModelRecord) if field.default is not MISSING} == later
    for field in fields(ModelRecord):
        written = make_record().to_dict()
        del written[field.name]
        if field.name in later:
            ModelRecord.from_dict(written)
            continue
        with pytest.raises(PainseqError, match=field.name):
            ModelRecord.from_dict(written)


RANDOM = {"class_path": "painseq.extractors.TimmBackbone", "init_args": {"weights": None}}
LOADED = {"class_path": "painseq.extractors.TimmBackbone", "init_args": {"weights": "w.pth"}}


@pytest.mark.parametrize(
    ("changes", "unknown"),
    [
        ({"extractor": RANDOM}, ()),
        ({"extractor": LOADED, "extractor_trained_on": ("biovid/1",)}, ()),
        ({"extractor": LOADED}, ("the extractor",)),
        ({"extractor": None}, ("the extractor",)),
        ({"extractor": RANDOM, "started_from": ("a.ckpt", "w.pth", "timm:vit")}, ("w.pth", "timm:vit")),
    ],
)
def test_an_older_record_that_names_nobody_says_unknown(make_record, changes, unknown):
    written = make_record(**changes).to_dict()
    del written["unknown_people"]
    assert ModelRecord.from_dict(written).unknown_people == unknown
