"""`painseq export`, and what other commands say of a folder."""

import json

import pytest

from painseq.runtime.folder import read_folder


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
