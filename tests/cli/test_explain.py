"""`painseq explain` on every head, and what it writes."""

import csv
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def attention_mil(work, on_electrical, store):
    from painseq.cli.fit import fit

    head = ["--config", "configs/head/attention_mil.yaml", "--trainer.max_epochs", "1"]
    return fit([*on_electrical, *head, "--data.options.store", str(store), "--out", str(work / "mil")]) / "best.ckpt"


@pytest.fixture(scope="module")
def vivit(work, on_heat, heat_crops):
    from painseq.cli.fit import fit

    pixels = '{"class_path": "painseq.extractors.Pixels", "init_args": {"input_size_px": 32}}'
    small = {"frames": 20, "tubelet": [2, 16], "width": 16, "depth": 1, "heads": 2}
    head = json.dumps({"class_path": "painseq.heads.ViViT", "init_args": small})
    more = ["--data.options.view", "pixels", "--data.options.labels", "five", "--model.extractor", pixels]
    more += ["--model.head", head, "--trainer.max_epochs", "1", "--data.options.store", str(heat_crops)]
    return fit([*on_heat, *more, "--out", str(work / "vivit")]) / "best.ckpt"


@pytest.mark.parametrize("checkpoint", ["lstm", "ann", "attention_mil", "vivit"])
def test_one_loop_over_checkpoints_explains_space_and_time(painseq, request, video, tmp_path, checkpoint):
    out = tmp_path / "out"
    said = painseq(
        "explain", video, "--checkpoint", request.getfixturevalue(checkpoint), "--out", out, "--end-s", 4
    )  # fmt: skip
    assert said.code == 0, said.err
    facts = json.loads((out / "explanation.json").read_text())
    maps = np.load(out / "maps.npz")
    with (out / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    frames = facts["prediction"]["frames"]
    assert maps["maps"].shape == (frames, 32, 32) and len(rows) == frames
    assert not maps["maps"][~maps["present"]].any()
    assert facts["space"]["method"] == ("rollout" if checkpoint == "vivit" else "gradcam")
    assert facts["time"]["method"] == ("attention" if checkpoint == "vivit" else "integrated_gradients")
    assert any(float(row[facts["time"]["method"]]) for row in rows)
    assert Image.open(out / "explanation.png").format == "PNG"


@pytest.mark.parametrize(
    ("checkpoint", "method", "time_method"),
    [
        ("lstm", "saliency", "frame_occlusion"),
        ("ann", "integrated_gradients", "votes"),
        ("attention_mil", "occlusion", "attention"),
        ("vivit", "gradient_x_input", "gradient_x_input"),
    ],
)
def test_methods_are_chosen_by_name(painseq, request, video, tmp_path, checkpoint, method, time_method):
    args = ["explain", video, "--checkpoint", request.getfixturevalue(checkpoint), "--end-s", 2, "--most-steps", 16]
    said = painseq(*args, "--out", tmp_path / "out", "--method", method, "--time-method", time_method)
    assert said.code == 0, said.err
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert (facts["space"]["method"], facts["time"]["method"]) == (method, time_method)
    assert ("Integrated Gradients: " in said.log) == (method == "integrated_gradients")


def test_the_layer_is_told_and_can_be_chosen(painseq, lstm, video, tmp_path):
    args = ["explain", video, "--checkpoint", lstm, "--end-s", 2]
    said = painseq(*args, "--out", tmp_path / "a.png")
    assert "Layer layer1; there are: act1 16 x 16, layer1 8 x 8" in said.log
    said = painseq(*args, "--out", tmp_path / "b.png", "--layer", "layer2")
    assert "Layer layer2; " in said.log
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_averaged_checkpoints_for_a_stated_mix(painseq, lstm, video, tmp_path):
    out = ["--out", tmp_path / "out", "--end-s", 2]
    mix = ["no_pain=0.1", "low_pain=0.45", "high_pain=0.45"]
    said = painseq("explain", video, "--average-checkpoints", lstm, lstm, "--prior", *mix, *out)
    assert said.code == 0 and "The mean of 2 checkpoints" in said.log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--method", "rollout"], "--method rollout does not fit this model; those that do: gradcam, "),
        (["--time-method", "votes"], "--time-method votes does not fit this model; those that do: integrated_gradien"),
        (["--layer", "layer9"], "has no layer 'layer9'; its layers: act1"),
        (["--method", "saliency", "--layer", "layer1"], "--layer goes with --method gradcam, not saliency"),
        (["--class-name", "joy"], "No class 'joy'"),
        (["--baseline", "x.mp4"], "Leave the baseline out"),
    ],
)
def test_a_wish_that_does_not_fit(painseq, lstm, video, tmp_path, change, message):
    said = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "x.png", "--end-s", 2, *change)
    assert said.code == 1 and message in said.err and not (tmp_path / "x.png").exists()


def test_a_folder_that_holds_something_is_not_overwritten(painseq, lstm, video, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    said = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "out", "--end-s", 2)
    assert said.code == 1 and "nothing is overwritten" in said.err
