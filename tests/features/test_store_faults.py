"""What a store holds after its process was killed, its disk was full, or its files were damaged."""

import errno
import fcntl
import json
import os
import re
import resource
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from painseq.errors import PainseqError
from painseq.extractors import Pixels, TimmBackbone
from painseq.features import ClipFeatures, FeatureStore, StoreWriter, lock, shards

LENGTHS = [2, 1, 3, 1, 4, 1, 2, 2, 1, 1]
PIXELS = Pixels(2)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)


def made(number: int) -> ClipFeatures:
    """Clip `number`; every third has no landmarks, the first among them."""
    frames = LENGTHS[number]
    generator = torch.Generator().manual_seed(number)
    crops = torch.randint(0, 256, (frames, *PIXELS.out_shape), generator=generator, dtype=torch.uint8)
    landmarks = torch.rand(frames, 5, 2, generator=generator) if number % 3 else None
    return ClipFeatures(crops, crops[:, 0, 0, 0] > 80, torch.arange(frames, dtype=torch.float64), landmarks)


def store_writer(out: Path) -> StoreWriter:
    spec = {"extractor": {**PIXELS.spec(), "fingerprint": PIXELS.fingerprint()}, "face": {}, "sampling": {"fps": 5.0}}
    return StoreWriter(out, spec, "uint8", PIXELS)


def fill(out: Path, clips: int = len(LENGTHS)) -> None:
    """One clip fails, all others are stored, in pieces of one frame."""
    with store_writer(out) as writer:
        for number in range(clips):
            name, clip = f"clip{number}", made(number)
            if number == 5:
                writer.fail(name, "unreadable")
            elif writer.state(name, "d") != "done":
                file = writer.begin(name, "d")
                for frame in clip.features.split(1):
                    file.append(frame)
                file.finish(clip.present, clip.times_s, clip.landmarks)


def all_right(store: FeatureStore) -> bool:
    """Whether the clips that are there are as they were made."""
    for clip_id in store:
        read, clip = store[clip_id], made(int(clip_id.removeprefix("clip")))
        if not (torch.equal(read.features, clip.features) and torch.equal(read.present, clip.present)):
            return False
        if clip.landmarks is not None and not torch.equal(read.landmarks, clip.landmarks):
            return False
    return True


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


def test_killed_before_or_after_any_write_it_ends_the_same(tmp_path, files):
    """A process is killed at every sync, rename and removal of a run, in turn, just before and just after it."""
    fill(tmp_path / "whole", 7)
    expected = files(tmp_path / "whole")
    assert [name for name in expected if name.startswith("shard")] == [f"shard-0000{n}.safetensors" for n in range(2)]
    assert expected.keys() == {"store.json", "index.json"} | {f"shard-0000{n}.safetensors" for n in range(2)}

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

        Path.replace, Path.unlink, os.fsync = counted(Path.replace), counted(Path.unlink), counted(os.fsync)
        fill(out, 7)

    kills = event = 0
    out = tmp_path / "killed"
    while True:
        event += 1
        statuses = []
        for after in (False, True):
            statuses.append(in_child(partial(killed_at, event, after)))
            if (out / "store.json").exists():
                assert all_right(FeatureStore(out))
        kills += sum(os.WIFSIGNALED(status) for status in statuses)
        fill(out, 7)
        assert files(out) == expected, f"killed at event {event}"
        for file in sorted(out.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        if not any(os.WIFSIGNALED(status) for status in statuses):
            break
    assert kills > 50


def test_a_full_disk_keeps_what_is_done(tmp_path, files):
    """A limit on the size of a file stands for the full disk, from one where not even a frame fits to one where the
    last index does not."""
    fill(tmp_path / "whole")
    expected = files(tmp_path / "whole")
    with store_writer(tmp_path / "empty"):
        pass
    head_bytes = (tmp_path / "empty" / "store.json").stat().st_size
    largest = max(map(len, expected.values()))
    assert largest == len(expected["index.json"])

    def limited(out: Path, size_bytes: int) -> None:
        with store_writer(out):
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
        with pytest.raises(PainseqError, match=rf"(?s)(?=.*{re.escape(str(out))})(?=.*{os.strerror(errno.EFBIG)})"):
            fill(out)

    kept = []
    for size_bytes in range(100, largest, 150):
        out = tmp_path / str(size_bytes)
        assert in_child(partial(limited, out, size_bytes)) == 0
        store = FeatureStore(out)
        assert all_right(store) and store.check() == []
        kept.append(len(store))
        assert not list(out.glob("**/.*.partial"))
        fill(out)
        assert files(out) == expected
    assert kept == sorted(kept) and {0, 9} < {*kept} and head_bytes < largest


def test_a_clip_in_work_needs_no_memory_for_its_frames(tmp_path):
    """A limit on memory below the size of the clip: neither writing it nor closing its shard needs it whole."""
    pixels = Pixels(128)

    def limited() -> None:
        torch.set_num_threads(1)
        with open("/proc/self/statm") as statm:  # noqa: PTH123
            used = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, resource.RLIM_INFINITY))
        spec = {"extractor": {**pixels.spec(), "fingerprint": pixels.fingerprint()}, "face": {}, "sampling": {}}
        with StoreWriter(tmp_path, spec, "uint8", pixels) as writer:
            file = writer.begin("long", "d")
            for _ in range(60):
                file.append(torch.full((40, *pixels.out_shape), 7, dtype=torch.uint8))
            file.finish(torch.ones(2400, dtype=torch.bool), torch.arange(2400.0), None)

    assert in_child(limited) == 0
    store = FeatureStore(tmp_path)
    assert store.shard_bytes > 2400 * 128 * 128 * 3 > 100 * 2**20
    assert int(store.frames("long", 2399).features.min()) == 7


def test_a_lost_shard_is_extracted_anew(tmp_path, files, caplog):
    fill(tmp_path / "s")
    whole = files(tmp_path / "s")
    shard = tmp_path / "s" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\2")
    (problem,) = FeatureStore(tmp_path / "s").check()
    assert problem.file == shard.name and "sha256" in problem.what and problem.repair
    shard.unlink()
    (problem,) = FeatureStore(tmp_path / "s").check()
    assert problem.file == shard.name and re.search(r"\b3\b", problem.what) and "extract" in problem.repair
    with store_writer(tmp_path / "s") as writer:
        states = [writer.state(f"clip{number}", "d") for number in range(len(LENGTHS))]
    assert states == ["done"] * 3 + ["new"] * 4 + ["done"] * 3
    assert re.search(r"shard-00001\.safetensors.*\b3\b", caplog.text)
    fill(tmp_path / "s")
    assert sorted(FeatureStore(tmp_path / "s")) == sorted(json.loads(whole["index.json"])["clips"])
    assert all_right(FeatureStore(tmp_path / "s")) and FeatureStore(tmp_path / "s").check() == []


def test_a_pending_clip_stands_in_for_a_lost_shard(tmp_path):
    """As after a power cut: the index names a shard that never reached the disk, and the pending files are there."""
    with pytest.raises(KeyboardInterrupt), store_writer(tmp_path) as writer:
        writer.add("clip0", made(0), "d")
        writer.add("clip1", made(1), "d")
        kept = [(file, file.read_bytes()) for file in (tmp_path / "pending").iterdir()]
        writer.add("clip2", made(2), "d")
        raise KeyboardInterrupt
    for file, content in kept:
        file.write_bytes(content)
    (tmp_path / "shard-00000.safetensors").unlink()
    assert sorted(FeatureStore(tmp_path).pending) == ["clip0", "clip1"]
    with store_writer(tmp_path) as writer:
        assert [writer.state(f"clip{number}", "d") for number in range(3)] == ["done", "done", "new"]
    assert all_right(FeatureStore(tmp_path)) and FeatureStore(tmp_path).check() == []


def test_a_damaged_pending_clip_is_told_and_extracted_anew(tmp_path, files, caplog):
    fill(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), store_writer(tmp_path / "s") as writer:
        for number in range(2):
            writer.add(f"clip{number}", made(number), "d")
        raise KeyboardInterrupt
    first = tmp_path / "s" / "pending" / "000-00000000.safetensors"
    first.write_bytes(first.read_bytes()[:-1])
    store = FeatureStore(tmp_path / "s")
    assert list(store) == ["clip1"] and store.pending == ("clip1",)
    (problem,) = store.check()
    assert problem.file == "pending/000-00000000.safetensors" and problem.what
    fill(tmp_path / "s")
    assert "000-00000000.safetensors" in caplog.text
    assert FeatureStore(tmp_path / "s").check() == [] and all_right(FeatureStore(tmp_path / "s"))


def test_a_check_reads_everything(tmp_path, monkeypatch):
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    spec = {"extractor": {**extractor.spec(), "fingerprint": extractor.fingerprint()}, "face": {}, "sampling": {}}
    clip = ClipFeatures(torch.rand(4, *extractor.out_shape), torch.ones(4, dtype=torch.bool), torch.arange(4.0))
    with StoreWriter(tmp_path, spec, "float16", extractor) as writer:
        for number in range(5):
            writer.add(f"clip{number}", clip, "d")
    seen = []
    assert FeatureStore(tmp_path).check(lambda done, total: seen.append((done, total))) == []
    total = FeatureStore(tmp_path).shard_bytes
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1] == (total, total)

    def problems_with(change: Callable[[dict], None]) -> list[str]:
        """What is wrong after a change of the index."""
        before = (tmp_path / "index.json").read_text()
        index = json.loads(before)
        change(index)
        (tmp_path / "index.json").write_text(json.dumps(index))
        found = [f"{problem.file} {problem.what}" for problem in FeatureStore(tmp_path).check()]
        (tmp_path / "index.json").write_text(before)
        return found

    first = "shard-00000.safetensors"
    (found,) = problems_with(lambda index: index["shards"][first].update(bytes=7))
    assert first in found and re.search(r"\b7\b", found)
    (found,) = problems_with(lambda index: index["shards"].pop(first))
    assert first in found and "clip" not in found
    (found,) = problems_with(lambda index: index["clips"]["clip1"].update(shard="shard-00001.safetensors"))
    assert "'clip1'" in found
    (found,) = problems_with(lambda index: index["clips"]["clip1"].update(landmarks=5))
    assert "'clip1'" in found

    tensors, shard = load_file(tmp_path / first), tmp_path / first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.isfinite", lambda x: x != x[0, 0])
        assert any(re.search(r"'clip0'.*\b0\b", problem.what) for problem in FeatureStore(tmp_path).check())
    save_file(tensors, shard)
    assert shard.name in {problem.file for problem in FeatureStore(tmp_path).check()}
    head = json.loads((tmp_path / "store.json").read_text())
    for change in ({"fingerprint": "0"}, {"trained_on": ["biovid/1"]}):
        (tmp_path / "store.json").write_text(json.dumps({**head, **change}))
        assert "store.json" in {problem.file for problem in FeatureStore(tmp_path).check()}
    (tmp_path / "store.json").write_text(json.dumps(head))
    other = TimmBackbone("test_resnet", input_size_px=32, seed=4)
    (tmp_path / "extractor.safetensors").unlink()
    save_file(dict(other.network.state_dict()), tmp_path / "extractor.safetensors")
    problem = FeatureStore(tmp_path).check()[-1]
    assert problem.file == "extractor.safetensors" and extractor.fingerprint() in problem.what


def test_the_lock_of_a_dead_process_is_in_nobodys_way(tmp_path, files):
    def killed() -> None:
        with store_writer(tmp_path / "s") as writer:
            writer.add("clip0", made(0), "d")
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WIFSIGNALED(in_child(killed))
    fill(tmp_path / "s")
    fill(tmp_path / "whole")
    assert files(tmp_path / "s") == files(tmp_path / "whole")


def test_without_file_locks_one_process_goes_on_with_a_warning(tmp_path, files, monkeypatch, caplog):
    fill(tmp_path / "whole")

    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    fill(tmp_path / "s")
    assert str(tmp_path / "s") in caplog.text and "No locks available" in caplog.text
    assert files(tmp_path / "s") == files(tmp_path / "whole")
    with (
        pytest.raises(PainseqError, match=re.escape(str(tmp_path / "s"))),
        StoreWriter(tmp_path / "s", {}, "uint8", PIXELS, process=lock.Process(1, 2)),
    ):
        pass


REPAIRS = {
    "a shard with another byte": (lambda out: flip(out / "shard-00000.safetensors"), "shard-00000.safetensors"),
    "a shard cut short": (lambda out: cut(out / "shard-00001.safetensors"), "shard-00001.safetensors"),
    "a lost shard": (lambda out: (out / "shard-00000.safetensors").unlink(), "shard-00000.safetensors"),
    "a shard that the index forgot": (
        lambda out: edit(out / "index.json", lambda index: index["shards"].pop("shard-00000.safetensors")),
        "shard-00000.safetensors",
    ),
    "a clip in another shard": (
        lambda out: edit(out / "index.json", lambda i: i["clips"]["clip1"].update(shard="shard-00009.safetensors")),
        "shard-00009.safetensors",
    ),
    "a clip at another place": (
        lambda out: edit(out / "index.json", lambda index: index["clips"]["clip1"].update(first=0)),
        "shard-00000.safetensors",
    ),
    "features of another shape": (
        lambda out: edit(out / "store.json", lambda header: header.update(out_shape=[3, 2, 4])),
        "store.json",
    ),
    "another fingerprint": (
        lambda out: edit(out / "store.json", lambda header: header.update(fingerprint="0" * 16)),
        "store.json",
    ),
    "a pending clip cut short": (lambda out: cut(pending(out)), "pending/000-00000000.safetensors"),
}


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def pending(out: Path) -> Path:
    """A copy of a shard, as a pending file."""
    (out / "pending").mkdir(exist_ok=True)
    file = out / "pending" / "000-00000000.safetensors"
    file.write_bytes((out / "shard-00000.safetensors").read_bytes())
    return file


@pytest.mark.parametrize("damage", REPAIRS)
def test_what_a_check_advises_repairs_the_store(tmp_path, damage):
    fill(tmp_path)
    make, file = REPAIRS[damage]
    make(tmp_path)
    problems = FeatureStore(tmp_path).check()
    assert file in {problem.file for problem in problems}
    for problem in problems:
        assert "`painseq extract`" in problem.repair
        if problem.repair.startswith("Delete it"):
            (tmp_path / problem.file).unlink(missing_ok=True)
    fill(tmp_path)
    store = FeatureStore(tmp_path)
    assert store.check() == [] and len(store) == len(LENGTHS) - 1 and all_right(store)


@pytest.mark.parametrize("content", ["{", "[]", '{"clips": {}}', None])
def test_a_damaged_index_is_made_anew_from_the_shards(tmp_path, content):
    fill(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    if content is None:
        (tmp_path / "index.json").unlink()
    else:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(PainseqError, match=r"index\.json.*`painseq extract`"):
        FeatureStore(tmp_path)
    (tmp_path / "index.json").unlink(missing_ok=True)
    fill(tmp_path)
    made_anew = json.loads((tmp_path / "index.json").read_text())
    assert made_anew["clips"] == index["clips"] and made_anew["shards"] == index["shards"]
    assert FeatureStore(tmp_path).check() == [] and FeatureStore(tmp_path).failed == {"clip5": "unreadable"}


@pytest.mark.parametrize("change", [Path.unlink, cut])
def test_lost_weights_are_written_again(tmp_path, change):
    extractor = TimmBackbone("test_resnet", input_size_px=32)
    spec = {"extractor": extractor.record(), "face": {}, "sampling": {}}
    with StoreWriter(tmp_path, spec, "float16", extractor):
        pass
    weights = tmp_path / "extractor.safetensors"
    if change is Path.unlink:
        edit(tmp_path / "store.json", lambda header: header["spec"]["extractor"]["init_args"].update(seed=7))
    change(weights)
    (problem,) = FeatureStore(tmp_path).check()
    assert problem.file == weights.name and problem.repair.startswith("Delete it")
    weights.unlink(missing_ok=True)
    with StoreWriter(tmp_path, spec, "float16", extractor):
        pass
    assert FeatureStore(tmp_path).check() == []
