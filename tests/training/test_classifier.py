"""Fitting: what is learned, what stays frozen, and who must not be scored."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import seed_everything

import painseq
from painseq.batch import Sample, collate
from painseq.cli.extract import main as extract
from painseq.cli.fit import fit
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.splits import qualified
from painseq.data_modules import AI4Pain, BioVid
from painseq.errors import LeakError, PainseqError
from painseq.extractors import TimmBackbone
from painseq.faces import FaceCrops, Sidecar
from painseq.features import ExtractOptions, FeatureStore
from painseq.features import extract as fill_store
from painseq.heads import LSTM, FrameANN, LinearFrames
from painseq.model.objective import CrossEntropy
from painseq.records import UNKNOWN
from painseq.studies.predict_part import predict_part
from painseq.training.classifier import PainClassifier

INNER = SplitOptions(protocol="official_inner")


@pytest.fixture
def fit_lstm(on_electrical, store, tmp_path) -> Callable[..., dict[str, torch.Tensor]]:
    """Fits into a folder of `tmp_path`; gives the head's weights."""

    def run(name: str, *more: str) -> dict[str, torch.Tensor]:
        args = [*on_electrical, "--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "2", *more]
        out = fit([*args, "--data.options.store", str(store), "--out", str(tmp_path / name)])
        return torch.load(out / "best.ckpt", weights_only=True)["state_dict"]

    return run


def test_the_same_seed_gives_the_same_weights(fit_lstm):
    first, second, other = fit_lstm("a"), fit_lstm("b"), fit_lstm("c", "--seed_everything", "1")
    assert first.keys() == second.keys() and all(key.startswith("head.") for key in first)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_a_run_folder_tells_everything_about_the_run(lstm):
    out = lstm.parent
    assert {"best.ckpt", "last.ckpt", "config.yaml", "run.json", "metrics.csv"} <= {file.name for file in out.iterdir()}
    run = json.loads((out / "run.json").read_text())
    assert run["seed"] == 0 and run["epochs"] == 2 and run["versions"]["painseq"] == painseq.__version__
    assert run["data"]["train_counts"] == {"no_pain": 6, "low_pain": 3, "high_pain": 3}
    assert run["extractor"]["fingerprint"] and run["pipeline"]["sampling"] == {"fps": 3.0}
    assert not {*run["data"]["split"]["train"]} & {*run["data"]["split"]["test"]}


def test_resuming_goes_on_where_it_stopped(fit_lstm, tmp_path):
    fit_lstm("run")
    fit_lstm("run", "--resume", "--trainer.max_epochs", "4")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["epochs"] == 4
    rows = [(tmp_path / "run" / name).read_text().splitlines()[1:] for name in ("metrics_before_1.csv", "metrics.csv")]
    assert [[row.partition(",")[0] for row in part] for part in rows] == [list("0011"), list("2233")]


def test_there_is_nothing_to_resume_in_a_new_folder(fit_lstm):
    with pytest.raises(PainseqError, match=r"last\.ckpt.*run"):
        fit_lstm("run", "--resume")


def test_a_run_is_not_overwritten_but_a_failed_start_leaves_the_folder_free(fit_lstm, tmp_path):
    with pytest.raises(PainseqError, match="'four'"):
        fit_lstm("run", "--data.options.labels", "four")
    fit_lstm("run")
    before = (tmp_path / "run" / "best.ckpt").read_bytes()
    with pytest.raises(PainseqError, match=re.escape(str(tmp_path / "run"))):
        fit_lstm("run")
    assert (tmp_path / "run" / "best.ckpt").read_bytes() == before


def test_a_frozen_extractor_is_not_changed_by_fitting_on_pixels(heat, heat_crops, on_heat, tmp_path):
    args = [*on_heat, "--config", "configs/head/lstm.yaml", "--data.options.view", "pixels"]
    out = fit([*args, "--data.options.store", str(heat_crops), "--out", str(tmp_path / "run")])
    fresh = TimmBackbone("test_resnet", input_size_px=32)
    kept = torch.load(out / "best.ckpt", weights_only=True)["extractor"]
    assert kept.keys() == fresh.network.state_dict().keys()
    assert all(torch.equal(value, kept[name]) for name, value in fresh.network.state_dict().items())
    assert not (out / "extractor.safetensors").exists()
    assert painseq.load(out / "best.ckpt").extractor.fingerprint() == fresh.fingerprint()


def test_batch_norm_that_holds_activations_is_not_replaced(heat_crops, on_heat, tmp_path):
    network = ["--model.extractor.init_args.model", "mobilenetv3_small_050", "--trainer.sync_batchnorm", "true"]
    args = [*on_heat, *network, "--config", "configs/head/lstm.yaml", "--data.options.view", "pixels"]
    with pytest.raises(PainseqError, match="sync_batchnorm"):
        fit([*args, "--data.options.store", str(heat_crops), "--out", str(tmp_path / "run")])


def test_a_validation_batch_with_nothing_to_score_is_passed_over():
    model = PainClassifier()
    model.head = LinearFrames((4,), 3)
    model.register_buffer("loss_weights", torch.ones(3), persistent=False)
    model.objective = CrossEntropy(["a", "b", "c"])
    model.val_score = model.objective.metric()

    def clip(target: int, present: bool) -> Sample:
        return Sample("clip", "S1", target, torch.full((5,), present), torch.arange(5.0), features=torch.randn(5, 4))

    model.validation_step(collate([clip(0, False), clip(UNKNOWN, True)]), 0)
    model.validation_step(collate([clip(1, True)]), 1)
    assert model.val_loss.weight == 5 and model.val_score.compute() in (0, 1)


@pytest.fixture(scope="module")
def heat_run(on_heat, heat_crops, tmp_path_factory) -> Path:
    """A trainable extractor fitted on single frames of all heat subjects but none for test."""
    args = [*on_heat, "--config", "configs/head/linear_frames.yaml", "--trainer.max_epochs", "1"]
    window = ["--data.options.frames.from_s", "1", "--data.options.frames.to_s", "5", "--data.options.view", "pixels"]
    trainable = ["--model.extractor.init_args.trainable", "[layer4]", "--data.options.split.test_share", "0.2"]
    out = tmp_path_factory.mktemp("heat") / "run"
    return fit([*args, *window, *trainable, "--data.options.store", str(heat_crops), "--out", str(out)])


def test_a_trained_extractor_remembers_whom_it_has_seen(heat, heat_run):
    weights = heat_run / "extractor.safetensors"
    trained = TimmBackbone("test_resnet", str(weights), input_size_px=32)
    split = BioVid(heat, DataOptions(labels="binary", split=SplitOptions(test_share=0.2))).split
    assert {*trained.trained_on} == qualified("biovid", (*split.train, *split.validation)) and len(split.test) == 1
    fresh = TimmBackbone("test_resnet", input_size_px=32).network.state_dict()
    changed = {name for name, value in trained.network.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed and all(name.startswith("layer4") for name in changed)
    checkpoint = painseq.load(heat_run / "best.ckpt")
    assert checkpoint.extractor.fingerprint() == trained.fingerprint()
    assert checkpoint.fitted_on == {*trained.trained_on}


def test_weights_of_unknown_people_are_recorded_and_told(electrical, store, lstm, tmp_path, caplog):
    """Those that a head starts from, and those of a store's extractor."""
    head = {n.removeprefix("head."): t for n, t in torch.load(lstm, weights_only=True)["state_dict"].items()}
    torch.save(head, tmp_path / "w.pth")

    def bound(start_from, known=True):
        caplog.clear()
        data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
        data.store.people_known = known
        classifier = PainClassifier(head=LSTM, start_from=start_from, normalise="train")
        classifier.bind(data)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        return classifier.record, [message for message in warnings if "unknown" in message]

    assert bound([])[0].unknown_people == () and bound([])[1] == []
    source = str(tmp_path / "w.pth")
    record, (told,) = bound([source])
    assert record.unknown_people == (source,) and source in told
    record, told = bound([source], known=False)
    assert record.unknown_people == ("the extractor", source) and len(told) == 2
    # Whoever starts from such a model starts from unknown people too.
    content = torch.load(lstm, weights_only=True)
    content["painseq"]["unknown_people"] = ["w.pth"]
    content["painseq"]["fitted_on"] = []
    torch.save(content, tmp_path / "w.ckpt")
    assert bound([str(tmp_path / "w.ckpt")])[0].unknown_people == ("w.pth",)


def test_nobody_whom_the_head_has_seen_is_scored(lstm, electrical, store):
    model = painseq.load(lstm)
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    for part in ("train", "validation"):
        with pytest.raises(LeakError, match=r"\(ai4pain/S0"):
            predict_part(model, data, part)
    everyone = DataOptions(split=SplitOptions(protocol="subject_holdout", test_share=0.5), store=store)
    with pytest.raises(LeakError, match=r"\b3\b.*\(ai4pain/S0"):
        predict_part(model, AI4Pain(electrical, everyone), "test")
    assert len(predict_part(model, data, "test")) == 6


def test_nobody_whom_the_extractor_has_seen_is_scored(heat, heat_run, on_heat, tmp_path):
    """Neither fitted with them as test subjects, nor scored on later: the store carries whom its extractor knows."""
    extractor = TimmBackbone("test_resnet", str(heat_run / "extractor.safetensors"), input_size_px=32)
    holdout = SplitOptions(test_share=0.4, validation_share=0.3, seed=1)
    data = BioVid(heat, DataOptions(labels="binary", split=holdout))
    assert qualified("biovid", data.split.test) & {*extractor.trained_on}
    fill_store(
        data.manifest,
        FaceCrops(Sidecar(), size_px=32),
        extractor,
        3.0,
        tmp_path / "store",
        ExtractOptions(dtype="float32"),
    )
    assert {*FeatureStore(tmp_path / "store").trained_on} == {*extractor.trained_on}
    seen = DataOptions(labels="binary", split=holdout, store=tmp_path / "store")
    with pytest.raises(LeakError, match=r"extractor.*\b1\b.*\(biovid/"):
        PainClassifier(head=LSTM).bind(BioVid(heat, seen))
    unseen = DataOptions(labels="binary", split=SplitOptions(test_share=0.2), store=tmp_path / "store")
    classifier = PainClassifier(head=LSTM)
    classifier.bind(BioVid(heat, unseen))
    assert {*classifier.record.extractor_trained_on} == {*extractor.trained_on}
    # A head fitted on others only, on an extractor that has seen the subject to be scored.
    model = painseq.load(heat_run / "best.ckpt")
    seen_by = {"fitted_on": ("ai4pain/S01",), "extractor_trained_on": extractor.trained_on}
    model.record = replace(model.record, **seen_by)
    with pytest.raises(LeakError, match=r"extractor.*\b1\b.*\(biovid/"):
        predict_part(model, BioVid(heat, seen), "test")


def test_subjects_of_another_data_set_are_other_people(lstm, heat, tmp_path):
    model = painseq.load(lstm)
    assert not model.fitted_on & qualified("biovid", BioVid(heat, DataOptions()).manifest.subjects)


def test_five_classes_do_not_fit_three(heat, heat_crops, electrical, store, on_heat, tmp_path):
    args = [*on_heat, "--config", "configs/head/lstm.yaml", "--data.options.view", "pixels"]
    five = ["--data.options.labels", "five", "--data.options.store", str(heat_crops)]
    out = fit([*args, *five, "--trainer.max_epochs", "1", "--out", str(tmp_path / "run")])
    model = painseq.load(out / "best.ckpt")
    with pytest.raises(PainseqError, match=r"\b5\b.*extreme_pain.*\b3\b.*low_pain"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")


def test_a_store_of_another_extractor_is_refused_at_fit_and_at_evaluate(
    lstm, electrical, store, on_electrical, tmp_path
):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    other = TimmBackbone("test_resnet", input_size_px=32, seed=7)
    with pytest.raises(PainseqError, match=rf"extractor\.fingerprint\W+'\w+'.*'{other.fingerprint()}'"):
        PainClassifier(head=LSTM, extractor=other).bind(data)
    tested = data.manifest.only(data.split.clips(data.manifest, "test"))
    fill_store(
        tested, FaceCrops(Sidecar(), size_px=32), other, 3.0, tmp_path / "other", ExtractOptions(dtype="float32")
    )
    model = painseq.load(lstm)
    with pytest.raises(PainseqError, match=rf"extractor\.fingerprint: '{other.fingerprint()}'"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=tmp_path / "other")), "test")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [({"fps": 4.0}, r"sampling\.fps\D*3\.0\D+4\.0"), ({"margin": 0.5}, r"face\.margin\D*0\.2\D+0\.5")],
)
def test_videos_read_otherwise_than_in_training_are_refused(lstm, electrical, change, pattern):
    face = FaceCrops(Sidecar(), size_px=32, margin=change.get("margin", 0.2))
    options = DataOptions(split=INNER, view="pixels", face=face, fps=change.get("fps", 3.0))
    with pytest.raises(PainseqError, match=pattern):
        predict_part(painseq.load(lstm), AI4Pain(electrical, options), "test")


def test_features_of_unknown_origin(electrical, store, lstm, tmp_path):
    """They fit a head that cannot read videos; no extractor is taken on trust."""
    stored = FeatureStore(store)
    for number, clip_id in enumerate(stored):
        clip = stored[clip_id]
        arrays = {"features": clip.features.numpy()[:, :5], "present": clip.present.numpy(), "times_s": clip.times_s}
        np.savez(tmp_path / f"{number}.npz", **arrays)
    index = "\n".join(f"{clip_id},{number}.npz" for number, clip_id in enumerate(stored))
    (tmp_path / "index.csv").write_text(f"clip_id,file\n{index}\n")
    data = AI4Pain(electrical, DataOptions(split=INNER, store=tmp_path))
    classifier = PainClassifier(head=FrameANN)
    classifier.bind(data)
    assert classifier.record.extractor is None and classifier.record.in_shape == (5,)
    with pytest.raises(PainseqError, match=re.escape(str(tmp_path))):
        PainClassifier(head=FrameANN, extractor=TimmBackbone("test_resnet", input_size_px=32)).bind(data)
    with pytest.raises(PainseqError, match=r"\[96\].*\[5\]"):
        predict_part(painseq.load(lstm), data, "test")


@pytest.mark.parametrize("head", [LSTM, FrameANN, LinearFrames])
def test_the_loss_takes_real_frames_with_known_labels_alone(head, electrical, store):
    classifier = PainClassifier(head=head, class_weights="inverse_frequency")
    classifier.bind(AI4Pain(electrical, DataOptions(split=INNER, store=store)))
    classifier.eval()
    # Six, three and three clips: weights 12 / (3 n).
    assert classifier.loss_weights.tolist() == pytest.approx([2 / 3, 4 / 3, 4 / 3])
    seed_everything(0, verbose=False)
    present = torch.tensor([True, False, True, True])

    def sample(name: str, target: int, seen: torch.Tensor = present) -> Sample:
        return Sample(name, "s", target, seen, torch.arange(4.0), features=torch.randn(4, 96))

    a, b = sample("a", 2), sample("b", 0)
    batch, more = collate([a, b]), collate([a, b, sample("hidden", -1), sample("faceless", 1, torch.zeros(4).bool())])
    total, weight = classifier.loss(classifier(batch), batch)
    again, weight_again = classifier.loss(classifier(more), more)
    # One row a clip, or three real frames: of classes 2 and 0.
    assert weight.item() == weight_again.item() == pytest.approx((1 if head is LSTM else 3) * (4 / 3 + 2 / 3))
    assert again.item() == pytest.approx(total.item(), rel=1e-5)
    nothing = collate([sample("hidden", -1)])
    assert [value.item() for value in classifier.loss(classifier(nothing), nothing)] == [0, 0]


def test_a_classifier_says_what_it_lacks(electrical, store, heat, heat_crops):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    with pytest.raises(PainseqError, match=r"\bhead\b"):
        PainClassifier().bind(data)
    pixels = BioVid(heat, DataOptions(labels="binary", view="pixels", store=heat_crops))
    with pytest.raises(PainseqError, match=r"\bextractor\b"):
        PainClassifier(head=LSTM).bind(pixels)


def test_a_run_is_resumed_as_it_was_begun_or_not_at_all(fit_lstm, tmp_path):
    fit_lstm("run", "--data.options.split.validation_share", "0.3")
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(PainseqError, match=r"\bdata\b"):
        fit_lstm("run", "--resume", "--data.options.split.validation_share", "0.5")
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_the_checkpoint_of_a_trained_extractor_names_the_trained_network(heat_run):
    model = painseq.load(heat_run / "best.ckpt")
    fresh = TimmBackbone("test_resnet", input_size_px=32)
    assert model.record.extractor["fingerprint"] == model.extractor.fingerprint() != fresh.fingerprint()
    run = json.loads((heat_run / "run.json").read_text())
    assert run["extractor"]["fingerprint"] == model.extractor.fingerprint()


def test_whom_an_extractor_has_seen_is_known_through_store_and_export(heat, heat_run, on_heat, tmp_path):
    weights = TimmBackbone("test_resnet", str(heat_run / "extractor.safetensors"), input_size_px=32)
    bare = tmp_path / "bare.pth"
    torch.save(weights.network.state_dict(), bare)
    through, to = tmp_path / "store", tmp_path / "npz"
    named = ["--model.extractor.init_args.weights", str(heat_run / "extractor.safetensors")]
    extract([*on_heat, *named, "--out", str(through), "--export", str(to)])
    head = [
        "--config",
        "configs/head/lstm.yaml",
        "--data.options.split.seed",
        "3",
        "--data.options.split.test_share",
        "0.4",
    ]
    for features, more in (
        (through, ["--model.extractor.init_args.weights", str(bare)]),
        (to, ["--model.extractor", "null"]),
    ):
        with pytest.raises(LeakError, match=r"extractor.*\b2\b.*\(biovid/"):
            fit([*on_heat, *head, *more, "--data.options.store", str(features), "--out", str(tmp_path / "run")])


def test_an_extractor_cannot_be_trained_on_the_features_of_a_store(fit_lstm):
    with pytest.raises(PainseqError, match="trainable"):
        fit_lstm("run", "--model.extractor.init_args.trainable", "[layer4]")
