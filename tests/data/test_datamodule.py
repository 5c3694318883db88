"""Batches of a data set: views, stores, single frames, balance."""

import multiprocessing
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.data.datamodule import PainDataModule
from painseq.data.datasets import FrameWindow
from painseq.data.facts import DataSetFacts
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.resident import single_frames
from painseq.data.splits import LeakySplit, Split, every_fold
from painseq.data_modules import AI4Pain, BioVid
from painseq.errors import PainseqError
from painseq.faces import FaceCrops, FullFrame, Sidecar
from painseq.heads import LSTM, FrameANN
from painseq.records import Clip, Manifest

INNER = SplitOptions(protocol="official_inner")
FACE = FaceCrops(Sidecar(), size_px=32)


class Listed(PainDataModule):
    """Clips given as a list; AI4Pain's labels."""

    name, facts = "ai4pain", AI4Pain.facts

    def __init__(self, root: Path, options: DataOptions, clips: list[Clip]) -> None:
        super().__init__(root, options)
        self.listed = tuple(clips)

    def read_manifest(self) -> Manifest:
        return Manifest(self.name, self.root, self.listed)


def write_npz(folder: Path, clip_id: str, features: np.ndarray, present: np.ndarray | None = None) -> None:
    folder.mkdir(exist_ok=True)
    frames = len(features)
    present = np.ones(frames, bool) if present is None else present
    np.savez(folder / f"{clip_id}.npz", features=features, present=present, times_s=np.arange(frames) / 4)


def test_features_of_a_store_as_batches(electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store, batch_size=5))
    data.setup("fit")
    assert data.in_shape == (96,) and data.train_counts() == {"no_pain": 6, "low_pain": 3, "high_pain": 3}
    batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [5, 5, 2]
    batch = batches[0]
    assert batch.features is not None and batch.features.shape == (5, 30, 96) and bool(batch.mask.all())
    stored = data.store[batch.clip_ids[0]].features
    assert torch.equal(batch.features[0], stored)
    assert {*batch.subject_ids} <= {*data.split.train}
    assert all(int(target) == -1 for batch in data.test_dataloader() for target in batch.target)


def test_the_order_of_training_items_depends_on_the_seed_alone(electrical, store):
    def order(seed: int) -> list[str]:
        data = AI4Pain(electrical, DataOptions(split=INNER, store=store, batch_size=4, seed=seed))
        return [clip_id for batch in data.train_dataloader() for clip_id in batch.clip_ids]

    assert order(3) == order(3) != order(4)


def test_pixels_from_the_videos_equal_those_of_a_store(heat, heat_crops):
    split = SplitOptions(test_share=0.2)
    stored = BioVid(heat, DataOptions(labels="five", split=split, view="pixels", store=heat_crops, batch_size=9))
    live = BioVid(heat, DataOptions(labels="five", split=split, view="pixels", face=FACE, fps=3.0, batch_size=9))
    assert stored.in_shape == live.in_shape == (3, 32, 32)
    for a, b in zip(stored.test_dataloader(), live.test_dataloader(), strict=True):
        assert a.clip_ids == b.clip_ids and a.video is not None and a.video.dtype == torch.uint8
        assert torch.equal(a.video, b.video) and torch.equal(a.times_s, b.times_s)


def test_worker_processes_give_the_same_and_end_with_the_last_batch(heat, heat_crops):
    options = DataOptions(labels="five", view="pixels", store=heat_crops, batch_size=9)
    read = {}
    for workers in (0, 1):
        data = BioVid(heat, replace(options, num_workers=workers))
        data.setup("fit")
        before = set(multiprocessing.active_children())
        read[workers] = [batch.video for batch in data.loader("train")]
        assert set(multiprocessing.active_children()) <= before
    assert all(torch.equal(one, other) for one, other in zip(*read.values(), strict=True))


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"store": "store", "view": "pixels"}, ("store", "features", "view", "pixels")),
        ({"store": "heat_crops", "view": "features"}, ("heat_crops", "crops", "view", "features")),
        ({"store": "store", "fps": 4.0}, ("store", "sampling.fps", "3.0", "4.0")),
        ({"store": "store", "face": FaceCrops(Sidecar(), size_px=32, margin=0.4)}, ("store", "margin", "0.2", "0.4")),
        ({"store": "store", "face": FaceCrops(FullFrame(), size_px=32)}, ("store", "Sidecar", "FullFrame")),
        ({}, ("store", "view", "pixels")),
        ({"view": "pixels"}, ("face",)),
        ({"view": "pixels", "face": FACE, "frames": FrameWindow(0, 1)}, ("frames", "store", "crops")),
        ({"store": "store", "frames": FrameWindow(100, 101)}, ("frames", "100", "101")),
    ],
)
def test_contradictions_are_errors(electrical, store, heat_crops, options, values):
    folders = {"store": store, "heat_crops": heat_crops}
    options = {**options, **({"store": folders[options["store"]]} if "store" in options else {})}
    with pytest.raises(PainseqError) as error:
        AI4Pain(electrical, DataOptions(split=INNER, **options)).setup("fit")
    assert all(value in str(error.value) for value in values), error.value


def test_a_clip_that_the_store_lacks_is_an_error_that_names_it(heat, store):
    with pytest.raises(PainseqError, match=r"\b6\b.*\b6\b.*-(BL1|PA4)-\d+"):
        BioVid(heat, DataOptions(labels="binary", store=store)).setup("fit")


def test_the_same_settings_as_the_stores_are_no_contradiction(electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store, fps=3, face=FACE))
    data.setup("fit")
    assert len(data.dataset("train")) and data.pipeline["sampling"] == {"fps": 3.0}


def test_single_frames_are_clips_of_one_frame(heat, heat_crops):
    window = FrameWindow(2.0, 4.0)
    options = DataOptions(labels="binary", view="pixels", store=heat_crops, frames=window, batch_size=7)
    data = BioVid(heat, options)
    data.setup("fit")
    clips = data.split.clips(data.manifest, "train")
    # Frames at 2.0, 2.33, 2.67, 3.0, 3.33, 3.67 s.
    assert len(data.dataset("train")) == 6 * len(clips)
    assert data.train_item_counts() == {name: 6 * n for name, n in data.train_counts().items()}
    batch = next(iter(data.train_dataloader()))
    assert batch.video is not None and batch.video.shape == (7, 1, 3, 32, 32)
    assert float(batch.times_s.min()) >= 2.0 and float(batch.times_s.max()) < 4.0
    clip_id, _, moment = batch.clip_ids[0].partition("@")
    row = int((data.store[clip_id].times_s - float(moment)).abs().argmin())
    assert torch.equal(batch.video[0, 0], data.store[clip_id].features[row])


def test_frames_without_a_face_are_no_single_frames(tmp_path):
    clips = [Clip(f"{subject}-{n}", subject, f"{subject}.mp4", "No_Pain") for subject in "abc" for n in range(2)]
    for clip in clips:
        write_npz(tmp_path / "npz", clip.clip_id, np.ones((8, 2), np.float32), np.arange(8) % 2 == 0)
    data = Listed(tmp_path, DataOptions(store=tmp_path / "npz", frames=FrameWindow(0.0, 1.0)), clips)
    assert {sample.clip_id.partition("@")[2] for sample in data.dataset("train")} == {"0.000", "0.500"}


def test_balanced_drawing_evens_out_classes_and_the_subjects_within_them(tmp_path):
    per_group = {("a", "No_Pain"): 30, ("b", "No_Pain"): 2, ("a", "High_Pain"): 3, ("c", "High_Pain"): 1}
    clips = [
        Clip(f"{subject}-{label}-{n}", subject, f"{subject}.mp4", label)
        for (subject, label), count in per_group.items()
        for n in range(count)
    ]
    clips += [Clip("v", "v", "v.mp4", "No_Pain")]
    for clip in clips:
        write_npz(tmp_path / "npz", clip.clip_id, np.ones((1, 2), np.float32))
    split = SplitOptions(protocol="subject_holdout", test_share=0.0, validation_share=0.2)
    for seed in range(20):
        options = DataOptions("binary", SplitOptions(**{**vars(split), "seed": seed}), "features", tmp_path / "npz")
        data = Listed(tmp_path, DataOptions(**{**vars(options), "balance": True}), clips)
        if data.split.validation == ("v",):
            break
    loader = data.train_dataloader()
    drawn = Counter(clip_id.rpartition("-")[0] for _ in range(60) for batch in loader for clip_id in batch.clip_ids)
    total = sum(drawn.values())
    assert total == 60 * 36
    shares = {group: drawn["-".join(group)] / total for group in per_group}
    assert shares == pytest.approx(dict.fromkeys(per_group, 0.25), abs=0.04)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"no": ["0"], "pain": ["1", "2", "3", "4"]}, {"0": 0.5, "1": 0.125, "2": 0.125, "3": 0.125, "4": 0.125}),
        # On a scale each value comes equally often, however it is written.
        ("0..10", {"0": 0.25, "1": 0.125, "1.0": 0.125, "2": 0.25, "3": 0.25}),
    ],
)
def test_balanced_drawing_evens_out_the_classes_of_the_scheme(tmp_path, labels, expected):
    clips = [Clip(f"a-{label}", "a", "a.mp4", label, float(n), n + 1.0) for n, label in enumerate(expected)]
    for clip in clips:
        write_npz(tmp_path / "npz", clip.clip_id, np.ones((1, 2), np.float32))
    split = SplitOptions("subject_lists", train=("a",))
    options = DataOptions(labels, split, store=tmp_path / "npz", balance=True)
    data = Listed(tmp_path, options, clips)
    data.facts = DataSetFacts()
    loader = data.train_dataloader()
    drawn = Counter(clip_id.partition("-")[2] for _ in range(400) for batch in loader for clip_id in batch.clip_ids)
    shares = {label: drawn[label] / sum(drawn.values()) for label in expected}
    assert shares == pytest.approx(expected, abs=0.03)


def test_clips_of_25_and_30_fps_feed_one_head(tmp_path, coded_video, number_of):
    clips = []
    for subject, fps in (("a", 25), ("b", 30), ("c", 25), ("d", 30)):
        coded_video(tmp_path / f"{subject}.mp4", 2 * fps, fps)
        clips.append(Clip(subject, subject, f"{subject}.mp4", "No_Pain", fps=fps))
    face = FaceCrops(FullFrame(), size_px=96, margin=0.0)
    split = SplitOptions(test_share=0.5)

    def batch(fps: float | None):
        data = Listed(tmp_path, DataOptions("three", split, "pixels", face=face, fps=fps), clips)
        items = [sample for part in ("train", "validation", "test") for sample in data.dataset(part)]
        return {sample.clip_id: sample for sample in items}, next(iter(data.test_dataloader()))

    sampled, _ = batch(5.0)
    for clip in clips:
        sample = sampled[clip.clip_id]
        assert sample.times_s.tolist() == pytest.approx([n / 5 for n in range(10)], abs=1e-6)
        assert number_of(sample.x.numpy()) == [round(n * clip.fps / 5) for n in range(10)]
    native, together = batch(None)
    assert {clip.clip_id: len(native[clip.clip_id].present) for clip in clips} == {"a": 50, "b": 60, "c": 50, "d": 60}
    features = together.video.float().mean(dim=(3, 4)) / 255
    assert together.mask.sum(dim=1).tolist() == [len(native[clip_id].present) for clip_id in together.clip_ids]
    for head in (LSTM((3,), 3).eval(), FrameANN((3,), 3).eval()):
        assert torch.isfinite(head(features, together.mask)[together.mask if head.level == "frame" else ...]).all()


def test_a_class_without_a_training_clip_is_an_error_with_the_counts(tmp_path):
    clips = [Clip(subject, subject, f"{subject}.mp4", "No_Pain") for subject in "abcde"]
    for clip in clips:
        write_npz(tmp_path / "npz", clip.clip_id, np.ones((2, 2), np.float32))
    data = Listed(tmp_path, DataOptions(labels="binary", store=tmp_path / "npz"), clips)
    with pytest.raises(PainseqError, match=r"\bhigh_pain\b.*\bno_pain\W+3\b"):
        data.setup("fit")


def test_nothing_that_takes_part_is_an_error(tmp_path):
    clips = [Clip(subject, subject, f"{subject}.mp4", "Low_Pain") for subject in "abc"]
    with pytest.raises(PainseqError, match=r"'binary'.*Low_Pain"):
        _ = Listed(tmp_path, DataOptions(labels="binary"), clips).manifest


# ---- copies that share features ----


def fresh(electrical, store, split, **options) -> AI4Pain:
    """A module that reads its parts by itself, with the parts of a split."""
    names = {part: split.subjects(part) for part in ("train", "validation", "test")}
    return AI4Pain(electrical, DataOptions(split=SplitOptions("subject_lists", **names), store=store, **options))


def same_parts(shared, alone) -> bool:
    for part in ("train", "validation", "test"):
        ours, theirs = shared.dataset(part), alone.dataset(part)
        assert ours.names == theirs.names and ours.left_out == theirs.left_out
        assert ours.clips == theirs.clips and torch.equal(ours.target, theirs.target)
        assert shared.most_frames(part) == alone.most_frames(part)
        for index in range(len(theirs)):
            assert torch.equal(ours[index].features, theirs[index].features)
    assert shared.train_item_counts() == alone.train_item_counts()
    batches = zip(shared.train_dataloader(), alone.train_dataloader(), strict=True)
    return all(ours.clip_ids == theirs.clip_ids and torch.equal(ours.mask, theirs.mask) for ours, theirs in batches)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalise": "baseline"},
        {"normalise": "subject"},
        {"frames": FrameWindow(1, 4)},
        {"balance": True},
        {"labels": "native"},
    ],
    ids=["plain", "baseline", "subject", "frames", "balance", "native"],
)
def test_folds_that_share_features_are_what_each_would_read(options, electrical, store, monkeypatch):
    import painseq.data.datamodule as module

    read = module.resident_clips
    folds = SplitOptions(protocol="subject_kfold", folds=2, validation_share=0.4)
    data = AI4Pain(electrical, DataOptions(split=folds, store=store, **options))
    splits = every_fold(data.manifest, folds, data.scheme)
    times = []
    monkeypatch.setattr(module, "resident_clips", lambda *args: times.append(1) or read(*args))
    copies = [data.with_split(split) for split in (*splits, splits[0])]
    for copy in copies:
        assert copy.dataset("train").resident is data.everything().resident is copy.everything().resident
    assert len(times) == 1
    for copy, split in zip(copies, (*splits, splits[0]), strict=True):
        assert copy.split is split and same_parts(copy, fresh(electrical, store, split, **options))
    assert data.split != splits[1] and data.dataset("train").resident is data.everything().resident


def test_shuffled_labels_are_shuffled_in_shared_features_too(electrical, store):
    split = Split("s", ("S01", "S02"), ("S03",), ("S04",))
    shared, alone = AI4Pain(electrical, DataOptions(store=store)).with_split(split), fresh(electrical, store, split)
    shared.shuffle_labels(3), alone.shuffle_labels(3)
    assert same_parts(shared, alone)
    assert (
        shared.dataset("train").target.tolist()
        != shared.everything().of_clips(shared.split.clips(shared.manifest, "train")).target.tolist()
    )


def test_what_a_part_lacks_is_told_when_the_part_is_opened(electrical, tmp_path):
    random = np.random.default_rng(0)
    clips = [
        Clip(f"{who}_{n}", who, f"{who}.mp4", label=label)
        for who in "abcd"
        for n, label in enumerate(["No_Pain", "High_Pain"])
    ]
    for clip in clips[:-3]:
        write_npz(tmp_path / "npz", clip.clip_id, random.standard_normal((3, 2)).astype(np.float32))
    options = DataOptions(labels="binary", store=tmp_path / "npz", normalise="baseline")
    data = Listed(
        tmp_path, options, [replace(clip, label="High_Pain") if clip.subject_id == "b" else clip for clip in clips]
    )
    good = data.with_split(Split("s", ("a",), (), ()))
    assert [clip.clip_id for clip in data.everything().clips] == ["a_1"] and len(good.dataset("train")) == 1
    with pytest.raises(PainseqError, match=r"\btrain\b.*\bb\b.*\b1\b.*\bno_pain\b"):
        data.with_split(Split("s", ("b",), (), ())).dataset("train")
    with pytest.raises(PainseqError, match=r"\b1\b.*\b1\b.*'d_\d'"):
        data.with_split(Split("s", ("d",), (), ())).dataset("train")


def test_no_baseline_is_taken_of_labels_whose_order_nobody_told(tmp_path):
    listed = [Clip(f"{who}_{label}", who, f"{who}.mp4", label=label) for who in "abc" for label in ("no", "high")]
    data = Listed(tmp_path, DataOptions(labels="native", normalise="baseline"), listed)
    data.name, data.facts = "mine", DataSetFacts()
    with pytest.raises(PainseqError, match=r"baseline.*\bhigh\b\W+no\b"):
        data.clips("train")
    data = Listed(tmp_path, DataOptions(labels="native", normalise="baseline"), listed)
    data.name, data.facts, data.classes = "mine", DataSetFacts(), ("no", "high")
    assert {clip.label for clip in data.clips("train")} == {"high"}


def test_crops_are_not_shared(electrical, heat, heat_crops):
    data = BioVid(heat, DataOptions(labels="binary", view="pixels", store=heat_crops))
    subjects = data.manifest.subjects
    copy = data.with_split(Split("s", subjects[:2], subjects[2:3], subjects[3:]))
    assert len(copy.dataset("train")) == 4 and copy.store is data.store
    with pytest.raises(PainseqError, match="view"):
        data.everything()


def test_features_are_copied_to_a_device_once(electrical, store):
    data = AI4Pain(electrical, DataOptions(store=store))
    first, second = (data.with_split(Split("s", (a,), (b,), ("S04",))) for a, b in (("S01", "S02"), ("S02", "S03")))
    there = first.dataset("train").to("meta")
    assert there.resident.frames.is_meta
    assert second.dataset("validation").to("meta").resident is there.resident
    assert first.dataset("train").to("cpu") is first.dataset("train")


@pytest.mark.parametrize("single", [False, True])
def test_leaky_parts_are_items_by_number(single, electrical, store):
    data = AI4Pain(electrical, DataOptions(store=store, batch_size=4))
    items = single_frames(data.everything(), FrameWindow(0, 2)) if single else data.everything()
    random = np.random.default_rng(0).permutation(len(items)).tolist()
    parts = {"train": random[:-6], "validation": random[-6:-3], "test": random[-3:]}
    leaky = data.with_items(items, parts, "by_clip")
    leaky.setup("fit")
    for part, numbers in parts.items():
        assert leaky.dataset(part).names == [items.names[number] for number in numbers]
        assert leaky.dataset(part).resident is items.resident
        assert {clip.clip_id for clip in leaky.clips(part)} == {items.clips[number].clip_id for number in numbers}
        assert leaky.most_frames(part) == (1 if single else 30)
    drawn = [name for batch in leaky.train_dataloader() for name in batch.clip_ids]
    learnable = [items.names[number] for number in parts["train"] if items.target[number] >= 0]
    assert sorted(drawn) == sorted(learnable)
    assert [name for batch in leaky.loader("test") for name in batch.clip_ids] == leaky.dataset("test").names
    everybody = tuple(sorted({clip.subject_id for clip in items.clips}))
    assert leaky.split.to_dict() == {
        "protocol": "by_clip_LEAKY",
        **{part: list(everybody) for part in parts},
    }
    assert leaky.subjects_seen() == {f"ai4pain/{subject}" for subject in everybody}
    without = data.with_items(items, {"train": [0, 2], "validation": [], "test": [1]}, "by_clip")
    assert without.split.validation == () and without.val_dataloader() == []


def test_parts_that_share_nobody_are_a_split_as_any_other(electrical, store):
    data = AI4Pain(electrical, DataOptions(store=store))
    items = data.everything()
    items.left_out = ["Test/S06/S06_1"]
    who = [clip.subject_id for clip in items.clips]
    numbers = {name: [number for number, subject in enumerate(who) if subject == name] for name in sorted(set(who))}
    parts = {"train": numbers["S01"] + numbers["S02"], "validation": numbers["S03"][:1], "test": numbers["S06"]}
    divided = data.with_items(items, parts, "by_subject")
    assert divided.split == Split("by_subject", ("S01", "S02"), ("S03",), ("S06",))
    assert divided.subjects_seen() == {"ai4pain/S01", "ai4pain/S02", "ai4pain/S03"}
    assert divided.dataset("test").names == [items.names[number] for number in numbers["S06"]]
    # Unreadable clips are no items, so they are no rows of a part's predictions either.
    assert divided.dataset("test").left_out == []


def test_leaky_parts_do_not_overlap_and_say_what_they_are(electrical, store):
    data = AI4Pain(electrical, DataOptions(store=store))
    for parts in ({"train": [0, 1], "test": [1]}, {"train": [0, 0]}, {"train": [0, len(data.everything())]}):
        with pytest.raises(PainseqError, match=f"{len(data.everything()) - 1}"):
            data.with_items(data.everything(), parts, "by clip")
    with pytest.raises(ValueError, match="LEAKY"):
        LeakySplit("kfold", ("a",), (), ("a",), {})
