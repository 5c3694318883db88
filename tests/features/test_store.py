"""The store keeps what it was given, whatever happens to the process that fills it."""

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from functools import partial
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
from painseq.features import ClipFeatures, FeatureStore, StoreWriter, store

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


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clips=st.dictionaries(st.text(min_size=1, max_size=12), st.integers(1, 9), min_size=0, max_size=9),
    kind=st.sampled_from(["float16", "float32", "uint8"]),
    finish=st.booleans(),
    points=st.sets(st.integers(0, 8)),
)
def test_round_trip(clips, kind, finish, points, extractor, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(store, "CLIPS_PER_SHARD", 3)
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
    assert (read.dtype, read.out_shape) == (kind, maker.out_shape)
    assert read.landmarks == (5 if any(features.landmarks is not None for features in given.values()) else 0)
    for id_, features in given.items():
        assert id_ in read and same(read[id_], features)
        assert read.num_frames(id_) == len(features)
        assert read.num_faceless(id_) == int((~features.present).sum())
        assert same(read.frames(id_, 1, 3), part(features, 1, 3))
        assert (read[id_].landmarks is None) == (not read.landmarks)
    assert bool(list(out.glob("pending/*"))) == (not finish and len(clips) % 3 > 0)


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
    with pytest.raises(PainseqError, match="lost or exchanged"):
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
    with pytest.raises(PainseqError, match=f"extractor.fingerprint: '{extractor.fingerprint()}', not"):
        read.check_same(spec_of(other))
    with (
        pytest.raises(PainseqError, match=r"sampling.fps: 10.0, not 25.0"),
        StoreWriter(tmp_path, spec_of(extractor, fps=25.0), "float16", extractor),
    ):
        pass
    with (
        pytest.raises(PainseqError, match="dtype: 'float16', not 'float32'"),
        StoreWriter(tmp_path, spec_of(extractor), "float32", extractor),
    ):
        pass
    # Where weights came from, and what would train, makes no other pipeline.
    moved = spec_of(extractor)
    moved["extractor"]["init_args"] |= {"weights": "elsewhere.pth", "trainable": ["layer4"], "seed": 9}
    read.check_same(moved)


def test_a_missing_clip_says_why_and_what_to_do(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        writer.fail("broken", "it is no video")
    with pytest.raises(PainseqError, match=r"'absent': it was never extracted.*painseq extract"):
        FeatureStore(tmp_path)["absent"]
    with pytest.raises(PainseqError, match=r"'broken': its extraction failed: it is no video"):
        FeatureStore(tmp_path)["broken"]


def test_values_that_cannot_be_kept_are_refused(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        for value in (7e4, float("nan"), float("inf")):
            bad = clip(2, extractor.out_shape)
            bad.features[1, 3] = value
            with pytest.raises(PainseqError, match="not finite in float16"):
                writer.add("bad", bad, "d")
        with pytest.raises(PainseqError, match="T above 0"):
            writer.add("empty", clip(0, extractor.out_shape), "d")
        with pytest.raises(PainseqError, match=r"\(2, 5\)"):
            writer.add("narrow", clip(2, (5,)), "d")


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


def test_killed_before_or_after_any_write_it_ends_the_same(extractor, tmp_path, monkeypatch, files):
    """A process is killed at every write of a run, in turn, just before and just after the file appears."""
    monkeypatch.setattr(store, "CLIPS_PER_SHARD", 3)
    lengths = [2, 1, 3, 1, 4, 1, 2, 2, 1, 1]
    fill(tmp_path / "whole", extractor, lengths)
    expected = files(tmp_path / "whole")
    assert [name for name in expected if name.startswith("shard")] == [f"shard-0000{n}.safetensors" for n in range(3)]
    replace, unlink = Path.replace, Path.unlink

    def killed_at(event: int, after: bool) -> None:
        events = 0

        def counted(action):
            def run(*args, **more):
                nonlocal events
                events += 1
                if events == event and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = action(*args, **more)
                if events == event:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return run

        Path.replace, Path.unlink = counted(replace), counted(unlink)
        fill(out, extractor, lengths)

    kills, event = 0, 0
    out = tmp_path / "killed"
    while True:
        event += 1
        statuses = []
        for after in (False, True):
            statuses.append(in_child(partial(killed_at, event, after)))
            if (out / "store.json").exists():
                read = FeatureStore(out)
                assert all(same(read[id_], to16(id_, lengths, extractor)) for id_ in read)
        kills += sum(os.WIFSIGNALED(status) for status in statuses)
        fill(out, extractor, lengths)
        assert files(out) == expected, f"killed at event {event}"
        for file in sorted(out.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        if not any(os.WIFSIGNALED(status) for status in statuses):
            break
    assert kills > 40


def to16(id_: str, lengths: list[int], extractor) -> ClipFeatures:
    number = int(id_.removeprefix("clip"))
    return store.to_dtype(made(number, lengths[number], extractor), "float16")


def test_interrupted_it_can_be_read_and_continued(extractor, tmp_path, monkeypatch, files):
    monkeypatch.setattr(store, "CLIPS_PER_SHARD", 3)
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


def test_a_full_disk_keeps_what_is_done(extractor, tmp_path, monkeypatch, files):
    """A limit on the size of a file stands for the full disk: the pending clips fit, their shard does not."""
    monkeypatch.setattr(store, "CLIPS_PER_SHARD", 8)
    lengths = [50] * 12
    fill(tmp_path / "whole", extractor, lengths)
    with StoreWriter(tmp_path / "s", spec_of(extractor), "float16", extractor):
        pass

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        with pytest.raises(PainseqError, match=r"No room left for .*The 8 clips done stay.*painseq extract"):
            fill(tmp_path / "s", extractor, lengths)

    assert in_child(limited) == 0
    assert len(FeatureStore(tmp_path / "s")) == 8
    assert not list((tmp_path / "s").glob("**/.*.partial"))
    fill(tmp_path / "s", extractor, lengths)
    assert files(tmp_path / "s") == files(tmp_path / "whole")


def test_shards_close_by_size_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * 3 * 4 * 4 * 4)
    pixels = Pixels(4)
    with StoreWriter(tmp_path, spec_of(pixels), "uint8", pixels) as writer:
        for number in range(4):
            writer.add(f"c{number}", clip(4, pixels.out_shape, "uint8"), "d")
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_landmarks_count_towards_the_size_of_a_shard(tmp_path, monkeypatch):
    pixels = Pixels(4)
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * 4 * (3 * 4 * 4 + 5 * 2 * 4))
    with StoreWriter(tmp_path, spec_of(pixels), "uint8", pixels) as writer:
        for number in range(4):
            writer.add(f"c{number}", clip(4, pixels.out_shape, "uint8", points=5), "d")
    assert len(list(tmp_path.glob("shard-*"))) == 2


def test_every_clip_has_the_same_points(extractor, tmp_path):
    with StoreWriter(tmp_path, spec_of(extractor), "float16", extractor) as writer:
        writer.add("faceless", clip(2, extractor.out_shape), "d")
        writer.add("first", clip(2, extractor.out_shape, points=68), "d")
        with pytest.raises(PainseqError, match=r"Clip other: landmarks of shape \(3, 5, 2\), not \(3, 68, 2\)"):
            writer.add("other", clip(3, extractor.out_shape, points=5), "d")
    assert list(FeatureStore(tmp_path)) == ["faceless", "first"]
    with pytest.raises(ValueError, match="frames"):
        ClipFeatures(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool), torch.zeros(2), torch.zeros(1, 68, 2))


def as_before_landmarks(path: Path) -> None:
    """Rewrite a finished store as it was written before landmarks were kept."""
    index = json.loads((path / "index.json").read_text())
    for row in index["clips"].values():
        assert row.pop("landmarks") == 0
    (path / "index.json").write_text(json.dumps(index))
    for shard in path.glob("shard-*"):
        with safe_open(shard, "pt") as file:
            table = json.loads(file.metadata()["clips"])
        for row in table.values():
            row.pop("landmarks")
        save_file(load_file(shard), shard, {"clips": json.dumps(table)})


def test_a_store_from_before_landmarks_is_read_and_continued(extractor, tmp_path):
    old, new = clip(3, extractor.out_shape, seed=1), clip(2, extractor.out_shape, seed=2, points=5)
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        writer.add("old", old, "d")
    as_before_landmarks(tmp_path)
    read = FeatureStore(tmp_path)
    assert read.landmarks == 0 and read["old"].landmarks is None and same(read["old"], old)
    with StoreWriter(tmp_path, spec_of(extractor), "float32", extractor) as writer:
        assert writer.state("old", "d") == "done"
        writer.add("new", new, "d")
    read = FeatureStore(tmp_path)
    assert read.landmarks == 5 and same(read["new"], new) and same(read["old"], old)
    assert read.frames("old", 1, 3).landmarks.shape == (2, 5, 2)


def test_two_processes_do_not_fill_one_store(extractor, tmp_path):
    with (
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor),
        pytest.raises(PainseqError, match="Another process is filling"),
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor),
    ):
        pass


def test_a_folder_of_other_things_is_left_alone(extractor, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with (
        pytest.raises(PainseqError, match=r"other files \(thesis.tex\)"),
        StoreWriter(tmp_path, spec_of(extractor), "float16", extractor),
    ):
        pass


def test_damage_is_named(extractor, tmp_path):
    with pytest.raises(PainseqError, match="is no feature store"):
        FeatureStore(tmp_path)
    fill(tmp_path, extractor, [2, 2])
    read, shard = FeatureStore(tmp_path), tmp_path / "shard-00000.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PainseqError, match=r"shard-00000.*damaged"):
        read["clip0"]
    save_file({"features": torch.zeros(4, *extractor.out_shape)}, shard, {"clips": "{}"})
    with pytest.raises(PainseqError, match="does not hold clip 'clip0'"):
        read["clip0"]
    shard.write_bytes(whole)
    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(shard)
    del tensors["landmarks"]
    save_file(tensors, shard, metadata)
    with pytest.raises(PainseqError, match=r"cannot be read \(.*landmarks"):
        read["clip1"]
    shard.unlink()
    with pytest.raises(PainseqError, match="cannot be read"):
        read["clip0"]
    shard.write_bytes(whole)
    index = json.loads((tmp_path / "index.json").read_text())
    index["clips"]["clip0"]["first"] = 1
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PainseqError, match="does not hold clip 'clip0' where the index says"):
        FeatureStore(tmp_path)["clip0"]
    index["clips"]["clip0"]["shard"] = "../../secret.safetensors"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PainseqError, match=r"index.json is damaged.*outside"):
        FeatureStore(tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(PainseqError, match=r"store.json is damaged"):
        FeatureStore(tmp_path)
    (tmp_path / "store.json").write_text('{"format": 2}')
    with pytest.raises(PainseqError, match="format 2"):
        FeatureStore(tmp_path)
