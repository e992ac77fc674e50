"""What must survive: one LMDB environment for each stage that owns any, one transaction for each turn of the loop.

Writes are collected during the turn and committed together, before any message that follows from them leaves (the
design's rule 4). LMDB runs with both of its sync flags on: a commit flushes the data (`fdatasync`), then writes the
meta page that points to it through a descriptor opened with `O_DSYNC`, then returns. Data is never overwritten in
place. So a power cut can cost an uncommitted turn and nothing else, and cannot corrupt. `metasync=False` would halve
the flushes and may lose the last commit, `sync=False` may corrupt, and `writemap` turns a full disk into a crash
(LMDB's documentation). The price, for values of 6 kB: 331 µs for one alone, 4.8 µs each in a batch of 512.

A disk that is full, or fails a write, makes the turn's commit raise `Fatal`: nothing of that turn leaves the process,
which stops, and finds at its next start what the turn before had committed. A start begins with a commit, so that a
stage whose disk is still full stops again before it has done anything that it could not write down. A failing *read*
of a page that is in the map is no error code but SIGBUS: the kernel kills the process, which loses as little.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec

from common.failures.errors import Fatal
from common.ownership import is_owned, own, private_directory

T = TypeVar("T")

VERSION = 1
"""Of the records in all stores: raise it when one changes in a way that older code or records would misread."""
VERSION_KEY = b"version"
OWNER = "owner.lock"
"""Locked by the process that owns a store."""
MAP_SIZE = 2**30
"""Bytes of address space to start with; the file grows only as far as it is used, and the map doubles when full."""


class Store:
    """One environment with named databases; the only writer is the process that made this object."""

    def __init__(self, state_dir: Path, name: str, databases: tuple[str, ...], map_size: int = MAP_SIZE) -> None:
        private_directory(state_dir, "STATE_DIR")
        self.path = private_directory(state_dir / name, "STATE_DIR")
        self._lock = own(self.path / OWNER, f"STATE_DIR: the store {self.path}")
        self._writes: list[tuple[str, bytes, bytes | None]] = []
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
            with self._env.begin(db=self._dbs[database]) as txn:
                return txn.get(key)
        except lmdb.Error as error:
            raise _fatal(self.path, "read", error) from error

    def latest(self, database: str, key: bytes) -> bytes | None:
        """Read a record as this turn has left it so far; slower than `get`, for what is rare."""
        for written, its_key, value in reversed(self._writes):
            if (written, its_key) == (database, key):
                return value
        return self.get(database, key)

    def scan(self, database: str, decode: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
        """Read all committed records of a database, in the order of their keys."""
        return _scan(self._env, self._dbs[database], self.path, decode)

    def commit(self) -> None:
        """Commit what this turn wrote, on disk when it returns; raise `Fatal` if that cannot be done."""
        if not self._writes:
            return
        try:
            self._with_room(self._write)
        except lmdb.Error as error:
            raise _fatal(self.path, "written", error) from error
        self._writes.clear()

    def close(self) -> None:
        """Close the environment and let another process own it."""
        self._env.close()
        os.close(self._lock)

    def _open(self, databases: tuple[str, ...], map_size: int) -> None:
        self._env = lmdb.open(str(self.path), map_size=map_size, max_dbs=len(databases) + 1, mode=0o600)
        try:
            for folder in (self.path, self.path.parent):
                _flush(folder)  # a new file is there after a power cut only if its folder is on disk too
            self._env.reader_check()  # readers that were killed (`dead-letters`) would keep pages from being used again
            self._with_room(self._stamp)
            self._dbs = {name: self._with_room(partial(self._env.open_db, name.encode())) for name in databases}
        except BaseException:
            self._env.close()
            raise

    def _stamp(self) -> None:
        """Refuse a store that other code wrote, rather than misread it; stamp it, to see that it can be written."""
        with self._env.begin(write=True) as txn:
            _require_version(self.path, txn.get(VERSION_KEY))
            txn.put(VERSION_KEY, str(VERSION).encode())

    def _write(self) -> None:
        with self._env.begin(write=True) as txn:
            for database, key, value in self._writes:
                if value is None:
                    txn.delete(key, db=self._dbs[database])
                else:
                    txn.put(key, value, db=self._dbs[database])

    def _with_room(self, transaction: Callable[[], T]) -> T:
        """Do it, and again with a map twice as large for as long as it does not fit: what did not was aborted whole."""
        while True:
            try:
                return transaction()
            except lmdb.MapFullError:
                self._env.reader_check()
                self._env.set_mapsize(self._env.info()["map_size"] * 2)


def is_running(state_dir: Path, name: str) -> bool:
    """Whether a living process owns the store."""
    return is_owned(state_dir / name / OWNER)


def read_only(state_dir: Path, name: str, database: str, decode: Callable[[bytes], T]) -> dict[str, T]:
    """Read a database of a store that another process may own, as it was committed last; empty if there is none."""
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
            "let that version drain it, or move the folder away"
        )


def _fatal(path: Path, done: str, error: Exception) -> Fatal:
    return Fatal(f"STATE_DIR: {path} cannot be {done}: {error}; nothing that was committed is lost")
