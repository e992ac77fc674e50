"""Vectors that were paid for before: an LMDB environment of this process, bounded, oldest out first.

    vectors  16-byte hash of provider, model, dimensions and text → CRC-32, then the vector's float32 bytes
    order    number of the entry, counting up → hash and size

It may be deleted at any time, and it never stops the service: one that cannot be opened, read or trusted is discarded
with a line in the log. It is written without waiting for the disk (`sync=False`), so a crash of the machine may leave
any state behind, though a crash of the process does not. So a file beside it says in which boot of the machine it was
last open: if that was another one and it was not closed properly, it is discarded unread. Each vector's checksum
guards against all else.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import structlog

from common import metrics
from common.errors import Fatal
from common.sockets import own
from stages.embedder.guard import Vector

VERSION = b"1"
"""Of the records: another one's cache is discarded."""
FILL = 0.7
"""How full of the file it may be: LMDB needs free pages for its copies, and long values only fit into gaps."""
PAGE = 4096
OVERHEAD = 128
"""Bytes that an entry takes beside its vector's pages: two keys, hash, size, and its part of the trees."""
CLOSED = b"closed"
UNCLEAN = 3
"""After so many starts in a row that did not end properly it is discarded: it may be what they died of."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_order = struct.Struct(">Q")
_entry = struct.Struct(">16sI")
_checksum = struct.Struct("<I")

log = structlog.get_logger()


def keys_of(provider: str, vendor: str, model: str, dimensions: int, texts: Iterable[str]) -> list[bytes]:
    """Name the entries of texts: 16 bytes of BLAKE2b each."""
    parts = "\0".join((provider, vendor, model, str(dimensions)))
    key = blake2b(parts.encode(), digest_size=32).digest()
    return [blake2b(text.encode(), digest_size=16, key=key).digest() for text in texts]


class Cache:
    """The cache of one embedder process, used by all its threads. One that breaks is silent from then on."""

    def __init__(self, folder: Path, size: int, owner: int) -> None:
        """Open it, in `size` bytes of disk; raises `lmdb.Error`, `OSError` or `struct.error` if it is damaged.

        `owner` is the descriptor of the lock that keeps other processes out.
        """
        self._owner = owner
        self._marker = folder / "state"
        self._lock = threading.Lock()
        self._broken = False
        self._room = int(size * FILL)
        data = folder / "vectors.lmdb"
        unclean = self._unclean()
        if unclean is None or unclean >= UNCLEAN or _on_disk(data) > size:
            shutil.rmtree(data, ignore_errors=True)
            unclean = 0
        self._mark(_boot(), unclean + 1)
        data.mkdir(mode=0o700, exist_ok=True)
        self._env: Any = lmdb.open(
            str(data), map_size=size, max_dbs=2, max_readers=512, mode=0o600, sync=False, metasync=False
        )
        self._vectors, self._order = self._env.open_db(b"vectors"), self._env.open_db(b"order")
        with self._env.begin() as txn:
            self._used = sum(_entry.unpack(value)[1] for _, value in txn.cursor(self._order))
            last = txn.cursor(self._order)
            self._next = _order.unpack(last.key())[0] + 1 if last.last() else 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """Look the keys up; what is not there, or was damaged, is left out."""
        found: dict[bytes, Vector] = {}
        if self._broken:
            return found
        try:
            with self._env.begin(db=self._vectors, buffers=True) as txn:
                for key in keys:
                    value = txn.get(key)
                    if value is not None and len(value) > 4 and _checksum.unpack_from(value)[0] == _sum(key, value[4:]):
                        found[key] = np.frombuffer(bytes(value[4:]), dtype="<f4").astype(np.float32, copy=False)
        except lmdb.Error as error:
            self._give_up(error)
        return found

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep the vectors, and let go of the oldest where there is no room."""
        values = {key: np.ascontiguousarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()}
        while sum(map(_size, values.values())) > self._room // 2:
            values.popitem()
        with self._lock:
            if self._broken or not values:
                return
            try:
                try:
                    self._write(values)
                except lmdb.MapFullError:  # the gaps are too small for these vectors: make room, and do without them
                    self._write({}, spare=self._room // 4)
            except (lmdb.Error, struct.error) as error:
                self._give_up(error)
        metrics.CACHE_BYTES.set(self._used)

    def close(self) -> None:
        """Leave it on the disk, for the next start."""
        with self._lock:
            if not self._broken:
                self._env.sync(True)
                self._mark(CLOSED, 0)
            self._broken = True
            self._env.close()
            os.close(self._owner)

    def _write(self, values: Mapping[bytes, bytes], spare: int = 0) -> None:
        used, number = self._used, self._next
        with self._env.begin(write=True) as txn:
            incoming = sum(map(_size, values.values()))
            used -= self._evict(txn, used + incoming + spare - self._room)
            for key, value in values.items():
                if txn.put(key, _checksum.pack(_sum(key, value)) + value, db=self._vectors, overwrite=False):
                    txn.put(_order.pack(number), _entry.pack(key, _size(value)), db=self._order, append=True)
                    number += 1
                    used += _size(value)
        self._used, self._next = used, number

    def _evict(self, txn: Any, surplus: int) -> int:
        """Delete the oldest entries until so many bytes are free; returns how many were."""
        freed = 0
        cursor = txn.cursor(self._order)
        while freed < surplus and cursor.first():
            key, size = _entry.unpack(cursor.value())
            txn.delete(key, db=self._vectors)
            cursor.delete()
            freed += size
        return freed

    def _give_up(self, error: Exception) -> None:
        """Do without a cache until the next start, which will discard it."""
        log.warning("cache_broken", reason=str(error))
        self._broken = True
        self._mark(b"broken", UNCLEAN)

    def _unclean(self) -> int | None:
        """How often in a row it was not closed; None if what is on the disk cannot be trusted."""
        try:
            version, state, times = self._marker.read_bytes().split()
            return int(times) if version == VERSION and state in {CLOSED, _boot()} else None
        except (OSError, ValueError):
            return None

    def _mark(self, state: bytes, unclean: int) -> None:
        with self._marker.open("wb") as file:
            file.write(b"%b %b %d" % (VERSION, state, unclean))
            file.flush()
            os.fsync(file.fileno())


def opened(folder: Path, size: int) -> Cache | None:
    """Open the cache; discard one that is damaged; None, with a line in the log, if there cannot be one."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = own(folder / "owner.lock", f"the cache {folder}")
    except (OSError, Fatal) as error:
        log.warning("cache_off", folder=str(folder), reason=str(error))
        return None
    for _ in range(2):
        try:
            return Cache(folder, size, owner)
        except (lmdb.Error, OSError, struct.error) as error:
            log.warning("cache_discarded", folder=str(folder), reason=str(error))
            shutil.rmtree(folder / "vectors.lmdb", ignore_errors=True)
    os.close(owner)
    return None


def _sum(key: bytes, value: bytes | memoryview) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _size(value: bytes) -> int:
    """Bytes that an entry takes: LMDB puts long values on pages of their own."""
    return (len(value) // PAGE + 1) * PAGE + OVERHEAD


def _boot() -> bytes:
    """Which boot of the machine this is; a name of its own each time where that cannot be known."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return os.urandom(8).hex().encode()


def _on_disk(data: Path) -> int:
    file = data / "data.mdb"
    return file.stat().st_size if file.exists() else 0
