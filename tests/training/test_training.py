"""What a fit can be asked for: resuming exactly, several processes, precision, schedules, controls."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import painseq
from painseq import heads
from painseq.cli.fit import fit
from painseq.data.augment import Augment
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import qualified
from painseq.data_modules import AI4Pain, BioVid
from painseq.errors import LeakError, PainseqError
from painseq.evaluation import read_predictions
from painseq.extractors import TimmBackbone
from painseq.heads import LSTM, FrameANN
from painseq.model.averaging import AveragedModel, load_averaged
from painseq.model.checkpoint import read_checkpoint
from painseq.model.pain_model import PainModel
from painseq.runs import read_history
from painseq.studies.evaluate import model_name
from painseq.studies.predict_part import predict_part, predict_validation
from painseq.training.classifier import PainClassifier

INNER = SplitOptions(protocol="official_inner")


@pytest.fixture
def run(on_electrical, store, tmp_path) -> Callable[..., Path]:
    """Fits an LSTM, or whatever `more` says, on the electrical features into a folder of `tmp_path`."""

    def go(name: str, *more: str, head: str = "lstm") -> Path:
        args = [*on_electrical, "--config", f"configs/head/{head}.yaml", "--trainer.max_epochs", "4", *more]
        return fit([*args, "--data.options.store", str(store), "--out", str(tmp_path / name)])

    return go


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint).head


@pytest.mark.parametrize("head", ["lstm", "frame_ann"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(run, head):
    cosine = [
        "--model.scheduler.class_path=torch.optim.lr_scheduler.CosineAnnealingLR",
        "--model.scheduler.init_args.T_max=4",
        "--data.options.batch_size=5",
    ]
    whole = run("whole", *cosine, head=head)
    run("parts", *cosine, "--trainer.max_epochs", "2", head=head)
    parts = run("parts", *cosine, "--resume", head=head)
    for name in ("last.ckpt", "best.ckpt"):
        expected, found = weights(whole / name), weights(parts / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items()), name
    assert len(read_history(parts)) == 4
    for one, other in zip(read_history(whole), read_history(parts), strict=True):
        assert one == pytest.approx(other)


@pytest.mark.slow
def test_a_resumed_run_on_pixels_ends_so_too(heat, heat_crops, on_heat, tmp_path):
    """With dropout, augmentation, balanced drawing and a trainable extractor, whoever reads the crops."""

    def go(name: str, *more: str, workers: int = 0) -> dict[str, torch.Tensor]:
        args = [*on_heat, "--config", "configs/head/linear_frames.yaml", "--data.options.view", "pixels", *more]
        args += ["--model.head.init_args.dropout=0.3", "--data.options.augment=painseq.data.Augment"]
        args += ["--data.options.balance=true", "--model.extractor.init_args.trainable=[layer4]"]
        args += [f"--data.options.num_workers={workers}", "--data.options.batch_size=2"]
        out = fit([*args, "--data.options.store", str(heat_crops), "--out", str(tmp_path / name)])
        content = read_checkpoint(out / "last.ckpt")
        return {**content.head, **content.extractor}

    whole = go("whole", "--trainer.max_epochs=2")
    go("parts", "--trainer.max_epochs=1")
    parts = go("parts", "--trainer.max_epochs=2", "--resume", workers=1)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


WORSENING = [
    "--model.scheduler.class_path=torch.optim.lr_scheduler.ExponentialLR",
    "--model.scheduler.init_args.gamma=50",
]
"""A learning rate that grows beyond all measure: the later epochs are worse than the first."""


def test_the_last_checkpoint_is_of_the_last_epoch_and_the_best_one_of_the_best(run):
    out = run("run", *WORSENING, "--trainer.max_epochs=5", head="frame_ann")
    history = read_history(out)
    lowest = min(range(5), key=lambda epoch: history[epoch]["val_loss"])
    assert lowest < 4
    for name, epoch in (("best.ckpt", lowest), ("last.ckpt", 4)):
        assert torch.load(out / name, weights_only=True)["epoch"] == epoch


def test_a_run_folder_that_was_moved_keeps_its_best_checkpoint(run, tmp_path):
    run("run", *WORSENING, "--trainer.max_epochs=3", head="frame_ann").rename(tmp_path / "moved")
    out = run("moved", *WORSENING, "--trainer.max_epochs=6", "--resume", head="frame_ann")
    history = read_history(out)
    best = min(row["val_loss"] for row in history)
    assert len(history) == 6
    assert json.loads((out / "run.json").read_text())["best_val_loss"] == pytest.approx(best)
    epoch = torch.load(out / "best.ckpt", weights_only=True)["epoch"]
    assert history[epoch]["val_loss"] == pytest.approx(best)


def test_the_configuration_of_a_run_serves_another(run, tmp_path):
    out = run("run", "--trainer.max_epochs=1")
    run("run", "--resume", "--trainer.max_epochs=2")
    again = fit(["--config", str(out / "config.yaml"), "--out", str(tmp_path / "again")])
    for key, value in weights(out / "last.ckpt").items():
        assert torch.equal(weights(again / "last.ckpt")[key], value)


@pytest.mark.parametrize(
    ("option", "pattern"),
    [
        ("--trainer.precision=bf16-true", r"\bprecision\b.*\bbf16-true\b.*\b32-true, bf16-mixed, 16-mixed\b"),
        ("--trainer.val_check_interval=2", r"\bval_check_interval\b"),
        ("--model.extractor_lr=0.1", r"\bextractor_lr\b.*\btrainable\b"),
        ("--data.options.balance=true", r"\bbalance\b.*\bclass_weights\b"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_the_run_begins(run, tmp_path, option, pattern):
    with pytest.raises(PainseqError, match=pattern):
        run("run", option)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_fit_and_score_as_one_does(on_electrical, store, tmp_path):
    """Batch norm sums over processes, the loss is divided by the whole batch's weight, each clip is scored once."""
    # Twelve clips in batches of 5, 5 and 2, which do not divide evenly.
    calm = ["--model.head.init_args.dropout", "0", "--data.options.batch_size", "5", "--trainer.max_epochs", "3"]
    calm += ["--trainer.enable_progress_bar", "true"]
    args = [*on_electrical, "--config", "configs/head/lstm.yaml", *calm, "--data.options.store", str(store)]
    histories, states = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        ddp = ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"] if processes > 1 else []
        command = [sys.executable, "-m", "painseq", "fit", *args, *ddp, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        # The line of an epoch is written once for all processes.
        assert len(re.findall(r"(?i)\bepoch 1\b[^:\n]*\b3\b.*train_loss", done.stderr)) == 1, done.stderr
        histories.append(read_history(out))
        states.append(weights(out / "last.ckpt"))
        assert json.loads((out / "run.json").read_text())["processes"] == processes
    assert len(histories[1]) == 3
    for one, two in zip(*histories, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, atol=1e-4, rtol=1e-3, msg=key)


def test_accumulated_gradients_are_those_of_the_larger_batch(run):
    plain = ["--model.optimizer.class_path=torch.optim.SGD", "--model.optimizer.init_args.lr=0.1"]
    plain += ["--model.class_weights=none", "--trainer.max_epochs=2"]
    large = run("large", *plain, "--data.options.batch_size=12", head="linear_frames")
    small = ["--data.options.batch_size=4", "--trainer.accumulate_grad_batches=3"]
    accumulated = weights(run("small", *plain, *small, head="linear_frames") / "last.ckpt")
    for key, value in weights(large / "last.ckpt").items():
        torch.testing.assert_close(accumulated[key], value, atol=1e-6, rtol=1e-4)


def test_bfloat16_fits_nearly_as_float32_does(run):
    exact, half = (run(name, "--trainer.precision", name) for name in ("32-true", "bf16-mixed"))
    assert json.loads((half / "run.json").read_text())["precision"] == "bf16-mixed"
    for one, two in zip(read_history(exact), read_history(half), strict=True):
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=0.05)
    assert all(value.dtype != torch.bfloat16 for value in weights(half / "last.ckpt").values())


def test_a_run_leaves_its_learning_curve(run):
    out = run("run")
    for name in ("loss", "balanced_accuracy"):
        assert "<svg" in (out / f"learning_curve_{name}.svg").read_text()


def test_tensorboard_by_choice(run, tmp_path):
    pytest.importorskip("tensorboard")
    logger = ["--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path / 'tb'}"]
    run("run", *logger, "--trainer.max_epochs", "1")
    assert list((tmp_path / "tb").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("head", ["lstm", "frame_ann"])
def test_corn_with_any_head(run, head, electrical, store):
    out = run("run", "--model.loss", "corn", head=head)
    record = read_checkpoint(out / "best.ckpt").record
    assert record.loss == "corn" and record.head["init_args"]["num_classes"] == 2
    model = painseq.load(out / "best.ckpt")
    predictions = predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")
    assert predictions.probabilities.shape == (6, 3)
    assert np.allclose(predictions.probabilities.sum(axis=1), 1)
    if head == "lstm":
        at_least = predictions.probabilities[:, ::-1].cumsum(axis=1)[:, ::-1]
        assert predictions.label.tolist() == (at_least[:, 1:] > 0.5).sum(axis=1).tolist()


def test_smoothing_takes_the_classes_share_among_the_training_items(electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    plain, weighted = PainClassifier(head=LSTM, label_smoothing=0.2), None
    plain.bind(data)
    assert plain.smooth.tolist() == pytest.approx([0.2 * 6 / 12, 0.2 * 3 / 12, 0.2 * 3 / 12])
    weighted = PainClassifier(head=LSTM, label_smoothing=0.2, class_weights="inverse_frequency")
    weighted.bind(data)
    assert weighted.smooth.tolist() == pytest.approx([0.2 / 3] * 3)
    for wrong in ({"label_smoothing": 1.0}, {"label_smoothing": 0.1, "loss": "corn"}):
        with pytest.raises(PainseqError, match="label_smoothing"):
            PainClassifier(head=LSTM, **wrong)


def test_the_extractors_blocks_have_a_learning_rate_of_their_own(heat, heat_crops):
    data = BioVid(heat, DataOptions(labels="binary", view="pixels", store=heat_crops))

    def groups(trainable: list[str], extractor_lr: float | None):
        extractor = TimmBackbone("test_resnet", input_size_px=32, trainable=trainable)
        classifier = PainClassifier(
            head=LSTM, extractor=extractor, extractor_lr=extractor_lr, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
        )
        classifier.bind(data)
        made = classifier.configure_optimizers().param_groups
        return [(group["lr"], sum(p.numel() for p in group["params"])) for group in made], classifier

    (head, trained), classifier = groups(["layer4"], 0.001)
    layer4 = sum(p.numel() for p in classifier.extractor.network.layer4.parameters())
    assert head == (0.1, sum(p.numel() for p in classifier.head.parameters())) and trained == (0.001, layer4)
    assert [lr for lr, _ in groups(["layer4"], None)[0]] == [0.1, 0.1]


def test_refitting_takes_the_validation_subjects_in_for_a_fixed_number_of_epochs(run, electrical, store):
    run("refit", "--refit", "2")
    out = run("refit", "--refit", "3", "--resume")
    whole = run("whole", "--refit", "3")
    assert all(torch.equal(value, weights(whole / "last.ckpt")[k]) for k, value in weights(out / "last.ckpt").items())
    assert not (out / "best.ckpt").exists()
    content = read_checkpoint(out / "last.ckpt")
    split = AI4Pain(electrical, DataOptions(split=INNER, store=store)).split
    assert content.record.data.split.validation == ()
    assert {*content.record.data.split.train} == {*split.train, *split.validation}
    assert {*content.record.fitted_on} == qualified("ai4pain", (*split.train, *split.validation))
    facts = json.loads((out / "run.json").read_text())
    assert facts["epochs"] == facts["refit"] == 3 and facts["best_val_loss"] is None
    model = painseq.load(out / "last.ckpt")
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    assert len(predict_part(model, data, "test")) == 6
    with pytest.raises(LeakError):
        predict_part(model, data, "validation")
    with pytest.raises(PainseqError, match=r"\brefit\b\D*\b0\b"):
        run("none", "--refit", "0")


def test_shuffled_labels_are_each_subjects_own_in_another_order(electrical, store):
    def labels(data: AI4Pain, part: str) -> dict[str, str | None]:
        return {clip.clip_id: clip.label for clip in data.clips(part)}

    data, other = (AI4Pain(electrical, DataOptions(split=INNER, store=store)) for _ in range(2))
    truth = {part: labels(data, part) for part in ("train", "validation", "test")}
    subjects = {clip.clip_id: clip.subject_id for clip in data.manifest}
    data.shuffle_labels(1)
    other.shuffle_labels(2)
    assert labels(data, "test") == truth["test"]
    assert labels(data, "train") != truth["train"] and labels(data, "train") != labels(other, "train")
    for part in ("train", "validation"):
        before, after = (
            Counter((subjects[clip_id], label) for clip_id, label in found.items())
            for found in (truth[part], labels(data, part))
        )
        assert before == after
    assert [int(t) for t in data.dataset("train").target] == [
        data.scheme.target(label) for label in labels(data, "train").values()
    ]


def test_a_shuffled_control_is_told_from_a_model(run, on_electrical, store, tmp_path, caplog):
    from painseq.cli.evaluate import main as evaluate

    out = run("control", "--shuffle-labels")
    assert read_checkpoint(out / "best.ckpt").record.data.shuffled_labels == 0
    scored = ["--part", "validation", "--data.options.split.protocol", "official", "--data.options.store", str(store)]
    evaluate([*on_electrical, *scored, "--checkpoint", str(out / "best.ckpt"), "--out", str(tmp_path / "scores")])
    (name,) = json.loads((tmp_path / "scores" / "metrics.json").read_text())["models"]
    assert "LSTM" in name and "SHUFFLED" in name


def test_features_relative_to_each_subjects_own_without_pain(electrical, store):
    plain = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store, normalise="baseline"))
    aside = {clip.clip_id for clip in plain.clips("train")} - {clip.clip_id for clip in data.clips("train")}
    no_pain = sorted(clip.clip_id for clip in plain.clips("train") if clip.label == "No_Pain")
    subjects = {clip.clip_id: clip.subject_id for clip in plain.manifest}
    first = {subject: min(c for c in no_pain if subjects[c] == subject) for subject in plain.split.train}
    assert aside == {*first.values()}
    stored = plain.store
    for sample in data.dataset("train"):
        calm = stored[first[sample.subject_id]]
        mean = calm.features[calm.present].mean(dim=0)
        expected = stored[sample.clip_id].features - mean
        present = sample.present
        torch.testing.assert_close(sample.features[present], expected[present], atol=1e-5, rtol=1e-4)
        assert not sample.features[~present].any()
    with pytest.raises(PainseqError, match=r"\bS0\d\b.*\b1\b.*\bno_pain\b.*\bbaseline_clips\b"):
        data.dataset("test")
    with pytest.raises(PainseqError, match=r"\bbaseline\b.*\bfeatures\b"):
        DataOptions(view="pixels", normalise="baseline")


def test_a_model_of_relative_features_wants_a_baseline(run, electrical, store, video):
    out = run("relative", "--data.options.normalise", "baseline", "--data.options.split.validation_share", "0.3")
    model = painseq.load(out / "best.ckpt")
    with pytest.raises(PainseqError, match=r"\bbaseline\b"):
        model.predict(video)
    prediction = model.predict(video, baseline=video)
    x = model.read(video)
    relative = torch.from_numpy(x.features - x.features[x.present].mean(axis=0))[None]
    with torch.inference_mode():
        expected = model.classify(relative, torch.from_numpy(x.present)[None]).softmax(-1)[0].tolist()
    assert [*prediction.probabilities.values()] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(PainseqError, match=r"\bnormalise\b.*\bbaseline\b.*\bnone\b"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")
    with pytest.raises(PainseqError, match=r"\bbaseline\b"):
        painseq.load(run("plain") / "best.ckpt").predict(video, baseline=video)


@pytest.mark.parametrize("head", ["lstm", "frame_ann"])
def test_checkpoints_are_averaged_by_their_probabilities(run, head, electrical, store, video):
    paths = [run(str(seed), "--seed_everything", str(seed), head=head) / "best.ckpt" for seed in (1, 2, 3)]
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    averaged = load_averaged(paths)
    each = [predict_part(painseq.load(path), data, "test").probabilities for path in paths]
    together = predict_part(averaged, data, "test")
    np.testing.assert_allclose(together.probabilities, np.mean(each, axis=0), atol=1e-6)
    single = [[*painseq.load(path).predict(video).probabilities.values()] for path in paths]
    assert [*averaged.predict(video).probabilities.values()] == pytest.approx(np.mean(single, axis=0), abs=1e-5)
    assert averaged.fitted_on == painseq.load(paths[0]).fitted_on
    name, single_name = model_name(averaged), model_name(painseq.load(paths[0]))
    assert single_name in name and re.search(r"\b3\b", name.replace(single_name, ""))


def test_models_of_other_pipelines_are_not_averaged(lstm, ann, run):
    with pytest.raises(PainseqError, match=r"\blevel\W+'video'.*'frame'"):
        AveragedModel([painseq.load(lstm), painseq.load(ann)])
    corn = run("corn", "--model.loss", "corn") / "best.ckpt"
    with pytest.raises(PainseqError, match=r"\bloss\W+'cross_entropy'.*'corn'"):
        AveragedModel([painseq.load(lstm), painseq.load(corn)])


def test_a_stated_mix_of_classes_shifts_the_probabilities(lstm, electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    model = painseq.load(lstm)
    # The LSTM is fitted with weights, which even the classes out.
    assert model.record.train_prior == pytest.approx([1 / 3] * 3)
    mix = {"no_pain": 0.04, "low_pain": 0.48, "high_pain": 0.48}
    before = predict_part(model, data, "test").probabilities
    after = predict_part(model.with_prior(mix), data, "test").probabilities
    expected = before * np.array([*mix.values()])
    np.testing.assert_allclose(after, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(predict_part(model, data, "test").probabilities, before)
    averaged = AveragedModel([model, model]).with_prior(mix)
    np.testing.assert_allclose(predict_part(averaged, data, "test").probabilities, after, atol=1e-6)
    for wrong in ({"no_pain": 1.0}, {**mix, "low_pain": 0.0}):
        with pytest.raises(PainseqError, match=rf"{re.escape(str(wrong))}.*no_pain, low_pain, high_pain"):
            model.with_prior(wrong)


def test_without_weights_the_mix_of_training_is_that_of_its_clips(electrical, store):
    classifier = PainClassifier(head=FrameANN)
    classifier.bind(AI4Pain(electrical, DataOptions(split=INNER, store=store)))
    assert classifier.record.train_prior == pytest.approx([0.5, 0.25, 0.25])


def test_a_head_starts_from_another_models_weights(lstm, run, electrical, store):
    out = run("from", "--model.start_from", str(lstm), "--model.optimizer.init_args.lr", "0", "--trainer.max_epochs=1")
    started = weights(out / "last.ckpt")
    for key, value in weights(lstm).items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(started[key], value), key
    record = read_checkpoint(out / "last.ckpt").record
    assert record.started_from == (str(lstm),) and {*record.fitted_on} >= painseq.load(lstm).fitted_on
    # Whom the other model has seen, this one has seen.
    other = SplitOptions(protocol="subject_holdout", test_share=0.5)
    classifier = PainClassifier(head=LSTM, start_from=[str(lstm)], normalise="train")
    with pytest.raises(LeakError, match=r"\(ai4pain/S0\d"):
        classifier.bind(AI4Pain(electrical, DataOptions(split=other, store=store)))


def test_no_temperature_is_fitted_on_whom_the_model_that_it_started_from_was_fitted_to(lstm, electrical, store):
    """Though its own fit has only stopped early on them."""
    first = painseq.load(lstm)
    parts = first.record.data.split
    other = SplitOptions("subject_lists", train=parts.validation, validation=parts.train, test=parts.test)
    data = AI4Pain(electrical, DataOptions(split=other, store=store))
    records = []
    for start in ([str(lstm)], []):
        classifier = PainClassifier(head=LSTM, start_from=start, normalise="train")
        classifier.bind(data)
        records.append(classifier.record)
    started, fresh = (PainModel(record, first.head, first.extractor, first.face) for record in records)
    assert len(predict_validation(fresh, data)) > 0
    with pytest.raises(LeakError, match=r"\b3\b.*\bvalidation\b.*\bai4pain/S0\d\b"):
        predict_validation(started, data)


def test_two_streams_are_fitted_one_by_one_and_then_together(run, caplog):
    """The commands of configs/reproduce/elghaish2025.yaml."""
    alone = [
        run(
            stream,
            f"--data.options.streams=[{stream}]",
            f"--model.head.init_args.only={stream}",
            "--trainer.max_epochs=1",
            head="two_stream",
        )
        / "best.ckpt"
        for stream in ("cnn", "landmarks")
    ]
    still = ["--model.optimizer.init_args.lr=0", "--trainer.max_epochs=1"]
    sources = f"--model.start_from=[{alone[0]},{alone[1]}]"
    caplog.clear()
    with caplog.at_level("INFO", logger="painseq"):
        fused = weights(run("fused", sources, *still, head="two_stream") / "last.ckpt")
    from_cnn, from_landmarks = [message for message in caplog.messages if "best.ckpt" in message][:2]
    for message, path, others in ((from_cnn, alone[0], "landmark"), (from_landmarks, alone[1], "cnn")):
        left = message.replace(str(path), "")
        assert str(path) in message and all(re.search(rf"\b{n}\b", left) for n in (others, "fusion_norm", "fusion"))
    for path, prefix in zip(alone, ("head.cnn.", "head.landmark."), strict=True):
        taken = {key: value for key, value in weights(path).items() if key.startswith(prefix) and "weight" in key}
        assert taken and all(torch.equal(fused[key], value) for key, value in taken.items())


class Short(LSTM):
    max_frames = 8


def test_clips_longer_than_the_head_takes_are_refused_before_training(electrical, store):
    with pytest.raises(PainseqError, match=r"\bShort\b.*\b8\b.*\btrain\b.*\b30\b"):
        PainClassifier(head=Short).bind(AI4Pain(electrical, DataOptions(split=INNER, store=store)))


@pytest.mark.parametrize(
    ("streams", "options", "pattern"),
    [
        (("cnn",), {}, r"\bTwoStream\b.*\bcnn, landmarks\b[^.]*\bcnn\b[^,]"),
        (("cnn", "landmarks"), {"only": "cnn"}, r"\bTwoStream\b[^.]*\bcnn\b[^.]*\bcnn, landmarks\b"),
        (("cnn", "landmarks"), {"landmarks": 30}, r"\bTwoStream\b.*\b60\b.*\b136\b"),
    ],
)
def test_a_head_of_streams_is_given_just_those(streams, options, pattern, electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=streams))
    build = partial(heads.TwoStream, **{"landmarks": 20, **options})
    with pytest.raises(PainseqError, match=pattern):
        PainClassifier(head=build).bind(data)


def test_augmentation_and_cached_features_contradict_each_other():
    with pytest.raises(PainseqError, match=r"\baugment\b"):
        DataOptions(augment=Augment())


def test_augmented_crops_are_varied_in_training_alone_and_repeatably(heat, heat_crops):
    def batches(augment: Augment | None, part: str = "train"):
        options = DataOptions(labels="binary", view="pixels", store=heat_crops, augment=augment, batch_size=4)
        data = BioVid(heat, options)
        loader = data.train_dataloader() if part == "train" else data.loader(part)
        return [batch for _ in range(2) for batch in loader]

    plain, varied, again = batches(None), batches(Augment()), batches(Augment())
    assert [batch.clip_ids for batch in plain] == [batch.clip_ids for batch in varied]
    assert all(torch.equal(a.video, b.video) for a, b in zip(varied, again, strict=True))
    assert not any(torch.equal(a.video, b.video) for a, b in zip(plain, varied, strict=True))
    seen = {clip_id: [] for clip_id in plain[0].clip_ids}
    for batch in varied:
        for clip_id, video in zip(batch.clip_ids, batch.video, strict=True):
            if clip_id in seen:
                seen[clip_id].append(video)
    assert all(len(draws) == 2 and not torch.equal(*draws) for draws in seen.values())
    for a, b in zip(batches(None, "test"), batches(Augment(), "test"), strict=True):
        assert torch.equal(a.video, b.video)


def test_landmarks_beside_the_features_and_alone(electrical, store):
    both, alone = (
        AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=streams))
        for streams in (("cnn", "landmarks"), ("landmarks",))
    )
    assert both.in_shape == (96 + 136,) and alone.in_shape == (136,)
    one, two = both.dataset("train")[0], alone.dataset("train")[0]
    assert torch.equal(one.features[:, :96], both.store[one.clip_id].features)
    assert torch.equal(one.features[:, 96:], two.features)
    points = two.features.reshape(len(two.features), 68, 2)
    assert points.mean(dim=1).abs().max() < 1e-5
    assert points.square().sum(-1).mean(1).sqrt().tolist() == pytest.approx([1.0] * len(points), abs=1e-4)
    for wrong in (("landmarks", "cnn"), (), ("cnn", "cnn"), ("cnn", "audio")):
        with pytest.raises(PainseqError, match=rf"streams.*{re.escape(str(list(wrong)))}"):
            DataOptions(streams=wrong)


@pytest.mark.parametrize("streams", [("cnn", "landmarks"), ("landmarks",)])
def test_a_model_of_landmarks_reads_videos_as_it_read_the_store(run, streams, electrical, store, video):
    out = run("streams", f"--data.options.streams=[{','.join(streams)}]")
    model = painseq.load(out / "best.ckpt")
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=streams))
    stored = predict_part(model, data, "test")
    clip = next(clip for clip in data.clips("test") if clip.video.endswith("S06_1.mp4"))
    row = stored.clip_ids.index(clip.clip_id)
    prediction = model.predict(video, clip.start_s, clip.end_s)
    assert [*prediction.probabilities.values()] == pytest.approx(stored.probabilities[row].tolist(), abs=1e-5)
    with pytest.raises(PainseqError, match=r"\bstreams\b.*\blandmarks\b.*\bcnn\b"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")


@pytest.fixture(scope="module")
def crops(on_electrical, work) -> Path:
    """Crops of the electrical data, with landmarks."""
    from painseq.cli.extract import main as extract

    pixels = '{"class_path": "painseq.extractors.Pixels", "init_args": {"input_size_px": 32}}'
    extract([*on_electrical, "--model.extractor", pixels, "--out", str(work / "crops")])
    return work / "crops"


FEATURE_HEADS = {name: getattr(heads, name) for name in heads.__all__ if name not in ("Head", "ViViT")}
FEATURE_HEADS["DeepAdaBoost"] = partial(heads.DeepAdaBoost, deep=heads.LSTM)


@pytest.mark.parametrize("head", FEATURE_HEADS.values(), ids=FEATURE_HEADS)
def test_cached_features_and_pixels_give_the_same_logits(head, electrical, store, crops):
    streams = ("cnn", "landmarks") if head is heads.TwoStream else ("cnn",)
    cached = AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=streams))
    pixels = AI4Pain(electrical, DataOptions(split=INNER, view="pixels", store=crops, streams=streams))
    torch.manual_seed(0)
    classifier = PainClassifier(head=head, extractor=TimmBackbone("test_resnet", input_size_px=32))
    classifier.bind(pixels)
    assert classifier.head.in_shape == cached.in_shape
    classifier.eval()
    a, b = next(iter(cached.loader("train"))), next(iter(pixels.loader("train")))
    assert a.clip_ids == b.clip_ids and b.video is not None and (b.extra is None) == (streams == ("cnn",))
    x, y = classifier(a), classifier(b)
    if classifier.head.level == "frame":
        x, y = x[a.mask], y[b.mask]
    torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def test_landmarks_are_mirrored_with_the_crops(electrical, store, crops):
    both = ("cnn", "landmarks")
    flipped = Augment(rotation_deg=0, shift=0, zoom=0, brightness=(1, 1), flip=1.0, grid_distortion=0)
    options = DataOptions(split=INNER, view="pixels", store=crops, streams=both, augment=flipped, batch_size=2)
    batch = next(iter(AI4Pain(electrical, options).train_dataloader()))
    plain = AI4Pain(electrical, DataOptions(split=INNER, view="pixels", store=crops, streams=both)).dataset("train")
    original = next(sample for sample in plain if sample.clip_id == batch.clip_ids[0])
    assert torch.equal(batch.video[0, : len(original.video)], original.video.flip(-1))
    # The first point of the jaw becomes the last, number 16.
    assert torch.allclose(batch.extra[0, : len(original.extra), 0], -original.extra[:, 2 * 16], atol=1e-6)


def test_a_head_of_another_package_is_named_in_yaml_and_trusted_to_be_loaded(
    run, on_electrical, store, tmp_path, monkeypatch
):
    from painseq.cli.evaluate import main as evaluate

    package = tmp_path / "packages" / "somebodys_heads"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OWN_HEAD)
    monkeypatch.syspath_prepend(str(package.parent))
    chosen = ["--model.head.class_path=somebodys_heads.LastFrame", "--model.head.init_args.width=7"]
    out = run("own", *chosen, head="linear_probe")
    scored = ["--part", "test", "--data.options.store", str(store), "--checkpoint", str(out / "best.ckpt")]
    with pytest.raises(PainseqError, match=r"\btrust\b.*\bsomebodys_heads\b"):
        evaluate([*on_electrical, *scored, "--out", str(tmp_path / "untrusted")])
    evaluate([*on_electrical, *scored, "--trust", "somebodys_heads", "--out", str(tmp_path / "out")])
    predictions = read_predictions(tmp_path / "out" / "predictions.csv")
    assert len(predictions) == 6 and (predictions.label >= 0).all()


OWN_HEAD = """
from torch import nn
from painseq.batch import masked_mean
from painseq.heads import Head

class LastFrame(Head):
    level = "video"

    def __init__(self, in_shape, num_classes, width: int = 4):
        super().__init__(in_shape, num_classes)
        self.width = width
        self.layers = nn.Sequential(nn.Linear(in_shape[0], width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x, mask):
        return self.layers(masked_mean(x, mask))
"""


def test_metrics_csv_has_a_row_a_kind_and_epoch(run):
    with (run("run") / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "0", "1", "1", "2", "2", "3", "3"]
