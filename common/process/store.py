"""Durable storage: one LMDB environment for each stage that needs one.

Writes are collected during a turn of the loop and committed together, before any message that depends on them is sent
(docs/architecture.md, rule 4). A turn either commits itself, or hands its writes to a thread (`committer`).

Both sync flags of LMDB are on. A commit flushes the data (`fdatasync`), then writes the meta page that points to it
through a descriptor opened with `O_DSYNC`, then returns. Data is never overwritten in place. So a power cut can lose
only an uncommitted turn, and cannot corrupt the store. According to LMDB's documentation, `metasync=False` would halve
the flushes but may lose the last commit, `sync=False` may corrupt the store, and with `writemap` a full disk crashes
the process. Measured cost for values of 6 kB: 331 µs for a single one, 4.8 µs each in a batch of 512.

If the disk is full or a write fails, the commit raises `Fatal`. Nothing of that turn is sent; the process stops, and at
its next start reads what was committed before. Opening a store begins with a commit, so a stage whose disk is still
full stops again before it does any work. A failed read of a mapped page is not an error code but SIGBUS: the kernel
kills the process, with the same consequences.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec

from common.failures.errors import Fatal
from common.ownership import is_owned, own, private_directory

T = TypeVar("T")
Writes = list[tuple[str, bytes, bytes | None]]
"""Each a database, a key, and a value; None deletes the record."""

VERSION = 1
"""Version of the records in all stores. Increase it when older code would misread new records, or the reverse."""
VERSION_KEY = b"version"
OWNER = "owner.lock"
"""The lock file in a store's folder; locked by the process that owns the store."""
MAP_SIZE_BYTES = 2**30
"""Initial size of the map in address space. The file is only as large as its content; a full map is doubled."""


class Store:
    """One LMDB environment with named databases. The process that created this object is its only writer."""

    def __init__(self, state_dir: Path, name: str, databases: tuple[str, ...], map_size: int = MAP_SIZE_BYTES) -> None:
        private_directory(state_dir, "STATE_DIR")
        self.path = private_directory(state_dir / name, "STATE_DIR")
        self._lock = own(self.path / OWNER, f"STATE_DIR: the store {self.path}")
        self._writes: Writes = []
        self._taken: deque[Writes] = deque()
        """Writes that were taken, and are not committed yet."""
        self._resizing = threading.Lock()
        """No transaction may be open in this process while the map is made larger."""
        try:
            self._open(databases, map_size)
        except (lmdb.Error, OSError) as error:
            os.close(self._lock)
            raise _fatal(self.path, "opened", error) from error
        except Fatal:
            os.close(self._lock)
            raise

    def put(self, database: str, key: bytes, value: bytes) -> None:
        """Write a record at the end of this turn."""
        self._writes.append((database, key, value))

    def delete(self, database: str, key: bytes) -> None:
        """Delete a record, if it is there, at the end of this turn."""
        self._writes.append((database, key, None))

    def get(self, database: str, key: bytes) -> bytes | None:
        """Read a committed record."""
        try:
            with self._resizing, self._env.begin(db=self._dbs[database]) as txn:
                return txn.get(key)
        except lmdb.Error as error:
            raise _fatal(self.path, "read", error) from error

    def latest(self, database: str, key: bytes) -> bytes | None:
        """Read a record with all uncommitted writes; slower than `get`, so use it only where needed."""
        for writes in (self._writes, *reversed(list(self._taken))):
            for written, its_key, value in reversed(writes):
                if (written, its_key) == (database, key):
                    return value
        return self.get(database, key)

    def scan(self, database: str, decode: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
        """Read all committed records of a database as (key, value), in the order of their keys."""
        return _scan(self._env, self._dbs[database], self.path, decode)

    def commit(self) -> None:
        """Commit the writes of this turn; they are on disk when this returns. Raises `Fatal` if that fails."""
        if self._writes:
            self.write([self.take_writes()])

    def take_writes(self) -> Writes:
        """The writes of this turn, which `write` commits later."""
        taken, self._writes = self._writes, []
        if taken:
            self._taken.append(taken)
        return taken

    def write(self, turns: Sequence[Writes]) -> None:
        """Commit the writes of the oldest turns that were taken. May be called on a thread. Raises `Fatal`."""
        try:
            self._with_room(partial(self._write, turns))
        except lmdb.Error as error:
            raise _fatal(self.path, "written", error) from error
        for _ in turns:
            self._taken.popleft()

    def close(self) -> None:
        """Close the environment and release its lock."""
        self._env.close()
        os.close(self._lock)

    def _open(self, databases: tuple[str, ...], map_size: int) -> None:
        self._env = lmdb.open(str(self.path), map_size=map_size, max_dbs=len(databases) + 1, mode=0o600)
        try:
            for folder in (self.path, self.path.parent):
                _flush(folder)  # a new file survives a power cut only if its folder is flushed too
            self._env.reader_check()  # a killed reader (`dead-letters`) would block the reuse of pages
            self._with_room(self._stamp)
            self._dbs = {name: self._with_room(partial(self._env.open_db, name.encode())) for name in databases}
        except BaseException:
            self._env.close()
            raise

    def _stamp(self) -> None:
        """Refuse a store of another version; write the version, which also shows whether the store can be written."""
        with self._env.begin(write=True) as txn:
            _require_version(self.path, txn.get(VERSION_KEY))
            txn.put(VERSION_KEY, str(VERSION).encode())

    def _write(self, turns: Sequence[Writes]) -> None:
        with self._env.begin(write=True) as txn:
            for database, key, value in chain.from_iterable(turns):
                if value is None:
                    txn.delete(key, db=self._dbs[database])
                else:
                    txn.put(key, value, db=self._dbs[database])

    def _with_room(self, transaction: Callable[[], T]) -> T:
        """Run a transaction; while it does not fit, double the map and run it again. A failed one leaves no trace."""
        while True:
            try:
                return transaction()
            except lmdb.MapFullError:
                self._env.reader_check()
                with self._resizing:
                    self._env.set_mapsize(self._env.info()["map_size"] * 2)


def is_running(state_dir: Path, name: str) -> bool:
    """Whether a living process owns the store."""
    return is_owned(state_dir / name / OWNER)


def read_only(state_dir: Path, name: str, database: str, decode: Callable[[bytes], T]) -> dict[str, T]:
    """Read the last committed state of a database that another process may own; empty if there is none."""
    path = state_dir / name
    try:
        if not (path / "data.mdb").exists():
            return {}
        with lmdb.open(str(path), readonly=True, create=False, max_dbs=16) as env:
            with env.begin() as txn:
                found = txn.get(VERSION_KEY)
                _require_version(path, found)
                if txn.get(database.encode()) is None:
                    return {}
            return dict(_scan(env, env.open_db(database.encode(), create=False), path, decode))
    except (lmdb.Error, OSError) as error:
        raise _fatal(path, "read", error) from error


def _scan(env: lmdb.Environment, database: Any, path: Path, decode: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
    key = b""
    try:
        with env.begin(db=database) as txn:
            for key, value in txn.cursor():
                yield key.decode(errors="backslashreplace"), decode(value)
    except (lmdb.Error, msgspec.MsgspecError) as error:
        raise _fatal(path, f"read (at the record {key!r})", error) from error


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_version(path: Path, found: bytes | None) -> None:
    if found not in {None, str(VERSION).encode()}:
        raise Fatal(
            f"STATE_DIR: {path} was written by another version of this service (format "
            f"{(found or b'').decode(errors='replace')}, this one reads {VERSION}); "
            "run that version until its outbox is empty, or move the folder away"
        )


def _fatal(path: Path, done: str, error: Exception) -> Fatal:
    return Fatal(f"STATE_DIR: {path} cannot be {done}: {error}; committed records are not lost")
