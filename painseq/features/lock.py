"""Who may fill a store: one process, or the processes of one launch."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from painseq.errors import PainseqError
from painseq.runs import Process

PATIENCE_S = 1.0
_PAUSE_S = 0.02
log = logging.getLogger("painseq")


class StoreLock:
    """The file .lock in a store's folder.

    The processes of a launch hold it together, shared; whoever happens to be alone holds it exclusively for a moment,
    to tidy up. The file names the launch that held it last. Each process also holds a file of its own, .lock-000, so
    that no rank is there twice. The system lets go of locks whichever way a process ends, so one that was killed is in
    nobody's way.

    Args:
        folder: of the store.
        process: this one.
    """

    def __init__(self, folder: Path, process: Process) -> None:
        self._path = folder / ".lock"
        self._process = process
        self._held: IO[bytes] | None = None
        self._own: IO[bytes] | None = None

    def enter(self, alone: Callable[[], None], is_ready: Callable[[], bool]) -> None:
        """Hold the lock until `leave`.

        Args:
            alone: called first if no other process fills the store, while none can enter.
            is_ready: whether the store is there; else this process waits until it can make it alone.

        Raises:
            PainseqError: another launch fills the store, or the file system cannot tell.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            file = self._path.open("a+b")
            try:
                if self._entered(file, alone, is_ready):
                    return
                ours = self._process.count > 1 and self._is_ours(file)
            except BaseException:
                file.close()
                raise
            file.close()
            # One of this launch is tidying up, however long that takes; if it dies, its lock goes.
            if not ours and time.monotonic() > give_up_s:
                raise PainseqError(
                    f"Another extraction is filling {self._path.parent}. Wait until it ends, or give another folder."
                )
            time.sleep(_PAUSE_S)

    def _entered(self, file: IO[bytes], alone: Callable[[], None], is_ready: Callable[[], bool]) -> bool:
        try:
            was_alone = self._lock(file, exclusive=True)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            self._without_locks(error)
            alone()
            file.close()
            return True
        if was_alone:
            self._sign(file)
            alone()
        # The change from exclusive to shared is not one step: another launch may get in between. A single process
        # shares with nobody.
        may_share = was_alone or self._process.count > 1
        if may_share and self._lock(file, exclusive=False) and self._is_ours(file) and is_ready():
            self._hold_rank()
            self._held = file
            return True
        return False

    def _hold_rank(self) -> None:
        own = self._path.with_name(f".lock-{self._process.rank:03d}").open("wb")
        if not self._lock(own, exclusive=True):
            own.close()
            raise PainseqError(
                f"Process {self._process.rank} of this launch is filling {self._path.parent} already. Does a process "
                "of an earlier launch still live? Otherwise give each process a RANK of its own, and each launch a "
                "MASTER_PORT of its own."
            )
        self._own = own

    def leave(self, alone: Callable[[], None] | None) -> None:
        """Let go of the lock.

        Args:
            alone: called afterwards if no other process fills the store, while none can enter.
        """
        if self._held is None:
            if alone is not None:
                alone()
            return
        import fcntl

        # Closing alone would leave the lock to a forked child, which shares the open file.
        for file in (self._own, self._held):
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_UN)
                file.close()
        if alone is not None:
            with self._path.open("a+b") as file:
                if self._lock(file, exclusive=True):
                    alone()
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _lock(self, file: IO[bytes], exclusive: bool) -> bool:
        import fcntl  # POSIX only, and reading a store needs none of it.

        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _sign(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        file.write(self._process.run.encode())
        file.flush()
        # On a shared file system the others read it without a lock.
        os.fsync(file.fileno())

    def _is_ours(self, file: IO[bytes]) -> bool:
        file.seek(0)
        return file.read() == self._process.run.encode()

    def _without_locks(self, error: OSError) -> None:
        if self._process.count > 1:
            raise PainseqError(
                f"The file system of {self._path.parent} has no file locks ({error.strerror}), by which several "
                "processes share a store. Extract with one process, or into a folder on another disk."
            ) from error
        log.warning(
            "The file system of %s has no file locks (%s): take care that no other extraction fills this store.",
            self._path.parent,
            error.strerror,
        )
