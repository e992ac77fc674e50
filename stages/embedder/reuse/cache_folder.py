"""The folder of the cache, which the embedders of one machine share: the first one to open it tidies it.

    users.lock     held by all who have the cache open, shared; who can have it alone is the first, or the last
    changes.lock   held while a process opens, closes, discards or writes: LMDB's own lock would wait without end for
                   a process that was stopped while it wrote
    state          version, state, starts in a row that did not end properly, PID namespace

The cache is written without waiting for the disk, so a crash of the machine may leave any state behind, though a crash
of a process does not. `state` says in which boot of the machine the cache was last open: if that was another one, and
it was not closed properly, it is discarded unread.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.ownership import acquire, held, open_lock, release

VERSION = b"2"
"""Version of the records: a cache with another one is discarded."""
CLOSED = b"closed"
BROKEN = b"broken"
MAX_UNCLEAN_STARTS = 3
"""After this number of starts in a row that did not end properly the cache is discarded: it may be the cause."""
OPEN_TIMEOUT_S = 5.0
"""Seconds to wait for other processes before opening or closing."""
WRITE_TIMEOUT_S = 1.0
"""Seconds to wait for other processes before writing: after that it is quicker to go on without the cache."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class CacheFolder:
    """One process's access to the folder. All methods raise `OSError` if the folder cannot be used."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data = path / "vectors.lmdb"
        self.size = size
        self._state = path / "state"
        self._locks = [open_lock(path / name) for name in ("users.lock", "changes.lock")]
        self._users, self._changes = self._locks

    @contextmanager
    def opening(self) -> Iterator[bool]:
        """Open the cache inside this context; yields whether no other process has it open."""
        with held(self._changes, OPEN_TIMEOUT_S):
            first = acquire(self._users)
            if first:
                self._tidy()
            elif self._read_state()[3:] != [_namespace()]:
                raise OSError("it is in use in another PID namespace, and LMDB's locks work in one only")
            self.data.mkdir(mode=0o700, exist_ok=True)
            yield first
            acquire(self._users, within_s=OPEN_TIMEOUT_S, shared=True)

    def leave(self, *, broken: bool) -> None:
        """Leave the folder after the cache was closed; the last process notes that it was closed properly."""
        with held(self._changes, OPEN_TIMEOUT_S):
            if broken:
                self._write_state(BROKEN, MAX_UNCLEAN_STARTS)
            elif acquire(self._users) and self._read_state()[1:2] != [BROKEN]:
                self._write_state(CLOSED, 0)
        self.close()

    def close(self) -> None:
        """Release all locks."""
        for descriptor in self._locks:
            os.close(descriptor)

    def discard(self) -> bool:
        """Delete a cache that cannot be opened; False if other processes have it open."""
        with held(self._changes, OPEN_TIMEOUT_S):
            alone = acquire(self._users)
            if alone:
                shutil.rmtree(self.data, ignore_errors=True)
            release(self._users)
            return alone

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other processes from writing; raises `TimeoutError` if one of them does not finish."""
        with held(self._changes, WRITE_TIMEOUT_S):
            yield

    def _tidy(self) -> None:
        unclean = self._unclean_starts()
        file = self.data / "data.mdb"
        if unclean is None or unclean >= MAX_UNCLEAN_STARTS or (file.exists() and file.stat().st_size > self.size):
            shutil.rmtree(self.data, ignore_errors=True)
            unclean = 0
        self._write_state(_boot(), unclean + 1)

    def _unclean_starts(self) -> int | None:
        """Return how often in a row it was not closed; None if what is on the disk cannot be trusted."""
        try:
            version, state, times, _ = self._read_state()
            return int(times) if version == VERSION and state in {CLOSED, BROKEN, _boot()} else None
        except ValueError:
            return None

    def _read_state(self) -> list[bytes]:
        try:
            return self._state.read_bytes().split()
        except FileNotFoundError:
            return []

    def _write_state(self, state: bytes, unclean: int) -> None:
        with self._state.open("wb") as file:
            file.write(b"%b %b %d %b" % (VERSION, state, unclean, _namespace()))
            file.flush()
            os.fsync(file.fileno())


def _boot() -> bytes:
    """Identify this boot of the machine; a new random name each time if the kernel does not tell."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return os.urandom(8).hex().encode()


def _namespace() -> bytes:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).encode()
    except OSError:
        return b"unknown"
