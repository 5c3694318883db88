"""The store keeps what it was given, whatever happens to the process that fills it."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from painseq.errors import PainseqError
from painseq.extractors import Pixels, TimmBackbone
from painseq.features import ClipFeatures, FeatureStore, StoreWriter, shards
from painseq.features.store import UnfitFeatures

DTYPES = {"float16": torch.float16, "float32": torch.float32, "uint8": torch.uint8}


def spec_of(extractor, fps: float = 10.0) -> dict[str, object]:
    return {
        "extractor": {**extractor.spec(), "fingerprint": extractor.fingerprint()},
        "face": {"size_px": extractor.input_size_px},
        "sampling": {"fps": fps},
    }


def clip(frames: int, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0, points: int = 0) -> ClipFeatures:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(frames, *shape, generator=generator) * 255
    present = torch.rand(frames, generator=generator) > 0.3
    landmarks = torch.rand(frames, points, 2, generator=generator) * 640
    landmarks[~present] = torch.nan
    times_s = torch.arange(frames, dtype=torch.float64) / 10
    return ClipFeatures(values.to(DTYPES[dtype]), present, times_s, landmarks if points else None)


def part(clip: ClipFeatures, first: int, last: int) -> ClipFeatures:
    return ClipFeatures(*(None if tensor is None else tensor[first:last] for tensor in vars(clip).values()))


def same(read: ClipFeatures, given: ClipFeatures) -> bool:
    """The same values; a clip without landmarks may read as NaN."""
    if given.landmarks is None:
        same_landmarks = read.landmarks is None or bool(read.landmarks.isnan().all())
    else:
        same_landmarks = read.landmarks is not None and np.array_equal(read.landmarks, given.landmarks, equal_nan=True)
    return (
        torch.equal(read.features, given.features)
        and torch.equal(read.present, given.present)
        and torch.equal(read.times_s, given.times_s)
        and same_landmarks
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clips=st.dictionaries(st.text(min_size=1, max_size=12), st.integers(1, 9), min_size=0, max_size=9),
    kind=st.sampled_from(["float16", "float32", "uint8"]),
    finish=st.booleans(),
    points=st.sets(st.integers(0, 8)),
)
def test_round_trip(clips, kind, finish, points, extractor, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)
    out = tmp_path_factory.mktemp("store")
    maker = Pixels(4) if kind == "uint8" else extractor
    given = {
        id_: clip(frames, maker.out_shape, kind, seed, points=5 if seed in points else 0)
        for seed, (id_, frames) in enumerate(clips.items())
    }
    writer = StoreWriter(out, spec_of(maker), kind, maker)
    writer.__enter__()
    for id_, features in given.items():
        writer.add(id_, features, "digest")
    if finish:
        writer.__exit__(None, None, None)
    else:
        writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    read = FeatureStore(out)
    assert read.clip_ids == tuple(clips) and len(read) == len(clips) and read.failed == {}
    assert (read.dtype, read.precision, read.out_shape) == (kind, "fp32", maker.out_shape)
    assert read.digests == {file.name: sha256(file.read_bytes()).hexdigest() for file in out.glob("shard-*")}
    assert read.shard_bytes == sum(file.stat().st_size for file in out.glob("shard-*"))
    assert len(read.pending) == len(list(out.glob("pending/*"))) and read.check() == []
    assert read.landmarks == (5 if any(features.landmarks is not None for features in given.values()) else 0)
    for id_, features in given.items():
        assert id_ in read and same(read[id_], features)
        assert read.num_frames(id_) == len(features)
        assert read.num_faceless(id_) == int((~features.present).sum())
        assert same(read.frames(id_, 1, 3), part(features, 1, 3))
        assert (read[id_].landmarks is None) == (not read.landmarks)
    assert bool(list(out.glob("pending/*"))) == (not finish and len(clips) % 3 > 0)


def test_a_store_tells_whether_the_people_of_its_extractor_are_known(tmp_path):
    fresh = TimmBackbone("test_resnet", input_size_px=32)
    torch.save(fresh.network.state_dict(), tmp_path / "w.pth")
    loaded = TimmBackbone("test_resnet", str(tmp_path / "w.pth"), input_size_px=32)
    for name, network in (("fresh", fresh), ("loaded", loaded)):
        with StoreWriter(tmp_path / name, spec_of(network), "float16", network):
            pass
        read, known = FeatureStore(tmp_path / name), name == "fresh"
        assert read.people_known is read.extractor().people_known is known
        # Stores of earlier versions have no such entry.
        header = json.loads((tmp_path / name / "store.json").read_text())
        del header["people_known"]
        (tmp_path / name / "store.json").write_text(json.dumps(header))
        assert FeatureStore(tmp_path / name).people_known is known
        for wrong in ("mine/P01", ["P01"], [1]):
            (tmp_path / name / "store.json").write_text(json.dumps({**header, "trained_on": wrong}))
            with pytest.raises(PainseqError, match=r"store\.json.*trained_on"):
                FeatureStore(tmp_path / name)


def test_the_extractor_comes_back_with_its_weights(extractor, tmp_path):
    trained = TimmBackbone("test_resnet", input_size_px=32, seed=3)
    trained.trained_on = ("biovid/1", "biovid/2")
    with torch.no_grad():
        next(trained.parameters()).add_(0.1)
    with StoreWriter(tmp_path / "s", spec_of(trained), "float16", trained):
        pass
    read = FeatureStore(tmp_path / "s")
    assert read.trained_on == ("biovid/1", "biovid/2")
    again = read.extractor()
    assert again.fingerprint() == trained.fingerprint() and again.trained_on == read.trained_on
    (tmp_path / "s" / "extractor.safetensors").unlink()
    with pytest.raises(PainseqError, match=r"extractor\.safetensors"):
        read.extractor()


def test_published_weights_are_not_copied(extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(extractor, "published_as", extractor.fingerprint())
    with StoreWriter(tmp_path / "s", spec_of(extractor), "float16", extractor):
        pass
    assert not (tmp_path / "s" / "extractor.safetensors").exists()
    pixels = Pixels(4)
    with StoreWriter(tmp_path / "p", spec_of(pixels), "uint8", pixels):
        pass
    assert not (tmp_path / "p" / "extractor.safetensors").exists()
    assert isinstance(FeatureStore(tmp_path / "p").extractor(), Pixels)


def test_another_pipeline_is_refused_by_its_differences(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor):
        pass
    other = TimmBackbone("test_resnet", input_size_px=32, seed=1)
    read = FeatureStore(tmp_path)
    with pytest.raises(PainseqError, match=rf"extractor\.fingerprint.*{extractor.fingerprint()}"):
        read.check_same(spec_of(other))
    with (
        pytest.raises(PainseqError, match=r"(?s)(?=.*sampling\.fps)(?=.*\b10\.0\b)(?=.*\b25\.0\b)"),
        StoreWriter(tmp_path, spec_of(extractor, fps=25.0), "float16", extractor),
    ):
        pass
    with (
        pytest.raises(PainseqError, match=r"(?s)(?=.*dtype)(?=.*'float16')(?=.*'float32')"),
        StoreWriter(tmp_path, spec_of(extractor), "float32", extractor),
    ):
        pass
    with (
        pytest.raises(PainseqError, match=r"(?s)(?=.*precision)(?=.*'fp32')(?=.*'bf16')"),
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor, precision="bf16"),
    ):
        pass
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'int8')(?=.*\bfp32\b)(?=.*\bbf16\b)"):
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor, precision="int8")
    # Where weights came from, and what would train, makes no other pipeline.
    moved = spec_of(extractor)
    moved["extractor"]["init_args"] |= {"weights": "elsewhere.pth", "trainable": ["layer4"], "seed": 9}
    read.check_same(moved)
    # Nor does what stores record for people to read, which older stores lack.
    moved["extractor"]["input"] = extractor.input_record()
    read.check_same(moved)
    with StoreWriter(tmp_path, moved, "float16", extractor):
        pass
    assert FeatureStore(tmp_path).fingerprint == read.fingerprint


def test_a_missing_clip_says_why_and_what_to_do(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        writer.fail("broken", "it is no video")
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'absent')(?=.*\bextract\b)"):
        FeatureStore(tmp_path)["absent"]
    with pytest.raises(PainseqError, match=r"(?s)(?=.*'broken')(?=.*it is no video)"):
        FeatureStore(tmp_path)["broken"]


def test_values_that_cannot_be_kept_are_refused(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        for value in (7e4, float("nan"), float("inf")):
            bad = clip(2, extractor.out_shape)
            bad.features[1, 3] = value
            with pytest.raises(UnfitFeatures, match="float16"):
                writer.add("bad", bad, "d")
        with pytest.raises(UnfitFeatures, match=r"\bempty\b"):
            writer.add("empty", clip(0, extractor.out_shape), "d")
        with pytest.raises(UnfitFeatures, match=r"\(2, 5\)"):
            writer.add("narrow", clip(2, (5,)), "d")
        with pytest.raises(UnfitFeatures, match=r"(?s)(?=.*landmarks)(?=.*\(2, 7\))"):
            writer.add("flat", replace(clip(2, extractor.out_shape), landmarks=torch.zeros(2, 7)), "d")
        writer.add("good", clip(2, extractor.out_shape), "d")
    assert list(FeatureStore(tmp_path)) == ["good"]
    assert not list((tmp_path / "pending").iterdir())


def made(number: int, frames: int, extractor) -> ClipFeatures:
    """The clips that `fill` fills a store with; every third has no landmarks, the first among them."""
    return clip(frames, extractor.out_shape, seed=number, points=5 if number % 3 else 0)


def fill(out: Path, extractor, lengths: list[int], stop_after: int | None = None) -> None:
    with StoreWriter(out, spec_of(extractor), "float16", extractor) as writer:
        for number, frames in enumerate(lengths):
            if stop_after is not None and number >= stop_after:
                raise KeyboardInterrupt
            if number % 7 == 5:
                writer.fail(f"clip{number}", "unreadable")
            elif writer.state(f"clip{number}", "d") != "done":
                writer.add(f"clip{number}", made(number, frames, extractor), "d")


def test_interrupted_it_can_be_read_and_continued(extractor, tmp_path, monkeypatch, files):
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)
    lengths = [1] * 10
    fill(tmp_path / "whole", extractor, lengths)
    for stop in (2, 4, 4, 8):
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path / "s", extractor, lengths, stop)
        assert len(FeatureStore(tmp_path / "s")) == stop - (stop > 5)
    fill(tmp_path / "s", extractor, lengths)
    assert files(tmp_path / "s") == files(tmp_path / "whole")


def test_a_clip_done_again_replaces_the_old_one(extractor, tmp_path):
    first, second = clip(3, extractor.out_shape, seed=1), clip(5, extractor.out_shape, seed=2)
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        assert writer.state("a", "one") == "new"
        writer.add("a", first, "one")
        writer.add("b", first, "one")
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        assert writer.state("a", "one") == "done" and writer.state("a", "two") == "changed"
        writer.add("a", first, "two")
        writer.add("a", second, "three")
        assert writer.counts("a")[0] == 5
    read = FeatureStore(tmp_path)
    assert same(read["a"], second) and same(read["b"], first) and len(read) == 2
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        writer.fail("a", "not to be reached")
    assert "a" in FeatureStore(tmp_path) and not FeatureStore(tmp_path).failed
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        writer.fail("a", "gone", changed=True)
    assert "a" not in FeatureStore(tmp_path) and FeatureStore(tmp_path).failed == {"a": "gone"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 20), max_size=5), kind=st.sampled_from(["float16", "uint8"]), points=st.booleans())
def test_handed_over_in_pieces_it_is_the_same_file(cuts, kind, points, extractor, tmp_path_factory, files):
    out = tmp_path_factory.mktemp("store")
    maker = Pixels(3) if kind == "uint8" else extractor
    whole = clip(20, maker.out_shape, "uint8" if kind == "uint8" else "float32", points=5 * points)
    for path, writes in (("whole", lambda w: w.add("a", whole, "d")), ("pieces", lambda w: in_pieces(w, whole, cuts))):
        with StoreWriter(out / path, spec_of(maker), kind, maker) as writer:
            writes(writer)
    assert files(out / "pieces") == files(out / "whole")


def in_pieces(writer: StoreWriter, whole: ClipFeatures, cuts: list[int]) -> None:
    """Hand over a clip cut anywhere, while another is on its way too; crops with channels last."""
    edges = [0, *sorted(cuts), len(whole)]
    file, dropped = writer.begin("a", "d"), writer.begin("b", "d")
    for first, last in pairwise(edges):
        piece = whole.features[first:last]
        file.append(piece.contiguous(memory_format=torch.channels_last) if piece.ndim == 4 else piece)
        dropped.append(piece)
    file.finish(whole.present, whole.times_s, whole.landmarks)
    file.discard()
    dropped.discard()


def test_pieces_that_do_not_fit_together_are_a_mistake_of_the_program(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        file = writer.begin("a", "d")
        file.append(torch.zeros(2, *extractor.out_shape, dtype=torch.bfloat16))
        with pytest.raises(ValueError, match=r"(?s)(?=.*\b2\b)(?=.*\b3\b)"):
            file.finish(torch.ones(3, dtype=torch.bool), torch.arange(3.0), None)
        # Left open, it goes with the writer.
    assert len(FeatureStore(tmp_path)) == 0 and not list((tmp_path / "pending").iterdir())


def test_shards_close_by_size_too(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * 3 * 4 * 4 * 4)
    pixels = Pixels(4)
    with StoreWriter(tmp_path, spec_of(pixels), "uint8", pixels) as writer:
        for number in range(4):
            writer.add(f"c{number}", clip(4, pixels.out_shape, "uint8"), "d")
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_landmarks_count_towards_the_size_of_a_shard(tmp_path, monkeypatch):
    pixels = Pixels(4)
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * 4 * (3 * 4 * 4 + 5 * 2 * 4))
    with StoreWriter(tmp_path, spec_of(pixels), "uint8", pixels) as writer:
        for number in range(4):
            writer.add(f"c{number}", clip(4, pixels.out_shape, "uint8", points=5), "d")
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_every_clip_has_the_same_points(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        writer.add("faceless", clip(2, extractor.out_shape), "d")
        writer.add("first", clip(2, extractor.out_shape, points=68), "d")
        named = r"(?s)(?=.*\bother\b)(?=.*landmarks)(?=.*\(3, 5, 2\))(?=.*\(3, 68, 2\))"
        with pytest.raises(PainseqError, match=named):
            writer.add("other", clip(3, extractor.out_shape, points=5), "d")
    assert list(FeatureStore(tmp_path)) == ["faceless", "first"]
    with pytest.raises(ValueError, match="frames"):
        ClipFeatures(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool), torch.zeros(2), torch.zeros(1, 68, 2))


def test_a_folder_of_other_things_is_left_alone(extractor, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with (
        pytest.raises(PainseqError, match=r"thesis\.tex"),
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor),
    ):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_named(extractor, tmp_path):
    with pytest.raises(PainseqError, match=re.escape(str(tmp_path))):
        FeatureStore(tmp_path)
    fill(tmp_path, extractor, [2, 2])
    read, shard = FeatureStore(tmp_path), tmp_path / "shard-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PainseqError, match=r"shard-00000\.safetensors"):
        read["clip0"]
    save_file({"features": torch.zeros(4, *extractor.out_shape)}, shard, {"clips": "{}"})
    with pytest.raises(PainseqError, match=r"(?s)(?=.*shard-00000\.safetensors)(?=.*'clip0')"):
        read["clip0"]
    shard.write_bytes(whole)
    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(shard)
    del tensors["landmarks"]
    save_file(tensors, shard, metadata)
    with pytest.raises(PainseqError, match=r"(?s)(?=.*shard-00000\.safetensors)(?=.*landmarks)"):
        read["clip1"]
    shard.unlink()
    with pytest.raises(PainseqError, match=r"(?s)(?=.*shard-00000\.safetensors)(?=.*'clip0')(?=.*\bextract\b)"):
        read["clip0"]
    shard.write_bytes(whole)
    index = json.loads((tmp_path / "index.json").read_text())
    index["clips"]["clip0"]["first"] = 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*shard-00000\.safetensors)(?=.*'clip0')"):
        FeatureStore(tmp_path)["clip0"]
    index["clips"]["clip0"]["shard"] = "../../secret.safetensors"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PainseqError, match=r"(?s)(?=.*index\.json)(?=.*secret\.safetensors)"):
        FeatureStore(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(PainseqError, match=r"store\.json"):
        FeatureStore(tmp_path)
    for number in (1, 3):
        (tmp_path / "store.json").write_text(json.dumps({"format": number}))
        with pytest.raises(PainseqError, match=rf"(?s)format(?=.*\b{number}\b)(?=.*\b2\b)"):
            FeatureStore(tmp_path)
    (tmp_path / "store.json").write_text('{"format": 2, "spec": {}, "dtype": "float16", "precision": "int8"}')
    with pytest.raises(PainseqError, match=r"(?s)(?=.*store\.json)(?=.*int8)"):
        FeatureStore(tmp_path)
