"""One file that predicts."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import painseq
from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.extractors import TimmBackbone, save_weights
from painseq.faces import FaceCrops, FullFrame, Sidecar
from painseq.model.decision import decide
from painseq.studies.predict_part import predict_part
from painseq.video import write_video

INNER = SplitOptions(protocol="official_inner")
NAMES = ("no_pain", "low_pain", "high_pain")


def test_every_public_name_can_be_had():
    for name in painseq.__all__:
        assert getattr(painseq, name) is not None
    assert not hasattr(painseq, "laod")


def hide_faces(video: Path, every: int) -> None:
    """Let every so many-th row of the sidecar tell of no face."""
    path = video.with_suffix(".faces.safetensors")
    tensors = dict(load_file(path))
    tensors["boxes"][::every] = np.nan
    save_file(tensors, path)


@pytest.mark.parametrize("head", ["lstm", "ann"])
def test_features_and_pixels_give_the_same_predictions(head, electrical, store, request):
    """Within 1e-5 in probability, from an fp32 store: sums are taken in another order."""
    model = painseq.load(request.getfixturevalue(head))
    face = FaceCrops(Sidecar(), size_px=32)
    from_features = predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")
    pixels = DataOptions(split=INNER, view="pixels", face=face, fps=3.0, batch_size=4)
    from_pixels = predict_part(model, AI4Pain(electrical, pixels), "test")
    assert from_features.clip_ids == from_pixels.clip_ids and len(from_features) == 6
    np.testing.assert_allclose(from_features.probabilities, from_pixels.probabilities, atol=1e-5)
    np.testing.assert_array_equal(from_features.label, from_pixels.label)
    first = electrical / f"{from_features.clip_ids[0]}.mp4"
    alone = model.predict(first, 0.0, 10.0)
    np.testing.assert_allclose(list(alone.probabilities.values()), from_features.probabilities[0], atol=1e-5)


@pytest.mark.parametrize("head", ["lstm", "ann"])
def test_a_prediction_tells_label_probabilities_frames_and_backends(head, video, request):
    hide_faces(video, every=5)
    model = painseq.load(request.getfixturevalue(head))
    assert model.class_names == NAMES and model.fps == 3.0
    prediction = model.predict(str(video), 0.0, 8.0)
    assert prediction.label in NAMES and tuple(prediction.probabilities) == NAMES
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert prediction.frames == 24
    # Gaps of one frame at 3 frames a second are 0.67 s long, longer than is bridged.
    assert prediction.faceless_times_s.tolist() == pytest.approx([0, 5 / 3, 10 / 3, 5, 20 / 3], abs=1e-3)
    assert not {*prediction.faceless_times_s.tolist()} & {*prediction.frame_times_s.tolist()}
    assert prediction.frame_probabilities.shape == (19, 3)
    np.testing.assert_allclose(prediction.frame_probabilities.sum(axis=1), 1, atol=1e-6)
    if head == "lstm":
        np.testing.assert_allclose(
            prediction.frame_probabilities[-1], list(prediction.probabilities.values()), atol=1e-6
        )
        assert "clip" in prediction.frame_meaning
    else:
        np.testing.assert_allclose(
            prediction.frame_probabilities.mean(axis=0), list(prediction.probabilities.values()), atol=1e-6
        )
        assert "clip" not in prediction.frame_meaning and "frame" in prediction.frame_meaning
    assert prediction.backends == {"video": prediction.backends["video"], "locator": "Sidecar", "device": "cpu"}
    assert prediction.backends["video"] in ("decord", "pyav")
    plain = prediction.to_dict()
    assert plain["faceless_frames"] == 5 and plain["label"] == prediction.label


def test_a_video_without_any_face_has_no_label(lstm, ann, video):
    hide_faces(video, every=1)
    for checkpoint in (lstm, ann):
        prediction = painseq.load(checkpoint).predict(video)
        assert prediction.label is None and dict(prediction.probabilities) == {}
        assert prediction.frames == len(prediction.faceless_times_s) and len(prediction.frame_times_s) == 0


@pytest.mark.parametrize("frames", [1, 2])
def test_a_video_of_one_frame(lstm, ann, tmp_path, frames):
    write_video(tmp_path / "short.mp4", [np.full((64, 64, 3), 90, np.uint8)] * frames, 3)
    for checkpoint in (lstm, ann):
        prediction = painseq.load(checkpoint).predict(tmp_path / "short.mp4", locator=FullFrame())
        assert (
            prediction.label in NAMES
            and prediction.frames == frames
            and prediction.frame_probabilities.shape == (frames, 3)
        )
        assert prediction.backends["locator"] == "FullFrame"


def test_a_span_outside_the_video_is_an_error(lstm, video):
    with pytest.raises(PainseqError, match=r"clip\.mp4.*\b100\b.*\b110\b"):
        painseq.load(lstm).predict(video, 100.0, 110.0)


def test_the_file_alone_is_enough(on_electrical, tmp_path, video):
    """Neither the store nor the extractor's weights file, once the head is fitted."""
    weights = tmp_path / "network.safetensors"
    save_weights(TimmBackbone("test_resnet", input_size_px=32, seed=5), weights)
    args = [*on_electrical, "--model.extractor.init_args.weights", str(weights)]
    extract([*args, "--out", str(tmp_path / "store"), "--parts", "train", "validation", "--precision", "fp32"])
    head = ["--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "1"]
    checkpoint = fit([*args, *head, "--data.options.store", str(tmp_path / "store"), "--out", str(tmp_path / "run")])
    checkpoint /= "best.ckpt"
    before = painseq.load(checkpoint).predict(video)
    moved = tmp_path / "elsewhere" / "model.ckpt"
    moved.parent.mkdir()
    checkpoint.rename(moved)
    weights.unlink()
    shutil.rmtree(tmp_path / "store")
    shutil.rmtree(tmp_path / "run")
    model = painseq.load(moved)
    assert model.extractor is not None and "Restored" in model.extractor.loaded
    after = model.predict(video)
    np.testing.assert_array_equal(after.frame_probabilities, before.frame_probabilities)
    assert dict(after.probabilities) == dict(before.probabilities)
    untrained = TimmBackbone("test_resnet", input_size_px=32, seed=0)
    assert model.extractor.fingerprint() != untrained.fingerprint()


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_code_in_a_checkpoint_is_refused_and_does_not_run(lstm, tmp_path):
    content = torch.load(lstm, weights_only=True)
    content["painseq"]["extra"] = Bomb(tmp_path / "ran")
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(PainseqError, match=r"bad\.ckpt"):
        painseq.load(tmp_path / "bad.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(PainseqError, match=r"raw\.ckpt"):
        painseq.load(tmp_path / "raw.ckpt")
    assert not (tmp_path / "ran").exists()


FOREIGN = """
from pathlib import Path
from painseq.heads import LSTM
(Path(__file__).parent / "imported").touch()
class Theirs(LSTM):
    pass
"""


def test_a_head_of_another_package_needs_trust(lstm, tmp_path, video, monkeypatch):
    (tmp_path / "theirpackage.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(lstm, weights_only=True)
    content["painseq"]["head"]["class_path"] = "theirpackage.Theirs"
    torch.save(content, tmp_path / "theirs.ckpt")
    with pytest.raises(PainseqError, match=r"theirpackage\.Theirs.*trust.*theirpackage"):
        painseq.load(tmp_path / "theirs.ckpt")
    assert not (tmp_path / "imported").exists()
    model = painseq.load(tmp_path / "theirs.ckpt", trust=["theirpackage"])
    assert model.head.name == "Theirs" and model.predict(video).label in NAMES
    sys.modules.pop("theirpackage")


def rebuild_otherwise(content: dict) -> None:
    """Without its weights the extractor is built from its seed, and here the seed is another."""
    content["painseq"]["extractor"]["init_args"]["seed"] = 9
    content.pop("extractor")


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda content: content.pop("painseq"), r"damaged\.ckpt.*format.*\bNone\b"),
        (lambda content: content["painseq"].update(format=99), r"damaged\.ckpt.*format.*\b99\b"),
        (lambda content: content["painseq"].pop("head"), r"damaged\.ckpt.*\bhead\b"),
        (lambda content: content.pop("state_dict"), r"damaged\.ckpt.*\bweights\b"),
        (lambda content: content["state_dict"].popitem(), r'(?s)damaged\.ckpt.*"head\.classify\.2\.bias"'),
        (lambda content: content["painseq"]["head"].update(class_path="os.system"), r"os\.system.*trust.*\bos\b"),
        (
            lambda content: content["painseq"]["head"].update(class_path="painseq.batch.Batch"),
            r"batch\.Batch.*\bHead\b",
        ),
        (lambda content: content["extractor"].popitem(), r"layer4\.0\.downsample\.2\.num_batches_tracked"),
        (rebuild_otherwise, r"damaged\.ckpt.*extractor"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_names_it(lstm, tmp_path, damage, pattern):
    content = torch.load(lstm, weights_only=True)
    damage(content)
    torch.save(content, tmp_path / "damaged.ckpt")
    with pytest.raises(PainseqError, match=pattern):
        painseq.load(tmp_path / "damaged.ckpt")


def test_a_missing_or_cut_file_is_an_error(lstm, tmp_path):
    with pytest.raises(PainseqError, match=r"none\.ckpt"):
        painseq.load(tmp_path / "none.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(lstm.read_bytes()[:5000])
    with pytest.raises(PainseqError, match=r"cut\.ckpt"):
        painseq.load(tmp_path / "cut.ckpt")


def test_the_model_gives_what_head_and_extractor_give(ann, video):
    model = painseq.load(ann)
    crops = model.crops(video, 0.0, 4.0)
    assert crops.features.shape == (12, 3, 32, 32) and crops.features.dtype == torch.uint8
    with torch.inference_mode():
        logits = model.head(model.extractor(crops.features)[None], crops.present[None])
    expected = decide("frame", logits, crops.present[None]).probabilities[0].tolist()
    assert list(model.predict(video, 0.0, 4.0).probabilities.values()) == pytest.approx(expected, abs=1e-6)
