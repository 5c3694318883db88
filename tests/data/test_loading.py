"""Batches: who is drawn when, on how many processes, and what is gathered."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from painseq.batch import collate
from painseq.data.labels import label_scheme
from painseq.data.loading import BatchOrder, in_order
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.resident import Resident, ResidentClips
from painseq.data_modules import AI4Pain
from painseq.records import Clip

INNER = SplitOptions(protocol="official_inner")


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_draws_every_item_once(count, batch_size, seed, epoch):
    order = BatchOrder(range(100, 100 + count), batch_size, seed)
    order.set_epoch(epoch)
    batches = list(order)
    assert len(batches) == len(order) and all(1 <= len(batch) <= batch_size for batch in batches)
    draws = [draw for batch in batches for draw in batch]
    assert sorted(draw.item for draw in draws) == list(range(100, 100 + count))
    assert [draw.number for draw in draws] == list(range(epoch * count, (epoch + 1) * count))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_processes_share_each_batch_and_take_equally_many_steps(count, batch_size, processes):
    one = list(BatchOrder(range(count), batch_size, 7))
    shares = [list(BatchOrder(range(count), batch_size, 7, None, rank, processes)) for rank in range(processes)]
    assert {len(share) for share in shares} == {len(one)}
    for step, whole in enumerate(one):
        mine = [share[step] for share in shares]
        assert len({len(part) for part in mine}) == 1
        drawn = [draw for part in mine for draw in part]
        assert sorted(draw for draw in drawn if draw.real) == sorted(whole)
        assert sum(not draw.real for draw in drawn) == -len(whole) % processes


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_scoring_takes_every_item_once_whoever_scores_it(count, batch_size, processes):
    shares = [in_order(count, batch_size, rank, processes) for rank in range(processes)]
    items = [draw.item for share in shares for batch in share for draw in batch]
    assert sorted(items) == list(range(count))
    assert [draw.item for batch in in_order(count, batch_size) for draw in batch] == list(range(count))


def test_the_order_is_of_the_seed_and_the_epoch_alone():
    def epochs(order: BatchOrder, numbers: list[int]) -> list[list[int]]:
        drawn = []
        for number in numbers:
            order.set_epoch(number)
            drawn.append([draw.item for batch in order for draw in batch])
        return drawn

    first = epochs(BatchOrder(range(30), 4, 1), [0, 1, 2])
    assert epochs(BatchOrder(range(30), 4, 1), [2]) == first[2:] and first[0] != first[1]
    assert epochs(BatchOrder(range(30), 7, 1), [0]) == first[:1] != epochs(BatchOrder(range(30), 4, 2), [0])


def test_a_gathered_batch_is_the_collated_one(electrical, store):
    data = AI4Pain(electrical, DataOptions(split=INNER, store=store))
    clips = data.dataset("train")
    indices = [5, 0, 3, 3]
    gathered, stacked = clips.batch(indices), collate([clips[index] for index in indices])
    assert gathered.clip_ids == stacked.clip_ids and gathered.subject_ids == stacked.subject_ids
    for name in ("features", "mask", "target", "lengths", "times_s"):
        assert torch.equal(getattr(gathered, name), getattr(stacked, name)), name


def test_a_clip_that_fills_up_a_batch_has_no_frame(electrical, store):
    clips = AI4Pain(electrical, DataOptions(split=INNER, store=store)).dataset("train")
    batch = clips.batch([3, 3], [True, False])
    assert batch.mask[0].any() and not batch.mask[1].any() and not batch.features[1].any()
    assert clips.batch([3], [False]).mask.shape == (1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_clips_of_other_lengths_are_padded_with_zeros(dtype):
    lengths = {"a": 3, "b": 5, "c": 1, "d": 4}
    ends = np.cumsum([*lengths.values()]).tolist()
    rows = ends[-1] + 1
    frames = torch.arange(1, 1 + rows * 2).reshape(rows, 2).to(dtype)
    frames[-1] = 0
    present = torch.arange(rows) % 3 != 1
    present[-1] = False
    resident = Resident(frames, present, torch.arange(rows, dtype=torch.float64))
    items = [
        (Clip(name, "s", "x.mp4", "Low_Pain"), end - length, length)
        for (name, length), end in zip(lengths.items(), ends, strict=True)
    ]
    clips = ResidentClips(items, resident, label_scheme("ai4pain", "three", AI4Pain.facts))
    batch = clips.batch([3, 1, 2])
    assert batch.features.dtype == dtype and batch.features.shape == (3, 5, 2)
    for row, name in enumerate(("d", "b", "c")):
        first, length = {clip.clip_id: (start, n) for clip, start, n in items}[name]
        assert torch.equal(batch.features[row, :length], frames[first : first + length])
        assert torch.equal(batch.mask[row, :length], present[first : first + length])
        assert not batch.features[row, length:].any() and not batch.mask[row, length:].any()
        assert int(batch.lengths[row]) == length
    assert batch.target.tolist() == [1, 1, 1]
