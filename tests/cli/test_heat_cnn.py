"""The recipe of the heat-pain network, from videos to a score; its card; who may be scored with it."""

import csv
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.cli.fit import fit
from painseq.data.augment import Augment
from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import FrameWindow
from painseq.data.options import DataOptions
from painseq.data.splits import Split
from painseq.data_modules import BioVid
from painseq.extractors import VGG16, TimmBackbone, read_weights, save_weights
from painseq.features import FeatureStore
from painseq.model.checkpoint import read_checkpoint
from painseq.records import Clip, Manifest
from painseq.runs import read_history
from painseq.studies.experiment import read_experiment

RECIPE = ("--config", "configs/reproduce/prajod2022_heat_cnn.yaml")
SMALL = """
data:
  init_args:
    root: {heat}
    options:
      batch_size: 16
      face: {{init_args: {{locator: {{class_path: painseq.faces.Sidecar}}, size_px: 32}}}}
trainer: {{max_epochs: 1, enable_progress_bar: false, enable_model_summary: false, accelerator: cpu}}
"""
NETWORKS = {
    "vgg": "init_args: {weights: null, new: [], input_size_px: 32}",
    "resnet": "{class_path: painseq.extractors.TimmBackbone, init_args: {model: test_resnet, weights: null, "
    "input_size_px: 32, trainable: [layer4]}}",
}
OTHERS = ("--data.options.split.test_share", "0.4", "--data.options.split.seed", "1")
"""A split with two of the five people in its test part, whereas the recipe's holds one out: it has seen another."""
HEAD = ("--config", "configs/head/lstm.yaml", "--trainer.max_epochs", "1")


@pytest.fixture(scope="module")
def recipe(heat, tmp_path_factory):
    """The recipe's options on the heat data at 32 pixels, with random weights: of VGG16, or of a smaller network."""
    folder = tmp_path_factory.mktemp("recipe")
    for name, network in NETWORKS.items():
        model = f"model:\n  extractor:\n    {network}\n".replace("extractor:\n    {", "extractor: {")
        (folder / f"{name}.yaml").write_text(SMALL.format(heat=heat) + model)
    return lambda network="resnet": [*RECIPE, "--config", str(folder / f"{network}.yaml")]


@pytest.fixture(scope="module")
def crops(recipe, tmp_path_factory) -> Path:
    """The recipe's crops, as its head says to make them."""
    from painseq.cli.extract import main as extract

    out = tmp_path_factory.mktemp("crops") / "store"
    size = ["--model.extractor.init_args.input_size_px", "32"]
    extract([*recipe(), "--config", "configs/extractor/pixels.yaml", *size, "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def vgg_run(recipe, crops, tmp_path_factory) -> Path:
    """The recipe's own network, fitted for an epoch."""
    out = tmp_path_factory.mktemp("vgg") / "run"
    return fit([*recipe("vgg"), "--data.options.store", str(crops), "--out", str(out)])


@pytest.fixture(scope="module")
def run(recipe, crops, tmp_path_factory) -> Path:
    """The same with a smaller network."""
    return fit([*recipe(), "--data.options.store", str(crops), "--out", str(tmp_path_factory.mktemp("net") / "run")])


def trained(run: Path) -> TimmBackbone:
    return TimmBackbone("test_resnet", str(run / "extractor.safetensors"), input_size_px=32)


def test_the_recipe_is_what_the_paper_tells():
    config = read_experiment(RECIPE[1]).config
    options, extractor = config["data"]["init_args"]["options"], config["model"]["extractor"]
    assert config["data"]["class_path"].endswith("BioVid") and options["labels"] == "binary"
    assert options["face"]["init_args"]["size_px"] == extractor["init_args"]["input_size_px"] == 224
    assert extractor["class_path"].endswith("VGG16") and extractor["init_args"]["fc"] is True
    assert options["balance"] is True and options["augment"] is not None and "mixed" in config["trainer"]["precision"]
    assert config["trainer"]["max_epochs"] == config["model"]["scheduler"]["init_args"]["T_max"]


@pytest.mark.slow
def test_the_recipe_runs_from_videos_to_a_score(painseq, recipe, crops, vgg_run, heat, tmp_path):
    store = FeatureStore(crops)
    assert store.dtype == "uint8" and len(store) == 10 and store.spec["sampling"] == {"fps": 4.0}
    fresh, kept = VGG16(fc=True, input_size_px=32), vgg_run / "extractor.safetensors"
    fitted = VGG16(str(kept), fc=True, input_size_px=32)
    before, after = fresh.state_dict(), fitted.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    learned = {name for name in before if fresh.in_block(name, "block5") or fresh.in_block(name, "fc")}
    assert changed == learned and all(bool(torch.isfinite(value).all()) for value in after.values())
    assert json.loads((vgg_run / "run.json").read_text())["precision"] == "bf16-mixed"
    more = ["--data.options.store", crops, "--checkpoint", vgg_run / "best.ckpt"]
    result = painseq("evaluate", *recipe("vgg"), *more, "--out", tmp_path / "images")
    assert result.code == 0, result.err
    with (tmp_path / "images" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Of two clips of the person held out, the frames at 2.5, 2.75 ... 5.25 s.
    assert len(rows) == 24 and len({row["subject_id"] for row in rows}) == 1
    whole = tmp_path / "whole.yaml"
    whole.write_text("data: {init_args: {options: {frames: null}}}\n")
    result = painseq("evaluate", *recipe("vgg"), "--config", whole, *more, "--out", tmp_path / "clips")
    assert result.code == 0, result.err
    with (tmp_path / "clips" / "predictions.csv").open(newline="") as file:
        assert sorted(row["truth"] for row in csv.DictReader(file)) == ["high_pain", "no_pain"]


@pytest.mark.slow
def test_mixed_precision_resumes_to_the_same_weights(recipe, crops, tmp_path):
    def go(name: str, *more: str) -> Path:
        return fit([*recipe(), "--data.options.store", str(crops), "--out", str(tmp_path / name), *more])

    whole = go("whole", "--trainer.max_epochs=2")
    go("parts", "--trainer.max_epochs=1")
    parts = go("parts", "--trainer.max_epochs=2", "--resume")
    one, other = (read_checkpoint(out / "last.ckpt") for out in (whole, parts))
    assert all(torch.equal(value, other.head[key]) for key, value in one.head.items())
    assert all(torch.equal(value, other.extractor[key]) for key, value in one.extractor.items())
    cards = [trained(out).card for out in (whole, parts)]
    assert cards[0] == cards[1] and cards[0]["epochs"] == 2


def test_the_card_tells_what_a_network_was_made_of(run, crops, heat):
    network = trained(run)
    card, split = network.card, BioVid(heat, DataOptions(labels="binary")).split
    assert card["network"]["fingerprint"] == network.fingerprint()
    assert card["data"]["name"] == "biovid" and card["data"]["class_names"] == ["no_pain", "high_pain"]
    assert card["data"]["generated"] is True and card["data"]["split"] == split.to_dict()
    assert card["frames"] == {"from_s": 2.5, "to_s": 5.5} and card["sampling"] == {"fps": 4.0}
    assert card["training_items"] == {"no_pain": 36, "high_pain": 36} and card["balance"] is True
    assert card["face"] == FeatureStore(crops).spec["face"] and card["augment"]["class_path"].endswith("Augment")
    assert card["optimizer"]["init_args"]["lr"] == 1e-4 and card["precision"] == "bf16-mixed" and card["seed"] == 0
    best = min(read_history(run), key=lambda row: row["val_loss"])
    assert card["validation"] == {key: value for key, value in best.items() if key != "train_loss"}
    assert card["started_from"] == {"weights": card["started_from"]["weights"], "trained_on": [], "card": None}
    assert "seed 0" in card["started_from"]["weights"]
    page = (run / "extractor_card.md").read_text()
    assert all(subject in page for subject in (*split.train, *split.validation, *split.test))
    assert "generated" in page.lower() and network.fingerprint() in page


def test_the_card_of_a_network_trained_further_holds_that_of_the_first(recipe, run, crops, tmp_path):
    weights = f"--model.extractor.init_args.weights={run / 'extractor.safetensors'}"
    again = fit([*recipe(), weights, "--refit=1", "--data.options.store", str(crops), "--out", str(tmp_path / "again")])
    card = trained(again).card
    assert card["started_from"]["card"] == trained(run).card and card["validation"] is None and card["refit"] == 1
    assert set(card["started_from"]["trained_on"]) == set(trained(run).trained_on) <= set(trained(again).trained_on)
    page = (again / "extractor_card.md").read_text()
    assert all(subject.partition("/")[2] in page for subject in trained(run).trained_on)


def test_a_control_with_shuffled_labels_says_so_in_its_card(recipe, crops, tmp_path):
    shuffled = fit([*recipe(), "--shuffle-labels", "--data.options.store", str(crops), "--out", str(tmp_path / "run")])
    assert "shuffled" in (shuffled / "extractor_card.md").read_text().lower()


@pytest.fixture(scope="module")
def renamed(run, tmp_path_factory) -> Path:
    """The trained network's file under another name, which tells nothing."""
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    shutil.copy(run / "extractor.safetensors", path)
    return path


@pytest.fixture(scope="module")
def heat_features(on_heat, renamed, tmp_path_factory) -> Path:
    """Features of the heat data through the trained network."""
    from painseq.cli.extract import main as extract

    out = tmp_path_factory.mktemp("heat_features") / "store"
    extract([*on_heat, "--model.extractor.init_args.weights", str(renamed), "--out", str(out)])
    return out


def test_nobody_whom_the_extractor_has_seen_is_a_test_subject(painseq, on_heat, heat_features, tmp_path):
    args = [*on_heat, *HEAD, "--model.extractor=null", "--data.options.store", heat_features]
    unseen = painseq("fit", *args, "--out", tmp_path / "unseen")
    assert unseen.code == 0, unseen.err
    seen = painseq("fit", *args, *OTHERS, "--out", tmp_path / "seen")
    assert seen.code == 1 and seen.err.names("extractor", "biovid")
    assert not (tmp_path / "seen" / "best.ckpt").exists()


def test_crops_of_another_kind_than_the_network_was_trained_on_are_told(painseq, on_heat, renamed, tmp_path):
    through = [*on_heat, "--model.extractor.init_args.weights", renamed]
    as_trained = ["--data.options.face.init_args.kind", "landmark_box"]
    assert not painseq("extract", *through, *as_trained, "--out", tmp_path / "same").log.names("landmark_box")
    other = painseq("extract", *through, "--out", tmp_path / "other")
    assert other.log.names("kind", "landmark_box", "square")


def test_a_head_of_other_people_is_not_scored_on_the_extractors(
    painseq, on_electrical, on_heat, renamed, heat_features, tmp_path
):
    """The head has seen electrical pain alone, its extractor the heat subjects."""
    through = ["--model.extractor.init_args.weights", renamed, "--data.options.labels", "binary"]
    assert painseq("extract", *on_electrical, *through, "--out", tmp_path / "store").code == 0
    electrical = [*on_electrical, *through, "--data.options.store", tmp_path / "store"]
    assert painseq("fit", *electrical, *HEAD, "--out", tmp_path / "head").code == 0
    on_them = [*on_heat, "--model.extractor=null", "--data.options.store", heat_features]
    on_them += ["--checkpoint", tmp_path / "head" / "best.ckpt"]
    unseen = painseq("evaluate", *on_them, "--out", tmp_path / "unseen")
    assert unseen.code == 0, unseen.err
    for number, change in enumerate((["--part", "validation"], OTHERS)):
        seen = painseq("evaluate", *on_them, *change, "--out", tmp_path / f"seen{number}")
        assert seen.code == 1 and seen.err.names("extractor", "biovid")
        assert not (tmp_path / f"seen{number}" / "metrics.json").exists()


def test_a_file_that_cannot_tell_whom_it_was_fitted_on_says_so(run, tmp_path):
    tensors, _ = read_weights(str(run / "extractor.safetensors"))
    torch.save(tensors, tmp_path / "w.pth")
    converted = TimmBackbone("test_resnet", str(tmp_path / "w.pth"), input_size_px=32)
    warning = converted.loaded.partition("w.pth")[2].strip(" .")
    assert converted.card is None and converted.trained_on == () and warning and warning not in trained(run).loaded
    # What one knows of such a file can be written into it.
    converted.trained_on, converted.people_known = trained(run).trained_on, True
    save_weights(converted, tmp_path / "told.safetensors")
    told = TimmBackbone("test_resnet", str(tmp_path / "told.safetensors"), input_size_px=32)
    assert told.trained_on == trained(run).trained_on and warning not in told.loaded


class Listed(PainDataModule):
    """Clips given as a list; BioVid's labels."""

    name, facts = "biovid", BioVid.facts

    def __init__(self, root: Path, options: DataOptions, clips: list[Clip]) -> None:
        super().__init__(root, options)
        self.listed = tuple(clips)

    def read_manifest(self) -> Manifest:
        return Manifest(self.name, self.root, self.listed)


FACES_SEEN = st.lists(st.booleans(), min_size=4, max_size=8).filter(lambda seen: any(seen[1:3]))
CLIPS = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["BL1", "PA4"]), st.integers(0, 2)), FACES_SEEN
).filter(lambda clips: {label for _, label, _ in clips} == {"BL1", "PA4"})


@given(clips=CLIPS)
@settings(max_examples=25, deadline=None)
def test_single_frames_are_drawn_equally_often_of_each_class_and_subject(clips):
    """However many clips each has, however long, in whatever frames a face was found."""
    with tempfile.TemporaryDirectory() as folder:
        listed = [Clip("v-BL1-0", "v", "v.mp4", "BL1")]
        for (subject, label, number), present in clips.items():
            clip_id = f"{subject}-{label}-{number}"
            listed.append(Clip(clip_id, subject, f"{subject}.mp4", label))
            _write_crops(Path(folder), clip_id, np.asarray(present))
        _write_crops(Path(folder), "v-BL1-0", np.ones(4, bool))
        options = DataOptions(
            "binary", view="pixels", store=Path(folder), frames=FrameWindow(0.25, 0.75), balance=True, batch_size=2
        )
        data = Listed(Path(folder), options, listed)
        data._split = Split("by hand", ("a", "b", "c", "d"), ("v",), ())
        order = data.train_dataloader().batch_sampler
        items = data.dataset("train").clips
    # Frames at 0.25 s and 0.5 s, if they have a face.
    assert len(items) == sum(sum(present[1:3]) for present in clips.values())
    chance: Counter[tuple[str, str]] = Counter()
    for index, weight in zip(order.items, order.weights, strict=True):
        chance[str(items[index].label), items[index].subject_id] += weight / sum(order.weights)
    for label in ("BL1", "PA4"):
        of_class = {group: share for group, share in chance.items() if group[0] == label}
        assert {subject for _, subject in of_class} == {subject for subject, other, _ in clips if other == label}
        assert list(of_class.values()) == pytest.approx([0.5 / len(of_class)] * len(of_class))


def _write_crops(folder: Path, clip_id: str, present: np.ndarray) -> None:
    crops = np.zeros((len(present), 3, 2, 2), np.uint8)
    np.savez(folder / f"{clip_id}.npz", features=crops, present=present, times_s=np.arange(len(present)) / 4)


def test_single_frames_are_augmented_in_training_alone(heat, crops):
    def videos(augment: Augment | None, part: str) -> list[torch.Tensor]:
        options = DataOptions("binary", view="pixels", store=crops, frames=FrameWindow(2.5, 5.5), augment=augment)
        data = BioVid(heat, options)
        loader = data.train_dataloader() if part == "train" else data.val_dataloader()
        return [batch.video for batch in loader]

    assert not any(torch.equal(*pair) for pair in zip(videos(None, "train"), videos(Augment(), "train"), strict=True))
    for plain, again in zip(videos(None, "validation"), videos(Augment(), "validation"), strict=True):
        assert torch.equal(plain, again)
