"""`painseq explain regions`."""

import csv
import json
import shutil
from collections import Counter

import pytest
from PIL import Image

from painseq.cli.explained_clips import evenly
from painseq.data.labels import label_scheme
from painseq.explain import REGIONS
from painseq.records import Clip


@pytest.fixture
def regions(painseq, on_electrical):
    def call(checkpoint, out, *more):
        return painseq("explain", "regions", *on_electrical, "--checkpoint", checkpoint, "--out", out, *more)

    return call


def rows_of(out):
    with (out / "regions.csv").open() as file:
        return list(csv.DictReader(file))


def test_tables_and_pictures_of_a_part(regions, lstm, tmp_path):
    said = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 4)
    assert said.code == 0, said.err
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 4 * len(REGIONS) and Counter(row["subject_id"] for row in rows) == {"S06": 14, "S07": 14}
    for first in range(0, len(rows), len(REGIONS)):
        clip = rows[first : first + len(REGIONS)]
        assert [row["region"] for row in clip] == list(REGIONS) and len({row["clip_id"] for row in clip}) == 1
        assert sum(float(row["area"]) for row in clip) == pytest.approx(1, abs=1e-5)
        assert not clip[0]["share"] or sum(float(row["share"]) for row in clip) == pytest.approx(1, abs=1e-5)
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert (facts["method"], facts["layer"], facts["clips"], facts["skipped"]) == ("gradcam", "layer1", 4, {})
    assert facts["seen_in_training"] == {"subjects": 2, "seen": 0}
    for table in facts["regions"].values():
        assert [row["region"] for row in table] == list(REGIONS)
    blinks = json.loads((tmp_path / "out" / "blink.json").read_text())["blinks"]
    assert blinks and all(check["verdict"] in " ".join(said.out.split()) for check in blinks.values())
    assert "The eyes have" in " ".join(said.out.split()) or not any(check["clips"] for check in blinks.values())
    assert Image.open(tmp_path / "out" / "region_bars.png").format == "PNG"
    assert "outside the face" in (tmp_path / "out" / "region_bars.svg").read_text()
    assert "outside the face" in said.out and "AU45, truth" in (tmp_path / "out" / "blink.json").read_text()


def test_a_class_by_name_and_another_method(regions, lstm, tmp_path):
    said = regions(lstm, tmp_path / "out", "--part", "train", "--clips", 3, "--class-name", "low_pain", "--method",
                   "saliency", "--landmarks", "sidecar")  # fmt: skip
    assert said.code == 0, said.err
    rows = rows_of(tmp_path / "out")
    assert {row["explained"] for row in rows} == {"low_pain"}
    assert {row["truth"] for row in rows} == {"no_pain", "low_pain", "high_pain"}
    assert "The model was fitted on 3 of these 3 people" in said.log


def test_a_clip_that_cannot_be_read_is_a_counted_skip(regions, electrical, lstm, tmp_path):
    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    damaged = copy / "Test" / "S06" / "S06_1.mp4"
    damaged.write_bytes(damaged.read_bytes()[:500])
    said = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert said.code == 0, said.err
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert facts["clips"] == 1 and list(facts["skipped"]) == ["Test/S06/S06_1"] and "Skipped Test/S06/S06_1" in said.log


def test_where_no_clip_can_be_explained_no_folder_stays(regions, electrical, lstm, tmp_path):
    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    for video in (copy / "Test").rglob("*.mp4"):
        video.write_bytes(video.read_bytes()[:500])
    said = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert said.code == 1 and "None of 2 clips could be explained. The first, Test/S0" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["regions", "--score"])
def test_a_model_relative_to_each_subjects_own_is_refused_with_a_way_out(
    painseq, on_electrical, lstm, tmp_path, command
):
    import torch

    saved = torch.load(lstm, weights_only=True)
    saved["painseq"]["baseline_clips"] = 1
    torch.save(saved, tmp_path / "relative.ckpt")
    args = [*on_electrical, "--checkpoint", tmp_path / "relative.ckpt", "--out", tmp_path / "out"]
    said = painseq("explain", command, *args)
    assert said.code == 1 and f"which `painseq explain {command}` does not read. Explain single videos" in said.err
    assert not (tmp_path / "out").exists()


def test_crops_without_landmarks_are_refused_with_a_way_out(regions, work, on_electrical, store, lstm, tmp_path):
    import torch

    saved = torch.load(lstm, weights_only=True)
    saved["painseq"]["face"]["init_args"]["locator"] = {"class_path": "painseq.faces.FullFrame", "init_args": {}}
    torch.save(saved, tmp_path / "full.ckpt")
    said = regions(tmp_path / "full.ckpt", tmp_path / "out", "--clips", 1)
    assert said.code == 1 and "--landmarks face_alignment, or sidecar" in said.err
    said = regions(tmp_path / "full.ckpt", tmp_path / "out2", "--clips", 1, "--landmarks", "sidecar")
    assert said.code == 0, said.err


def test_a_clip_without_landmarks_among_others_is_skipped(regions, electrical, lstm, tmp_path):
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "electrical"
    shutil.copytree(electrical, copy)
    bare = copy / "Test" / "S07" / "S07_1.faces.safetensors"
    save_file({name: tensor for name, tensor in load_file(bare).items() if name != "landmarks"}, bare)
    said = regions(lstm, tmp_path / "out", "--part", "test", "--clips", 2, "--data.root", copy)
    assert said.code == 0, said.err
    facts = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert facts["clips"] == 1 and facts["skipped"] == {"Test/S07/S07_1": "not the 68 landmarks of iBUG"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--method", "rollout"], "--method rollout does not fit this model; those that do: gradcam"),
        (["--method", "saliency", "--layer", "layer1"], "--layer goes with --method gradcam"),
        (["--class-name", "joy"], "No class 'joy'"),
        (["--clips", 0], "--clips is 0"),
        (["--data.options.labels", "binary"], "binary"),
    ],
)
def test_a_wish_that_does_not_fit_leaves_no_folder(regions, lstm, tmp_path, change, message):
    said = regions(lstm, tmp_path / "out", *change)
    assert said.code == 1 and not (tmp_path / "out").exists()
    assert message in said.err or message == "binary"


def test_clips_are_chosen_evenly_by_class_and_subject():
    scheme = label_scheme("ai4pain", "three")
    labels = ["No_Pain"] * 6 + ["Low_Pain"] * 2 + ["High_Pain"] * 3
    clips = [
        Clip(f"{subject}{number}", subject, "v.mp4", label) for subject in "abcd" for number, label in enumerate(labels)
    ]
    chosen = evenly(clips, scheme, 12)
    assert Counter(clip.label for clip in chosen) == {"No_Pain": 4, "Low_Pain": 4, "High_Pain": 4}
    assert Counter((clip.label, clip.subject_id) for clip in chosen).most_common(1)[0][1] == 1
    assert Counter(clip.subject_id for clip in evenly(clips, scheme, 4)) == dict.fromkeys("abcd", 1)
    assert len({clip.clip_id for clip in evenly(clips, scheme, 99)}) == len(clips)
    hidden = [Clip(str(n), "ab"[n % 2], "v.mp4") for n in range(9)]
    assert Counter(clip.subject_id for clip in evenly(hidden, scheme, 4)) == {"a": 2, "b": 2}
