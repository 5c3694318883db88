"""`painseq explain regions`."""

import csv
import json
import re
import shutil
from collections import Counter

import pytest
from PIL import Image

from painseq.explain import REGIONS


@pytest.fixture
def regions(painseq, on_electrical):
    def call(checkpoint, out, *more):
        return painseq("explain", "regions", *on_electrical, "--checkpoint", checkpoint, "--out", out, *more)

    return call


def rows_of(out):
    with (out / "regions.csv").open() as file:
        return list(csv.DictReader(file))


def test_tables_and_pictures_of_a_part(regions, lstm, tmp_path):
    result = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 4)
    assert result.code == 0, result.err
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 4 * len(REGIONS) and Counter(row["subject_id"] for row in rows) == {"S06": 14, "S07": 14}
    for first in range(0, len(rows), len(REGIONS)):
        clip = rows[first : first + len(REGIONS)]
        assert [row["region"] for row in clip] == list(REGIONS) and len({row["clip_id"] for row in clip}) == 1
        assert sum(float(row["area"]) for row in clip) == pytest.approx(1, abs=1e-5)
        assert not clip[0]["share"] or sum(float(row["share"]) for row in clip) == pytest.approx(1, abs=1e-5)
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert (facts["method"], facts["layer"], facts["clips"], facts["skipped"]) == ("gradcam", "layer1", 4, {})
    assert facts["seen_in_training"] == {"subjects": 2, "seen": 0, "unknown": []}
    for table in facts["regions"].values():
        assert [row["region"] for row in table] == list(REGIONS)
    blinks = json.loads((tmp_path / "out" / "blink.json").read_text())["blinks"]
    assert blinks and all(check["verdict"] in " ".join(result.out.split()) for check in blinks.values())
    assert Image.open(tmp_path / "out" / "region_bars.png").format == "PNG"
    svg = (tmp_path / "out" / "region_bars.svg").read_text()
    assert all(region.replace("_", " ") in svg and region.replace("_", " ") in result.out for region in REGIONS)
    assert "AU45, truth" in (tmp_path / "out" / "blink.json").read_text()


def test_a_class_by_name_and_another_method(regions, lstm, tmp_path):
    result = regions(lstm, tmp_path / "out", "--part", "train", "--clips", 3, "--class-name", "low_pain", "--method",
                   "saliency", "--landmarks", "sidecar")  # fmt: skip
    assert result.code == 0, result.err
    rows = rows_of(tmp_path / "out")
    assert {row["explained"] for row in rows} == {"low_pain"}
    assert {row["truth"] for row in rows} == {"no_pain", "low_pain", "high_pain"}
    assert re.search(r"\b3\b\D+\b3\b", result.log)


def test_a_clip_that_cannot_be_read_is_a_counted_skip(regions, electrical, lstm, tmp_path):
    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    damaged = copy / "Test" / "S06" / "S06_1.mp4"
    damaged.write_bytes(damaged.read_bytes()[:500])
    result = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert result.code == 0, result.err
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert facts["clips"] == 1 and list(facts["skipped"]) == ["Test/S06/S06_1"] and result.log.names("Test/S06/S06_1")


def test_where_no_clip_can_be_explained_no_folder_stays(regions, electrical, lstm, tmp_path):
    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    for video in (copy / "Test").rglob("*.mp4"):
        video.write_bytes(video.read_bytes()[:500])
    result = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert result.code == 1 and result.err.names(2) and "Test/S0" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["regions", "score"])
def test_a_model_relative_to_each_subjects_own_is_refused_with_a_way_out(
    painseq, on_electrical, lstm, tmp_path, command
):
    import torch

    saved = torch.load(lstm, weights_only=True)
    saved["painseq"] |= {"baseline_clips": 1, "normalise": ["baseline", "train"]}
    torch.save(saved, tmp_path / "relative.ckpt")
    args = [*on_electrical, "--checkpoint", tmp_path / "relative.ckpt", "--out", tmp_path / "out"]
    result = painseq("explain", command, *args)
    assert result.code == 1 and result.err.names("painseq explain", "--baseline")
    assert not (tmp_path / "out").exists()


def test_crops_without_landmarks_are_refused_with_a_way_out(regions, work, on_electrical, store, lstm, tmp_path):
    import torch

    saved = torch.load(lstm, weights_only=True)
    saved["painseq"]["face"]["init_args"]["locator"] = {"class_path": "painseq.faces.FullFrame", "init_args": {}}
    torch.save(saved, tmp_path / "full.ckpt")
    result = regions(tmp_path / "full.ckpt", tmp_path / "out", "--clips", 1)
    assert result.code == 1 and result.err.names("--landmarks", "face_alignment", "sidecar")
    result = regions(tmp_path / "full.ckpt", tmp_path / "out2", "--clips", 1, "--landmarks", "sidecar")
    assert result.code == 0, result.err


def test_a_clip_without_landmarks_among_others_is_skipped(regions, electrical, lstm, tmp_path):
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    bare = copy / "Test" / "S07" / "S07_1.faces.safetensors"
    save_file({name: tensor for name, tensor in load_file(bare).items() if name != "landmarks"}, bare)
    result = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert result.code == 0, result.err
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert facts["clips"] == 1 and list(facts["skipped"]) == ["Test/S07/S07_1"]
    assert "68" in facts["skipped"]["Test/S07/S07_1"]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--method", "rollout"], ("method", "rollout", "gradcam")),
        (["--method", "saliency", "--layer", "layer1"], ("layer", "gradcam")),
        (["--class-name", "joy"], ("joy", "no_pain", "low_pain", "high_pain")),
        (["--clips", 0], ("clips", 0)),
        (["--data.options.labels", "binary"], (2, 3)),
    ],
)
def test_a_wish_that_does_not_fit_leaves_no_folder(regions, lstm, tmp_path, change, facts):
    result = regions(lstm, tmp_path / "out", *change)
    assert result.code == 1 and result.err.names(*facts) and not (tmp_path / "out").exists()
