"""From real video files to a prediction, through the real VGG16 and YuNet, with a head fitted on generated clips."""

import json
from pathlib import Path

import numpy as np
import pytest

import painseq
from painseq.cli import main
from painseq.cli.fit import fit
from painseq.features import FeatureStore
from painseq.synthetic import AI4PainPlan, write_ai4pain

pytestmark = pytest.mark.slow

FPS = "1"
"""So low, and clips so short, that the network sees some thirty frames in all."""


@pytest.fixture(scope="module")
def through_vgg16(assets: Path) -> list[str]:
    """Options for AI4Pain's data through YuNet and the real ImageNet VGG16."""
    pytest.importorskip("cv2", exc_type=ImportError)
    weights = assets / "weights" / "backbone" / "vgg16_imagenet_features_tvnorm_fp16.safetensors"
    yunet = assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"
    locator = {"class_path": "painseq.faces.YuNet", "init_args": {"model": str(yunet)}}
    return [
        *("--config", "configs/data/ai4pain.yaml", "--config", "configs/extractor/vgg16.yaml"),
        *("--model.extractor.init_args.weights", str(weights), "--data.options.fps", FPS),
        *("--data.options.face.init_args.locator", json.dumps(locator)),
    ]


def listed(assets: Path, folder: Path, *names: str) -> list[str]:
    """Options that make a data set of real videos."""
    rows = "".join(f"{Path(name).stem},{Path(name).stem},{name},test\n" for name in names)
    (folder / "clips.csv").write_text(f"clip_id,subject_id,video,part\n{rows}")
    return ["--data.root", str(assets / "videos"), "--data.manifest", str(folder / "clips.csv")]


@pytest.fixture(scope="module")
def model(assets: Path, through_vgg16: list[str], tmp_path_factory: pytest.TempPathFactory) -> painseq.PainModel:
    work = tmp_path_factory.mktemp("generated")
    plan = AI4PainPlan(train=2, validation=0, test=0, trials=1, baseline_s=10, fps=1, size_px=128)
    write_ai4pain(work / "electrical", plan, seed=0)
    rows = "".join(
        f"{video.stem},{video.parent.name},{video.relative_to(work / 'electrical')},{video.stem[4:-2]},3,5,train\n"
        for video in sorted((work / "electrical").rglob("*.mp4"))
    )
    (work / "clips.csv").write_text(f"clip_id,subject_id,video,label,start_s,end_s,part\n{rows}")
    data = [*through_vgg16, "--data.root", str(work / "electrical"), "--data.manifest", str(work / "clips.csv")]
    assert main(["extract", *data, "--out", str(work / "store")]) == 0
    head = ["--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    out = fit([*data, *head, *quiet, "--data.options.store", str(work / "store"), "--out", str(work / "run")])
    return painseq.load(out / "best.ckpt")


def test_a_face_throughout(model: painseq.PainModel, assets: Path):
    prediction = model.predict(assets / "videos" / "single_face.mp4")
    assert prediction.label in ("no_pain", "low_pain", "high_pain")
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.frames == len(prediction.frame_times_s) == 3 and len(prediction.faceless_times_s) == 0
    assert prediction.backends["locator"] == "YuNet"


def test_the_faceless_part_is_masked(model: painseq.PainModel, assets: Path):
    prediction = model.predict(assets / "videos" / "face_noface.mov")
    assert prediction.label is not None
    assert prediction.frames == len(prediction.frame_times_s) + len(prediction.faceless_times_s) >= 5
    assert len(prediction.frame_times_s) and len(prediction.faceless_times_s)
    golden = np.load(assets / "golden" / "face_noface.npz")["yunet_box"][:, :4]
    there = np.isfinite(golden).all(axis=1)
    for moments, seen in ((prediction.frame_times_s, True), (prediction.faceless_times_s, False)):
        frames = np.round(np.asarray(moments) / 1.0 * len(there) / duration_s(assets / "videos" / "face_noface.mov"))
        assert np.all(there[np.clip(frames.astype(int), 0, len(there) - 1)] == seen)


def duration_s(video: Path) -> float:
    from painseq.video import open_video

    with open_video(video) as opened:
        return opened.duration_s


def test_no_face_at_all(model: painseq.PainModel, assets: Path):
    prediction = model.predict(assets / "videos" / "no_face.mp4")
    assert prediction.label is None and prediction.frames == len(prediction.faceless_times_s) > 0


def test_extracting_the_real_videos(through_vgg16: list[str], assets: Path, tmp_path: Path):
    names = ("single_face.mp4", "no_face.mp4", "face_noface.mov")
    data = [*through_vgg16, *listed(assets, tmp_path, *names)]
    assert main(["extract", *data, "--out", str(tmp_path / "store"), "--export", str(tmp_path / "npz")]) == 0
    store = FeatureStore(tmp_path / "store")
    assert store.num_faceless("single_face") == 0
    assert store.num_faceless("no_face") == store.num_frames("no_face")
    assert 0 < store.num_faceless("face_noface") < store.num_frames("face_noface")
    clip = store["face_noface"]
    assert not clip.features[~clip.present].any() and clip.features[clip.present].float().std() > 0.1


def test_extracting_no_face_ends_in_a_message(through_vgg16, assets, tmp_path, capsys):
    data = [*through_vgg16, *listed(assets, tmp_path, "no_face.mp4")]
    assert main(["extract", *data, "--out", str(tmp_path / "store")]) == 1
    assert "YuNet" in capsys.readouterr().err
