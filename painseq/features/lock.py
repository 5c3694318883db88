"""The lock of a store or a folder of tracks: only one process, or the processes of one launch, may fill it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from painseq.errors import PainseqError
from painseq.files import NO_LOCKS, try_lock, unlock
from painseq.runs import Process

WAIT_S = 1.0
_PAUSE_S = 0.02
log = logging.getLogger("painseq")


class StoreLock:
    """The lock file .lock in the folder of a store or of tracks.

    The processes of a launch hold it shared; a process that is alone holds it exclusively for a moment, to tidy up. The
    file names the launch that held it last. Each process also locks its own file .lock-000, so that each rank is used
    only once. The system releases the locks when a process ends, even if it was killed.

    Args:
        folder: the folder, which exists.
        process: this process.
    """

    def __init__(self, folder: Path, process: Process) -> None:
        self._path = folder / ".lock"
        self._process = process
        self._held: IO[bytes] | None = None
        self._own: IO[bytes] | None = None

    def enter(self, when_alone: Callable[[], None], is_ready: Callable[[], bool]) -> None:
        """Acquire the lock until `leave`.

        Args:
            when_alone: called first, under the exclusive lock, if no other process fills the store.
            is_ready: whether the store exists; if not, this process waits until it can create it alone.

        Raises:
            PainseqError: another launch fills the store, or the file system has no locks.
        """
        give_up_s = time.monotonic() + WAIT_S
        while True:
            file = self._path.open("a+b")
            try:
                if self._entered(file, when_alone, is_ready):
                    return
                same_launch = self._process.count > 1 and self._names_this_launch(file)
            except BaseException:
                file.close()
                raise
            file.close()
            # A process of this launch is tidying up, without a time limit; if it dies, its lock is released.
            if not same_launch and time.monotonic() > give_up_s:
                raise PainseqError(
                    f"Another run is filling {self._path.parent}. Wait until it ends, or choose another folder."
                )
            time.sleep(_PAUSE_S)

    def _entered(self, file: IO[bytes], when_alone: Callable[[], None], is_ready: Callable[[], bool]) -> bool:
        try:
            was_exclusive = try_lock(file)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self._check_single_process(error)
            when_alone()
            file.close()
            return True
        if was_exclusive:
            self._write_launch(file)
            when_alone()
        # Changing from exclusive to shared is not atomic: another launch may get in between. A single process never
        # shares.
        may_share = was_exclusive or self._process.count > 1
        if may_share and try_lock(file, exclusive=False) and self._names_this_launch(file) and is_ready():
            self._hold_rank()
            self._held = file
            return True
        return False

    def _hold_rank(self) -> None:
        own = self._path.with_name(f".lock-{self._process.rank:03d}").open("wb")
        if not try_lock(own):
            own.close()
            raise PainseqError(
                f"Process {self._process.rank} of this launch is already filling {self._path.parent}. Check whether a "
                "process of an earlier launch is still running. Otherwise give each process a unique RANK, and each "
                "launch a unique MASTER_PORT."
            )
        self._own = own

    def leave(self, when_alone: Callable[[], None] | None) -> None:
        """Release the lock.

        Args:
            when_alone: called afterwards, under the exclusive lock, if no other process fills the store.
        """
        if self._held is None:
            if when_alone is not None:
                when_alone()
            return
        for held in (self._own, self._held):
            if held is not None:
                unlock(held)
        if when_alone is not None:
            file = self._path.open("a+b")
            try:
                if try_lock(file):
                    when_alone()
            finally:
                unlock(file)

    def _write_launch(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        file.write(self._process.run.encode())
        file.flush()
        # On a shared file system other processes read it without a lock.
        os.fsync(file.fileno())

    def _names_this_launch(self, file: IO[bytes]) -> bool:
        file.seek(0)
        return file.read() == self._process.run.encode()

    def _check_single_process(self, error: OSError) -> None:
        if self._process.count > 1:
            raise PainseqError(
                f"The file system of {self._path.parent} has no file locks ({error.strerror}), which several "
                "processes need to share a folder. Use one process, or a folder on another disk."
            ) from error
        log.warning(
            "The file system of %s has no file locks (%s): make sure that no other run fills this folder.",
            self._path.parent,
            error.strerror,
        )
