"""What a checkpoint says of its model: written, read again, and checked, since it may come from elsewhere."""

import json
from dataclasses import fields

import pytest

from painseq.data.labels import Scale
from painseq.errors import PainseqError
from painseq.model.record import FORMAT, DataRecord, ModelRecord, SplitRecord

SPLIT = SplitRecord("official", ("a", "b"), ("c",), ())
OWN = DataRecord("folder", {"none": ["0"], "some": ["1..3"]}, "f" * 16, SPLIT, {"none": 3, "some": 1}, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": OWN, "fitted_on": ("folder/a", "folder/b"), "fps": None},
        {"scale": Scale("pspi", 0.0, 16.0), "loss": "mse", "class_names": (), "train_prior": ()},
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
        ({"head": ["LSTM"]}, ["head", "LSTM"]),
        ({"in_shape": 5}, ["in_shape", "5"]),
        ({"scale": {"name": "pspi", "low": 0.0}}, ["scale.high"]),
        ({"data": {"name": "biovid"}}, ["data.fingerprint", "data.split"]),
    ],
)
def test_what_is_no_record_is_an_error_that_names_key_and_value(make_record, change, named):
    with pytest.raises(PainseqError) as caught:
        ModelRecord.from_dict(make_record().to_dict() | change)
    assert all(part in str(caught.value) for part in named)


@pytest.mark.parametrize("found", [None, [], "record", {}])
def test_a_file_without_a_record_is_no_checkpoint(found):
    with pytest.raises(PainseqError, match="not a checkpoint"):
        ModelRecord.from_dict(found)


def test_every_key_is_needed(make_record):
    for field in fields(ModelRecord):
        written = make_record().to_dict()
        del written[field.name]
        if field.name == "painseq":
            ModelRecord.from_dict(written)
            continue
        with pytest.raises(PainseqError, match=field.name):
            ModelRecord.from_dict(written)
