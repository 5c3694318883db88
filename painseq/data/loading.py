"""Which clips make up each batch, and batches gathered from features that lie on the device."""

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
    """An item of a data set, and which draw of the whole training this is: augmentation is seeded by it.

    One that is not `real` fills up a process's share of a batch: all of its frames are masked.
    """

    number: int
    item: int
    real: bool = True


class BatchOrder:
    """Which items make up each training batch of an epoch: a function of seed and epoch alone.

    So a run that is resumed draws what it would have drawn. With several processes a batch is shared out among them,
    each taking every n-th of its items: training on many processes is training on one. A batch that does not divide
    evenly is filled up with clips that are masked as a whole.

    Args:
        items: indices to draw from; each once an epoch, unless there are weights.
        batch_size: items a batch, over all processes.
        weights: chance of each item, drawn with replacement; None shuffles.
        process: number of this process, of `processes`.
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
        """Itself: where Lightning looks for whom to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is drawn next; drawing all of one moves on to the one after it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        random = np.random.default_rng([self.seed, self.epoch])
        count = len(self.items)
        if self.weights is None:
            order = random.permutation(count)
        else:
            chances = np.asarray(self.weights) / np.sum(self.weights)
            order = random.choice(count, size=count, p=chances)
        before = self.epoch * count
        draws = [Draw(before + place, self.items[index]) for place, index in enumerate(order)]
        for first in range(0, count, self.batch_size):
            batch = draws[first : first + self.batch_size]
            batch += [batch[0]._replace(real=False)] * (-len(batch) % self.processes)
            yield batch[self.process :: self.processes]
        self.epoch += 1


def in_order(items: int, batch_size: int, process: int = 0, processes: int = 1) -> list[list[Draw]]:
    """Batches for scoring: every item once, in order; a process's share is every n-th item."""
    mine = [Draw(item, item) for item in range(process, items, processes)]
    return [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]


class ResidentLoader:
    """Batches gathered on the device from features that lie there; no loader process, no copy a batch.

    Args:
        batch_sampler: the batches of an epoch; Lightning tells its `sampler` which one.
        device: where the features go, once.
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
    """Batches of crops, read by other processes or by this one.

    A DataLoader whose iterators are made when the first batch is asked for, and draw no random number: Lightning makes
    that of a fit's first epoch before it tells which epoch that is, which would give a resumed run another order.

    Args:
        batch_sampler: as for `ResidentLoader`.
        num_workers: processes that read; 0 reads in this one.
    """

    def __init__(self, crops: Drawn, batch_sampler: BatchOrder | list[list[Draw]], num_workers: int) -> None:
        self.batch_sampler = batch_sampler
        self.loader: DataLoader[Batch] = DataLoader(
            crops,  # type: ignore[arg-type]
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            # Decoders opened before a fork can hang in the child.
            multiprocessing_context="spawn" if num_workers else None,
            persistent_workers=num_workers > 0,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.loader
