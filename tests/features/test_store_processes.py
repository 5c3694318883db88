"""Several processes fill one store, come, go and die; the clips are the same."""

import fcntl
import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from painseq.errors import PainseqError
from painseq.extractors import Pixels
from painseq.features import ClipFeatures, FeatureStore, StoreWriter, lock, shards
from painseq.runs import Process

PIXELS = Pixels(2)
CLIPS = 12


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)
    monkeypatch.setattr(lock, "WAIT_S", 0.05)


def made(number: int) -> ClipFeatures:
    frames = 1 + number % 3
    crops = torch.full((frames, *PIXELS.out_shape), number, dtype=torch.uint8)
    landmarks = torch.full((frames, 5, 2), float(number)) if number % 2 else None
    present = torch.ones(frames, dtype=torch.bool)
    return ClipFeatures(crops, present, torch.arange(frames, dtype=torch.float64), landmarks)


def store_writer(out: Path, process: Process | None = None, fps: float = 5.0) -> StoreWriter:
    spec = {"extractor": {**PIXELS.spec(), "fingerprint": PIXELS.fingerprint()}, "face": {}, "sampling": {"fps": fps}}
    return StoreWriter(out, spec, "uint8", PIXELS, process=process)


def add(writer: StoreWriter, number: int) -> None:
    if number == 7:
        writer.fail("clip7", "unreadable")
    elif writer.state(f"clip{number}", "d") == "new":
        writer.add(f"clip{number}", made(number), "d")


def all_right(store: FeatureStore) -> bool:
    return all(
        torch.equal(store[clip_id].features, made(int(clip_id.removeprefix("clip"))).features) for clip_id in store
    )


def is_whole(out: Path) -> bool:
    """Every clip is there, in shards, and one index holds them."""
    store = FeatureStore(out)
    names = {f"clip{number}" for number in range(CLIPS)} - {"clip7"}
    kinds = {file.name.split("-")[0] for file in out.iterdir()}
    return (
        {*store} == names
        and store.failed == {"clip7": "unreadable"}
        and all_right(store)
        and store.pending == ()
        and store.check() == []
        and kinds == {".lock", "store.json", "index.json", "pending", "shard"}
        and not any((out / "pending").iterdir())
    )


class Rank:
    """One process of a launch, which does its share clip by clip."""

    def __init__(self, out: Path, process: Process) -> None:
        self.todo = [*range(process.rank, CLIPS, process.count)]
        self.writer = store_writer(out, process)
        self.writer.__enter__()
        self.left = False

    def step(self) -> None:
        if self.todo:
            add(self.writer, self.todo.pop(0))
        elif not self.left:
            self.left = True
            self.writer.__exit__(None, None, None)

    def die(self) -> None:
        """As killed: nothing is put in order, and the system takes the lock away."""
        if not self.left:
            self.writer.begin("half", "d").append(torch.zeros(1, *PIXELS.out_shape))
            self.writer._lock._own.close()
            self.writer._lock._held.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.lists(st.tuples(st.integers(0, 2), st.sampled_from([True] * 9 + [False])), max_size=25),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_ranks_that_come_go_and_die_leave_the_same_clips(tmp_path_factory, launches):
    """Launches of one to three processes, whose steps interleave; some die in the middle, and may be started again in
    the same launch."""
    out = tmp_path_factory.mktemp("store")
    for number, (count, steps, finishes) in enumerate(launches):
        ranks: dict[int, Rank] = {}
        for step, lives in steps:
            rank = step % count
            if rank not in ranks:
                ranks[rank] = Rank(out, Process(rank, count, run=f"run{number}"))
            elif not lives:
                ranks.pop(rank).die()
            else:
                ranks[rank].step()
            assert all_right(FeatureStore(out))
        for process in ranks.values():
            while finishes and not process.left:
                process.step()
            process.die()
        if ranks:
            before = {*FeatureStore(out)}
            assert all_right(FeatureStore(out))
            with store_writer(out):
                pass
            assert {*FeatureStore(out)} == before
    with store_writer(out) as writer:
        for number in range(CLIPS):
            add(writer, number)
    assert is_whole(out)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_store(tmp_path, count):
    """Real processes, which neither wait for each other nor see each other's clips."""
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with store_writer(tmp_path, Process(rank, count, run="together")) as writer:
                    for number in range(rank, CLIPS, count):
                        add(writer, number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count
    assert is_whole(tmp_path)


def test_a_dead_rank_stops_nobody_and_the_next_run_completes_the_store(tmp_path):
    first, second = (Rank(tmp_path, Process(rank, 2, run="a")) for rank in (0, 1))
    for _ in range(2):
        first.step()
    while not second.left:
        second.step()
    # The other half is there although the first process still holds the store.
    assert {"clip0", "clip2", "clip1", "clip11"} <= {*FeatureStore(tmp_path)}
    first.die()
    again = Rank(tmp_path, Process(0, 2, run="b"))
    while not again.left:
        again.step()
    assert is_whole(tmp_path)


def test_a_rank_started_again_goes_on_while_the_others_work(tmp_path):
    first, second = (Rank(tmp_path, Process(rank, 2, run="a")) for rank in (0, 1))
    for _ in range(5):
        first.step()
        second.step()
    first.die()
    again = Rank(tmp_path, Process(0, 2, run="a"))
    states = [again.writer.state(f"clip{number}", "d") for number in (0, 2, 8, 10)]
    assert states == ["done", "done", "done", "new"]
    for rank in (again, second):
        while not rank.left:
            rank.step()
    assert is_whole(tmp_path)
    assert len(FeatureStore(tmp_path).digests) == 4


def test_a_shard_that_no_index_names_goes(tmp_path):
    with store_writer(tmp_path) as writer:
        for number in range(CLIPS):
            add(writer, number)
    # As left by a process that was killed before its index, and whose clips went into another shard.
    (tmp_path / "shard-00009.safetensors").write_bytes((tmp_path / "shard-00000.safetensors").read_bytes())
    with store_writer(tmp_path):
        pass
    assert is_whole(tmp_path) and not (tmp_path / "shard-00009.safetensors").exists()


def test_another_launch_is_refused(tmp_path):
    shared = [Rank(tmp_path, Process(rank, 2, run="a")) for rank in (0, 1)]
    for stranger in (Process(0, 2, run="b"), Process(), None):
        with pytest.raises(PainseqError, match=re.escape(str(tmp_path))), store_writer(tmp_path, stranger):
            pass
    for rank in shared:
        while not rank.left:
            rank.step()
    assert is_whole(tmp_path)
    alone = Process()
    with store_writer(tmp_path, alone):
        for other in (Process(1, 2, run="a"), Process(), alone):
            with pytest.raises(PainseqError, match=re.escape(str(tmp_path))), store_writer(tmp_path, other):
                pass


def test_a_rank_of_another_pipeline_is_refused(tmp_path):
    with (
        store_writer(tmp_path, Process(0, 2, run="a")),
        pytest.raises(PainseqError, match=r"(?s)(?=.*sampling\.fps)(?=.*\b5\.0\b)(?=.*\b25\.0\b)"),
        store_writer(tmp_path, Process(1, 2, run="a"), fps=25.0),
    ):
        pass
    # The refused one let go of the lock.
    with store_writer(tmp_path):
        pass


def test_a_launch_that_slips_in_between_two_locks_has_the_store(tmp_path, monkeypatch):
    """The change from an exclusive to a shared lock lets go of the first before it takes the second."""
    flock, inside = fcntl.flock, []

    def slow(file, operation):
        if operation == fcntl.LOCK_SH | fcntl.LOCK_NB and not inside:
            flock(file, fcntl.LOCK_UN)
            inside.append(store_writer(tmp_path, Process(0, 2, run="quick")))
            monkeypatch.setattr(fcntl, "flock", flock)
            inside[0].__enter__()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(PainseqError, match=re.escape(str(tmp_path))), store_writer(tmp_path):
        pass
    inside[0].__exit__(None, None, None)


def test_landmarks_that_differ_between_processes_are_told(tmp_path):
    few, many = (store_writer(tmp_path, Process(rank, 2, run="a")) for rank in (0, 1))
    crops = torch.zeros(1, *PIXELS.out_shape, dtype=torch.uint8)
    with few, many:
        for writer, points in ((few, 5), (many, 68)):
            clip = ClipFeatures(crops, torch.ones(1, dtype=torch.bool), torch.zeros(1), torch.zeros(1, points, 2))
            writer.add(f"{points} points", clip, "d")
    (problem,) = FeatureStore(tmp_path).check()
    assert all(part in problem.what for part in ("'68 points'", "landmarks")) and re.search(r"\b5\b", problem.what)


def test_the_same_rank_twice_is_refused(tmp_path):
    with store_writer(tmp_path, Process(0, 2, run="a")) as first:
        add(first, 0)
        with (
            pytest.raises(PainseqError, match=r"(?s)(?=.*\b0\b)(?=.*\bRANK\b)"),
            store_writer(tmp_path, Process(0, 2, run="a")),
        ):
            pass
        with store_writer(tmp_path, Process(1, 2, run="a")) as second:
            add(second, 1)
        add(first, 2)
    assert {*FeatureStore(tmp_path)} == {"clip0", "clip1", "clip2"} and all_right(FeatureStore(tmp_path))


def test_processes_that_found_other_landmarks_die_and_one_goes_on(tmp_path):
    five, eight = (ClipFeatures(**{**vars(made(1)), "landmarks": torch.ones(2, n, 2)}) for n in (5, 8))
    ranks = [Rank(tmp_path, Process(rank, 2, run="a")) for rank in (0, 1)]
    ranks[0].writer.add("five", five, "d")
    ranks[1].writer.add("eight", eight, "d")
    for rank in ranks:
        rank.die()
    with store_writer(tmp_path) as writer:
        kept = {"five", "eight", "more"} - ({"more"} if writer.state("more", "d") == "done" else set())
        writer.add("more", made(0), "d")
    store = FeatureStore(tmp_path)
    assert {*store} == kept
    for clip_id in store:
        assert store[clip_id].present.all()


def test_a_clip_that_is_another_processes_now_is_not_brought_back(tmp_path):
    """Left pending by one launch, changed since, and in the next launch the share of another rank."""
    first = Rank(tmp_path, Process(1, 2, run="a"))
    first.writer.add("clip3", made(0), "old")
    first.die()
    one = store_writer(tmp_path, Process(1, 3, run="b"))
    one.__enter__()
    with store_writer(tmp_path, Process(0, 3, run="b")) as zero:
        assert zero.state("clip3", "new") == "changed"
        zero.add("clip3", made(3), "new")
    one.__exit__(None, None, None)
    assert torch.equal(FeatureStore(tmp_path)["clip3"].features, made(3).features)
    with store_writer(tmp_path) as writer:
        assert writer.state("clip3", "new") == "done"


def test_what_a_process_writes_after_leaving_is_not_tidied_away(tmp_path):
    with store_writer(tmp_path) as writer:
        add(writer, 0)
    record, index = tmp_path / ".manifest.csv.0.partial", tmp_path / ".index.json.0.partial"
    for partial in (record, index):
        partial.touch()
    with store_writer(tmp_path) as writer:
        add(writer, 1)
    assert record.exists() and not index.exists()
