"""`painseq export`, and what other commands say of a folder."""

import json

import pytest

from painseq.errors import PainseqError
from painseq.export import OpenVino
from painseq.runtime.folder import read_folder


@pytest.mark.slow
def test_export_writes_a_folder_that_predicts_as_the_checkpoint(painseq, ann, video, tmp_path):
    done = painseq("export", ann, "--out", tmp_path / "exported")
    assert done.code == 0, done.err
    record = read_folder(tmp_path / "exported")
    assert record.head.level == "frame" and record.step is None and record.extractor is not None
    for name in (*record.files, "model.json"):
        assert done.out.names(name)
    wanted, found = (
        json.loads(painseq("predict", video, "--checkpoint", path, "--json", "--device", "cpu").out)[0]
        for path in (ann, tmp_path / "exported")
    )
    assert found["label"] == wanted["label"] and found["frames"] == wanted["frames"]
    assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-4)
    again = painseq("export", ann, "--out", tmp_path / "exported")
    assert again.code == 1 and again.err.names("not empty")
    explained = painseq("explain", video, "--checkpoint", tmp_path / "exported", "--out", tmp_path / "why.png")
    assert explained.code == 1 and explained.err.names("checkpoint") and not (tmp_path / "why.png").exists()


def test_export_names_the_checkpoint_that_is_missing(painseq, tmp_path):
    done = painseq("export", tmp_path / "absent.ckpt", "--out", tmp_path / "exported")
    assert done.code == 1 and done.err.names("absent.ckpt") and not (tmp_path / "exported").exists()


def test_int8_takes_the_data_set_in_any_place_among_the_arguments(painseq, on_heat, tmp_path, monkeypatch):
    given = {}

    def stopped(model, out, locator, prior, trust, show, extractor):
        given.update(model=model, out=out, extractor=extractor)
        raise PainseqError("enough")

    monkeypatch.setattr("painseq.export.export", stopped)
    out = tmp_path / "out"
    numbers = ["--int8-people", "3", "--int8-frames", "30", "--int8-clips", "20", "--int8-floor", "0.9"]
    done = painseq("export", "--int8", *on_heat, "--data.options.view=pixels", "run/best.ckpt", *numbers, "--out", out)
    assert done.code == 1 and done.err.names("enough"), done.err
    int8 = given["extractor"]
    assert (int8.people, int8.frames, int8.clips, int8.floor) == (3, 30, 20, 0.9)
    assert (str(given["model"]), given["out"]) == ("run/best.ckpt", out)
    assert int8.data.options.view == "pixels" and int8.data.name == "biovid"
    assert painseq("export", *on_heat, "best.ckpt", "--openvino", "int8", "--out", out).err.names("enough")
    assert given["extractor"].precision.data.name == "biovid"
    assert painseq("export", "best.ckpt", "--openvino", "bf16", "--out", out).err.names("enough")
    assert given["extractor"] == OpenVino("bf16")


def test_int8_and_its_data_set_belong_together(painseq, on_heat, tmp_path):
    start = ["export", "best.ckpt", "--out", tmp_path / "out"]
    assert painseq(*start, "--int8").err.names("--config", "--data.root")
    assert painseq(*start, *on_heat).err.names("--config", "--int8")
    assert painseq(*start, "--int8", "--openvino", "bf16", *on_heat).err.names("--int8", "--openvino")
    assert not list(tmp_path.iterdir())
