"""The folder of the cache, which the embedders of one machine share: who comes first puts it in order.

    opening.lock   held while somebody comes or goes
    users.lock     held by all who have the cache open, shared; who could have it alone is the first, or the last
    writing.lock   held while somebody writes: LMDB's own lock would wait for ever for one that was stopped
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
"""Of the records: another one's cache is discarded."""
CLOSED = b"closed"
BROKEN = b"broken"
UNCLEAN = 3
"""After so many starts in a row that did not end properly it is discarded: it may be what they died of."""
PATIENCE = 5.0
"""Seconds to wait for others who come or go."""
WRITE_PATIENCE = 1.0
"""Seconds to wait for others who write: longer than that, and it is quicker to do without."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Folder:
    """One process's part in it. `OSError` where it cannot be used, by whatever is in the way."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data = path / "vectors.lmdb"
        self.size = size
        self._state = path / "state"
        names = ("opening.lock", "users.lock", "writing.lock")
        self._locks = [open_lock(path / name) for name in names]
        self._opening, self._users, self._writing = self._locks

    @contextmanager
    def coming(self) -> Iterator[bool]:
        """Come in, and open the cache inside; yields whether nobody else has it open."""
        with held(self._opening, PATIENCE):
            first = acquire(self._users)
            if first:
                self._put_in_order()
            elif self._read()[3:] != [_namespace()]:
                raise OSError("it is in use in another PID namespace, and LMDB's locks work in one only")
            self.data.mkdir(mode=0o700, exist_ok=True)
            yield first
            acquire(self._users, within_s=PATIENCE, shared=True)

    def leave(self, *, broken: bool) -> None:
        """Go, with the cache closed; the last one says that it was closed properly, if nobody found it broken."""
        with held(self._opening, PATIENCE):
            if broken:
                self._write(BROKEN, UNCLEAN)
            elif acquire(self._users) and self._read()[1:2] != [BROKEN]:
                self._write(CLOSED, 0)
        self.close()

    def close(self) -> None:
        """Let go of all locks."""
        for descriptor in self._locks:
            os.close(descriptor)

    def discard(self) -> bool:
        """Delete what cannot be opened; False if others have it open."""
        with held(self._opening, PATIENCE):
            alone = acquire(self._users)
            if alone:
                shutil.rmtree(self.data, ignore_errors=True)
            release(self._users)
            return alone

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the others from writing."""
        with held(self._writing, WRITE_PATIENCE):
            yield

    def on_disk(self) -> int:
        """Bytes of the file."""
        file = self.data / "data.mdb"
        return file.stat().st_size if file.exists() else 0

    def _put_in_order(self) -> None:
        unclean = self._unclean()
        if unclean is None or unclean >= UNCLEAN or self.on_disk() > self.size:
            shutil.rmtree(self.data, ignore_errors=True)
            unclean = 0
        self._write(_boot(), unclean + 1)

    def _unclean(self) -> int | None:
        """How often in a row it was not closed; None if what is on the disk cannot be trusted."""
        try:
            version, state, times, _ = self._read()
            return int(times) if version == VERSION and state in {CLOSED, BROKEN, _boot()} else None
        except ValueError:
            return None

    def _read(self) -> list[bytes]:
        try:
            return self._state.read_bytes().split()
        except FileNotFoundError:
            return []

    def _write(self, state: bytes, unclean: int) -> None:
        with self._state.open("wb") as file:
            file.write(b"%b %b %d %b" % (VERSION, state, unclean, _namespace()))
            file.flush()
            os.fsync(file.fileno())


def _boot() -> bytes:
    """Which boot of the machine this is; a name of its own each time where that cannot be known."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return os.urandom(8).hex().encode()


def _namespace() -> bytes:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).encode()
    except OSError:
        return b"unknown"
