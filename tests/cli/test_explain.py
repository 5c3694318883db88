"""`painseq explain` on every head, and what it writes."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from painseq import load
from painseq.data.streams.action_units import OPENFACE
from painseq.explain import REGIONS
from painseq.studies.explain_video import ExplainVideoOptions, explain_video


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
    result = painseq(
        "explain", video, "--checkpoint", request.getfixturevalue(checkpoint), "--out", out, "--end-s", 4
    )  # fmt: skip
    assert result.code == 0, result.err
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
    result = painseq(*args, "--out", tmp_path / "out", "--method", method, "--time-method", time_method)
    assert result.code == 0, result.err
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert (facts["space"]["method"], facts["time"]["method"]) == (method, time_method)
    assert ("Integrated Gradients" in result.log) == (method == "integrated_gradients")


def test_no_curve_is_drawn_over_a_stretch_without_a_face(lstm, ann, video):
    sidecar = video.with_suffix("").with_suffix(".faces.safetensors")
    faces = load_file(sidecar)
    unseen = (faces["times_s"] > 0.9) & (faces["times_s"] < 3.1)
    faces["boxes"][unseen] = np.nan
    save_file(faces, sidecar)
    for checkpoint in (lstm, ann):
        explained = explain_video(load(checkpoint), video, options=ExplainVideoOptions(end_s=5.0))
        assert 0 < len(explained.prediction.faceless_times_s) < explained.prediction.frames
        for times_s, values, _ in explained.curves():
            assert (np.diff(times_s) > 0).all() and len(times_s) == explained.prediction.frames
            assert np.isnan(values).tolist() == np.isin(times_s, explained.prediction.faceless_times_s).tolist()


def test_the_layer_is_told_and_can_be_chosen(painseq, lstm, video, tmp_path):
    args = ["explain", video, "--checkpoint", lstm, "--end-s", 2]
    result = painseq(*args, "--out", tmp_path / "a.png")
    assert re.search(r"\blayer1\b.*\bact1\b.*\b16\b.*\blayer1\b.*\b8\b", result.log)
    result = painseq(*args, "--out", tmp_path / "b.png", "--layer", "layer2")
    assert re.search(r"\blayer2\b.*\bact1\b", result.log)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_averaged_checkpoints_for_a_stated_mix(painseq, lstm, video, tmp_path):
    out = ["--out", tmp_path / "out", "--end-s", 2]
    other = shutil.copy(lstm, tmp_path / "other.ckpt")
    mix = ["no_pain=0.1", "low_pain=0.45", "high_pain=0.45"]
    result = painseq("explain", video, "--checkpoint", lstm, "--checkpoint", other, "--average", "--prior", *mix, *out)
    assert result.code == 0 and result.log.names(*mix)
    assert json.loads((tmp_path / "out" / "explanation.json").read_text())["checkpoints"] == [str(lstm), str(other)]


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (["--method", "rollout"], ("method", "rollout", "gradcam")),
        (["--time-method", "votes"], ("time_method", "votes", "integrated_gradients")),
        (["--layer", "layer9"], ("layer9", "act1")),
        (["--method", "saliency", "--layer", "layer1"], ("layer", "gradcam", "saliency")),
        (["--class-name", "joy"], ("joy", "no_pain", "low_pain", "high_pain")),
        (["--baseline", "x.mp4"], ("baseline",)),
    ],
)
def test_a_wish_that_does_not_fit(painseq, lstm, video, tmp_path, change, facts):
    result = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "x.png", "--end-s", 2, *change)
    assert result.code == 1 and result.err.names(*facts) and not (tmp_path / "x.png").exists()


def test_a_video_that_cannot_be_explained_leaves_no_folder(painseq, lstm, tmp_path):
    result = painseq("explain", tmp_path / "none.mp4", "--checkpoint", lstm, "--out", tmp_path / "out")
    assert result.code == 1 and result.err.names(tmp_path / "none.mp4") and not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    result = painseq("explain", tmp_path / "none.mp4", "--checkpoint", lstm, "--out", tmp_path / "mine")
    assert result.code == 1 and (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("checkpoint", ["lstm", "ann", "vivit"])
def test_the_video_is_read_once_and_predicted_as_predict_does(
    painseq, request, video, tmp_path, monkeypatch, checkpoint
):
    from painseq.faces import FaceCrops

    path, usual, reads = request.getfixturevalue(checkpoint), FaceCrops.clip, []
    expected = load(path).predict(video, 1.0, 4.0).to_dict()
    monkeypatch.setattr(FaceCrops, "clip", lambda *args, **more: reads.append(args[1]) or usual(*args, **more))
    span = ["--start-s", 1, "--end-s", 4]
    result = painseq("explain", video, "--checkpoint", path, "--out", tmp_path / "out", *span)
    assert result.code == 0, result.err
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    found = facts["prediction"]
    assert reads == [video] and found["label"] == expected["label"]
    assert np.allclose(found["frame_probabilities"], expected["frame_probabilities"], atol=1e-5)
    assert {key: found[key] for key in ("frame_times_s", "frames", "backends")} == {
        key: expected[key] for key in ("frame_times_s", "frames", "backends")
    }
    assert (facts["start_s"], facts["end_s"], facts["checkpoints"]) == (1.0, 4.0, [str(path)])
    assert facts["versions"]["painseq"] and result.log.names(*found["backends"].values(), "cpu")


def test_integrated_gradients_that_are_not_complete_are_warned_of(painseq, lstm, video, tmp_path, monkeypatch):
    from painseq.explain import by_input

    monkeypatch.setattr(by_input, "STEPS", 1)
    args = ["--out", tmp_path / "x.png", "--end-s", 2, "--method", "integrated_gradients", "--most-steps", 1]
    result = painseq("explain", video, "--checkpoint", lstm, *args)
    assert result.code == 0 and result.log.names("Integrated Gradients", 1, "most_steps")


def test_without_landmarks_the_map_stands_alone_and_the_way_out_is_told(painseq, lstm, video, tmp_path):
    args = ["explain", video, "--checkpoint", lstm, "--end-s", 2]
    result = painseq(*args, "--out", tmp_path / "lines")
    assert result.log.names("show_faces")
    lines = json.loads((tmp_path / "lines" / "explanation.json").read_text())
    shares = [region["share"] for region in lines["regions"]["regions"].values()]
    assert set(lines["regions"]["regions"]) == set(REGIONS) and sum(shares) == pytest.approx(1)
    result = painseq(*args, "--out", tmp_path / "alone", "--locator", "full_frame")
    assert result.code == 0 and result.log.names("face_alignment", "sidecar")
    assert json.loads((tmp_path / "alone" / "explanation.json").read_text())["regions"] is None
    assert (tmp_path / "alone" / "overlay.mp4").is_file()


def test_pspi_of_a_table_elsewhere_stands_below_the_curve(painseq, ann, video, tmp_path):
    args = ["explain", video, "--checkpoint", ann, "--end-s", 2]
    assert painseq(*args, "--out", tmp_path / "without.png").code == 0
    table = tmp_path / "elsewhere.csv"
    units = [column.name for column in OPENFACE]
    rows = [f"{n + 1}, {n / 30:.3f}, 1" + ", 1" * len(units) for n in range(60)]
    table.write_text("\n".join([", ".join(["frame", "timestamp", "success", *units]), *rows]))
    result = painseq(*args, "--out", tmp_path / "with.png", "--action-units", table)
    assert result.code == 0, result.err
    assert Image.open(tmp_path / "with.png").height > Image.open(tmp_path / "without.png").height
    result = painseq(*args, "--out", tmp_path / "no.png", "--action-units", tmp_path / "none.csv")
    assert result.code == 1 and result.err.names(tmp_path / "none.csv")
    result = painseq(*args, "--out", tmp_path / "with.png")
    assert result.code == 1 and result.err.names(tmp_path / "with.png")


def test_the_documented_python_runs(lstm, video, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("runs/demo/lstm/best.ckpt", str(lstm)).replace("video.mp4", str(video))
    assert "MethodOptions(most_steps=64)" in code
    code = code.replace("most_steps=64", "most_steps=8")
    names: dict[str, object] = {}
    exec(code, names)
    clip, found, in_time = names["clip"], names["found"], names["in_time"]
    assert found.values.shape == clip.x.shape and found.regions.shape == found.maps.shape
    assert sum(names["shares"].share) == pytest.approx(1) and in_time.values.ndim == 2


def test_a_folder_that_holds_something_is_not_overwritten(painseq, lstm, video, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = painseq("explain", video, "--checkpoint", lstm, "--out", tmp_path / "out", "--end-s", 2)
    assert result.code == 1 and result.err.names(tmp_path / "out")
