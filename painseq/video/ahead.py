"""Work ahead in threads, connected by queues that an interrupt cannot damage."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

POLL_S = 0.01
_JOIN_TIMEOUT_S = 10.0

J = TypeVar("J")
T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded queue between threads: iterate over it in one thread, `put` from others, `close` from any.

    `queue.Queue` is written in Python. An interrupt (Ctrl-C) that arrives while the main thread holds its lock leaves
    it locked, and every thread waits forever. `SimpleQueue` has no such moment; its length is polled.

    Args:
        depth: items that may wait; with several threads that put, a few more.
    """

    def __init__(self, depth: int) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()
        self._depth = depth
        self._closed = False

    def put(self, item: T) -> bool:
        """Append an item, waiting while the queue is full; return false, without the item, once it is closed."""
        while not self._closed:
            if self._items.qsize() < self._depth:
                self._items.put(item)
                return True
            time.sleep(POLL_S)
        return False

    def close(self) -> None:
        """Accept no more items; iteration ends after those that wait."""
        self._closed = True

    def __iter__(self) -> Iterator[T]:
        while True:
            # Read first: an item may come between an empty queue and closing it.
            closed = self._closed
            try:
                item = self._items.get(timeout=POLL_S)
            except Empty:
                if closed:
                    return
                continue
            yield item


def read_ahead(
    jobs: Iterable[J], read: Callable[[J], Iterable[T]], workers: int, depth: int
) -> Generator[T, None, None]:
    """Yield the items of `read` for each job, read ahead by threads; with several threads, jobs are interleaved.

    Close the generator to stop the threads early; an error in one of them is raised here.

    Args:
        jobs: the jobs to read.
        read: yields the items of one job.
        workers: number of threads, 1 or more.
        depth: maximum number of waiting items.
    """
    waiting: Channel[T | BaseException | None] = Channel(depth)
    lock, remaining_jobs = Lock(), iter(jobs)

    def work() -> None:
        try:
            while True:
                with lock:
                    job = next(remaining_jobs, None)
                if job is None:
                    break
                for item in read(job):
                    if not waiting.put(item):
                        return
        except BaseException as error:
            waiting.put(error)
        else:
            waiting.put(None)

    threads = [Thread(target=work, name="reader", daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        running = workers
        for item in waiting:
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                yield item
                continue
            running -= 1
            if not running:
                return
    finally:
        waiting.close()
        give_up_s = time.monotonic() + _JOIN_TIMEOUT_S
        while any(thread.is_alive() for thread in threads) and time.monotonic() < give_up_s:
            time.sleep(POLL_S)
