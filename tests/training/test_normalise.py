"""Features are normalised by the training subjects, by each person's own frames, or relative to those without pain."""

import json

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import painseq
from painseq.cli.fit import fit
from painseq.data.datamodule import PainDataModule
from painseq.data.facts import DataSetFacts
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import Split
from painseq.errors import PainseqError
from painseq.extractors import Pixels
from painseq.heads import LSTM, FrameANN, LinearProbe, RandomForest, ViViT
from painseq.heads.standardised import Standardised
from painseq.model.record import ModelRecord
from painseq.moments import Moments
from painseq.records import Clip, Manifest
from painseq.studies.predict_part import predict_part
from painseq.training.classifier import PainClassifier
from painseq.training.fitting import FitOptions
from painseq.training.fitting import fit as fit_model

SCALES = np.array([1e-3, 1.0, 1e3, 1.0], np.float32)
PEOPLE = "abcdef"
SPLIT = Split("s", ("a", "b", "c"), ("d",), ("e", "f"))


def write_npz(folder, clip_id, features, present):
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{clip_id}.npz", features=features.astype(np.float32), present=present, times_s=np.arange(6) / 2)


class Vectors(PainDataModule):
    """People with offsets of their own, in four columns of different scales, of which the last is constant."""

    name, facts = "vectors", DataSetFacts()
    classes = ("no", "high", "other")

    def read_manifest(self) -> Manifest:
        labels = ("no", "high", "no", "high", "other")
        clips = [Clip(f"{who}_{n}", who, f"{who}.mp4", label=label) for who in PEOPLE for n, label in enumerate(labels)]
        return Manifest(self.name, self.root, tuple(clips))


@pytest.fixture
def rows(tmp_path):
    """Clip id -> frames, also written to `tmp_path`; frame 2 of each clip has no face."""
    random = np.random.default_rng(0)
    found = {}
    for who in PEOPLE:
        offset = random.standard_normal(4)
        for n in range(5):
            x = ((random.standard_normal((6, 4)) + offset + (n % 2) * np.array([2, 0, 0, 0])) * SCALES).astype(
                np.float32
            )
            x[:, 3] = 7.0
            present = np.arange(6) != 2
            found[f"{who}_{n}"] = x[present]
            write_npz(tmp_path / "npz", f"{who}_{n}", np.where(present[:, None], x, 0), present)
    return found


def vectors(tmp_path, **options):
    labels = {"no_pain": ["no"], "high_pain": ["high"]}
    data = Vectors(tmp_path, DataOptions(labels=labels, store=tmp_path / "npz", **options))
    return data.with_split(SPLIT)


def of_people(rows, people, clips="01234"):
    return np.concatenate([rows[f"{who}_{n}"] for who in people for n in clips]).astype(np.float64)


def test_moments_of_portions_are_those_of_all_rows():
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1e-3, 1.0, 1e3] + 5
    added = Moments.of(x[:7]) + Moments.of(x[:0]) + Moments.of(x[7:30]) + Moments.of(x[30:])
    assert added.count == 50
    np.testing.assert_allclose(added.mean, x.mean(0))
    np.testing.assert_allclose(added.sd, x.std(0))
    assert Moments.of(np.full((9, 1), 0.1)).sd == 1 and Moments.of(np.ones((0, 2))).sd.tolist() == [1, 1]


def fitted(data, out, head=FrameANN, **options):
    epochs = {"max_epochs": 2} if head.fitted_by_gradients else {}
    return fit_model(PainClassifier(head=head, **options), data, out, FitOptions(accelerator="cpu", **epochs))


@pytest.mark.parametrize("head", [FrameANN, LinearProbe, LSTM, RandomForest])
def test_a_model_keeps_the_training_subjects_mean_and_sd(rows, tmp_path, head):
    model = fitted(vectors(tmp_path), tmp_path / "run", head, normalise="train")
    scaler = StandardScaler().fit(of_people(rows, "abc", "0123"))
    again = painseq.load(tmp_path / "run" / "best.ckpt")
    for each in (model, again):
        assert isinstance(each.head, Standardised) and each.head.name == head.__name__
        np.testing.assert_allclose(each.head.mean.numpy(), scaler.mean_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(each.head.sd.numpy(), scaler.scale_, rtol=1e-4)
        assert each.head.frames == scaler.n_samples_seen_
    assert again.record.normalise == ("train",) and again.record.head["class_path"].endswith(head.__name__)
    x, mask = torch.from_numpy(rows["e_1"])[None], torch.ones(1, 5, dtype=torch.bool)
    by_hand = torch.from_numpy(scaler.transform(rows["e_1"])).float()[None]
    torch.testing.assert_close(again.head(x, mask), again.head.head(by_hand, mask), atol=1e-3, rtol=1e-3)
    one, other = (predict_part(each, vectors(tmp_path), "test") for each in (model, again))
    assert np.array_equal(one.probabilities, other.probabilities)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["normalise"] == ["train"] and run["transductive"] is False


def test_nothing_of_other_subjects_reaches_mean_and_sd(rows, tmp_path):
    before = fitted(vectors(tmp_path), tmp_path / "a", normalise="train").head.mean
    for who in "def":
        for n in range(5):
            write_npz(tmp_path / "npz", f"{who}_{n}", np.full((6, 4), 1e6, np.float32), np.ones(6, bool))
    assert torch.equal(before, fitted(vectors(tmp_path), tmp_path / "b", normalise="train").head.mean)


def test_each_person_is_standardised_by_all_own_clips_and_no_label(rows, tmp_path):
    data = vectors(tmp_path, normalise="subject")
    for part in ("train", "test"):
        for sample in data.dataset(part):
            scaler = StandardScaler().fit(of_people(rows, sample.subject_id))
            expected = scaler.transform(rows[sample.clip_id].astype(np.float64))
            np.testing.assert_allclose(sample.features[sample.present].numpy(), expected, atol=2e-3)
            assert not sample.features[~sample.present].any()


def test_by_person_and_by_training_subjects_one_after_the_other(rows, tmp_path):
    model = fitted(vectors(tmp_path, normalise="subject"), tmp_path / "run", normalise="train")
    assert model.record.normalise == ("subject", "train") and model.record.transductive
    assert model.head.mean.abs().max() < 0.5
    with pytest.raises(PainseqError, match=r"\bnormalise\b.*\bsubject\b.*\bnone\b"):
        predict_part(model, vectors(tmp_path), "test")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"baseline_clips": 2}, ["baseline_clips", "2", "normalise: baseline"]),
        ({"baseline_clips": 2, "normalise": "subject"}, ["baseline_clips", "2", "'subject'"]),
        ({"baseline_clips": 0, "normalise": "baseline"}, ["baseline_clips", "0"]),
        ({"normalise": "train"}, ["'train'", "--model.normalise"]),
        ({"normalise": "subject", "view": "pixels"}, ["'subject'", "features"]),
    ],
)
def test_options_that_do_not_go_together(options, named):
    with pytest.raises(PainseqError) as caught:
        DataOptions(**options)
    assert all(part in str(caught.value) for part in named)


def test_options_of_earlier_configurations_still_mean_no_baseline():
    assert DataOptions(baseline_clips=0).set_aside == DataOptions().set_aside == 0
    assert DataOptions(normalise="baseline").set_aside == 1
    assert DataOptions(normalise="baseline", baseline_clips=3).set_aside == 3


def test_a_record_from_before_is_relative_to_a_baseline(make_record):
    written = make_record(baseline_clips=2, normalise=("baseline",)).to_dict()
    del written["normalise"]
    assert ModelRecord.from_dict(written).normalise == ("baseline",)
    for wrong in ({"normalise": ["z"]}, {"normalise": ["train"]}, {"baseline_clips": 0, "normalise": ["baseline"]}):
        with pytest.raises(PainseqError, match=r"normalise|baseline_clips"):
            ModelRecord.from_dict(written | wrong)


def test_crops_are_standardised_after_a_frozen_extractor_alone(heat, heat_crops, on_heat, tmp_path):
    args = [*on_heat, "--config", "configs/head/lstm.yaml", "--data.options.view", "pixels"]
    args += ["--trainer.max_epochs", "1", "--data.options.store", str(heat_crops)]
    model = painseq.load(fit([*args, "--out", str(tmp_path / "run")]) / "best.ckpt")
    assert model.head.measured and model.head.mean.any()
    trained = ["--model.extractor.init_args.trainable", "[layer4]"]
    with pytest.raises(PainseqError, match=r"layer4.*--model.normalise none"):
        fit([*args, *trained, "--out", str(tmp_path / "trained")])


def test_pixels_are_not_standardised(heat, heat_crops):
    from painseq.data_modules import BioVid

    options = DataOptions(labels="five", view="pixels", store=heat_crops, split=SplitOptions(test_share=0.2))

    def small(in_shape, num_classes):
        return ViViT(in_shape, num_classes, frames=20, tubelet=(2, 8), width=16, depth=1, heads=2)

    with pytest.raises(PainseqError, match=r"ViViT.*normalise none"):
        PainClassifier(head=small, extractor=Pixels(32), normalise="train").bind(BioVid(heat, options))


def test_a_continued_fit_keeps_what_its_start_was_standardised_by(rows, tmp_path):
    first = fitted(vectors(tmp_path), tmp_path / "a", normalise="train")
    others = vectors(tmp_path).with_split(Split("s", ("d", "e"), ("f",), ()))
    start = str(tmp_path / "a" / "best.ckpt")
    continued = fitted(others, tmp_path / "b", normalise="train", start_from=start)
    assert torch.equal(continued.head.mean, first.head.mean) and continued.head.frames == first.head.frames
    with pytest.raises(PainseqError, match=r"best\.ckpt.*--model\.normalise train"):
        fitted(others, tmp_path / "e", start_from=start)
    plain = fitted(vectors(tmp_path), tmp_path / "c")
    from_plain = fitted(others, tmp_path / "d", normalise="train", start_from=str(tmp_path / "c" / "best.ckpt"))
    assert plain.record.normalise == () and not torch.equal(from_plain.head.mean, first.head.mean)
