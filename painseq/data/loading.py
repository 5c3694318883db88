"""Order of the items in batches, and loaders of features or crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from painseq.batch import Batch, collate
from painseq.data.datasets import Drawn
from painseq.data.resident import ResidentClips


class Draw(NamedTuple):
    """An item of a dataset, with the number of the draw within the whole training, which seeds augmentation.

    A draw that is not `real` only pads a process's share of a batch: all of its frames are masked.
    """

    number: int
    item: int
    real: bool = True


class BatchOrder:
    """Items of each training batch of an epoch, as a function of seed and epoch only.

    So a resumed run draws the same items as an uninterrupted one. With several processes each takes every n-th item of
    a batch, so the number of processes does not change training. A batch that does not divide evenly is padded with
    fully masked clips.

    Args:
        items: indices to draw from; each once per epoch, unless there are weights.
        batch_size: items per batch, over all processes.
        seed: seed of the order.
        weights: sampling weight of each item, drawn with replacement; None shuffles.
        process: number of this process.
        processes: number of processes.
    """

    def __init__(
        self,
        items: Sequence[int],
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.items = list(items)
        self.batch_size = batch_size
        self.seed = seed
        self.weights = weights
        self.process = process
        self.processes = processes
        self.epoch = 0

    @property
    def sampler(self) -> BatchOrder:
        """This object: Lightning calls `sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is drawn next; each complete iteration advances it by one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        random = np.random.default_rng([self.seed, self.epoch])
        count = len(self.items)
        if self.weights is None:
            order = random.permutation(count)
        else:
            probabilities = np.asarray(self.weights) / np.sum(self.weights)
            order = random.choice(count, size=count, p=probabilities)
        drawn_before = self.epoch * count
        draws = [Draw(drawn_before + number, self.items[index]) for number, index in enumerate(order)]
        for first in range(0, count, self.batch_size):
            batch = draws[first : first + self.batch_size]
            batch += [batch[0]._replace(real=False)] * (-len(batch) % self.processes)
            yield batch[self.process :: self.processes]
        self.epoch += 1


def in_order(items: int, batch_size: int, process: int = 0, processes: int = 1) -> list[list[Draw]]:
    """Return batches for evaluation: every item once, in order; each process takes every n-th item."""
    draws = [Draw(item, item) for item in range(process, items, processes)]
    return [draws[first : first + batch_size] for first in range(0, len(draws), batch_size)]


class ResidentLoader:
    """Batches gathered from features on the device, without loader processes or a copy per batch.

    Args:
        clips: the features.
        batch_sampler: the batches of an epoch; Lightning sets the epoch of its `sampler`.
        device: device that the features are copied to, once.
    """

    def __init__(
        self, clips: ResidentClips, batch_sampler: BatchOrder | list[list[Draw]], device: torch.device | str
    ) -> None:
        self.clips = clips.to(device)
        self.batch_sampler = batch_sampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        for draws in self.batch_sampler:
            yield self.clips.batch([draw.item for draw in draws], [draw.real for draw in draws])


class CropLoader:
    """Batches of crops, read by worker processes or by this one.

    Wraps a DataLoader so that its iterator is made with the first batch, and draws no global random number. Lightning
    makes the iterator of a fit's first epoch before it sets the epoch, which would change the order of a resumed run.

    Args:
        crops: the dataset.
        batch_sampler: the batches of an epoch, as in `ResidentLoader`.
        num_workers: worker processes; 0 reads in this process.
        keeps_workers: whether the workers, which take seconds to start, wait for a further pass, or end with the last
            batch.
    """

    def __init__(
        self, crops: Drawn, batch_sampler: BatchOrder | list[list[Draw]], num_workers: int, keeps_workers: bool = False
    ) -> None:
        self.batch_sampler = batch_sampler
        self.loader: DataLoader[Batch] = DataLoader(
            crops,  # type: ignore[arg-type]
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            # Decoders opened before a fork can hang in the child.
            multiprocessing_context="spawn" if num_workers else None,
            persistent_workers=keeps_workers and num_workers > 0,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.loader
