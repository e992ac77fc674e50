"""Vectors that were paid for before: LMDB, shared by the embedders of one machine, bounded, oldest out first.

    vectors  16-byte hash of provider, model, dimensions and text → CRC-32, then the vector's float32 bytes
    order    number of the entry, counting up → hash and size
    totals   `used` → bytes that the entries take
    claims   see claims.py

It may be deleted at any time while no embedder runs, and it never stops the service: one that cannot be opened, read or
trusted is discarded with a line in the log (cache_folder.py). Each vector's checksum guards against all else.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import numpy as np
import structlog

from common.process import metrics
from stages.embedder.calling.vector_guard import Vector
from stages.embedder.reuse.cache_folder import Folder

FILL = 0.7
"""How full of the file it may be: LMDB needs free pages for its copies, and long values only fit into gaps."""
PAGE = 4096
OVERHEAD = 128
"""Bytes that an entry takes beside its vector's pages: two keys, hash, size, and its part of the trees."""
READERS = 4096
"""Threads that read at a time, of all embedders."""
USED = b"used"

_number = struct.Struct(">Q")
_entry = struct.Struct(">16sI")
_checksum = struct.Struct("<I")

T = TypeVar("T")

log = structlog.get_logger()


def keys_of(provider: str, vendor: str, model: str, dimensions: int, texts: Iterable[str]) -> list[bytes]:
    """Name the entries of texts: 16 bytes of BLAKE2b each."""
    parts = "\0".join((provider, vendor, model, str(dimensions)))
    key = blake2b(parts.encode(), digest_size=32).digest()
    return [blake2b(text.encode(), digest_size=16, key=key).digest() for text in texts]


class Cache:
    """The cache as one embedder process has it, used by all its threads. One that breaks is silent from then on."""

    def __init__(self, folder: Folder) -> None:
        """Open it; raises `lmdb.Error`, `OSError` or `struct.error` if it is damaged or not to be had."""
        self._folder = folder
        self._lock = threading.Lock()
        self._broken = False
        self._room = int(folder.size * FILL)
        with folder.coming() as first:
            self._env: Any = lmdb.open(
                str(folder.data), map_size=folder.size, max_dbs=4, max_readers=READERS, mode=0o600,
                sync=False, metasync=False,
            )  # fmt: skip
            try:
                names = (b"vectors", b"order", b"totals", b"claims")
                self._vectors, self._order, self._totals, self.claims = map(self._env.open_db, names)
                self._env.reader_check()
                if first:
                    self._put_in_order()
            except (lmdb.Error, struct.error):
                self._env.close()
                raise

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """Look the keys up; what is not there, or was damaged, is left out."""

        def look(txn: Any) -> dict[bytes, Vector]:
            found: dict[bytes, Vector] = {}
            for key in keys:
                value = txn.get(key, db=self._vectors)
                if value is not None and len(value) > 4 and _checksum.unpack_from(value)[0] == _sum(key, value[4:]):
                    found[key] = np.frombuffer(bytes(value[4:]), dtype="<f4").astype(np.float32, copy=False)
            return found

        return self.look(look) or {}

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep the vectors, and let go of the oldest where there is no room."""
        values = {key: np.ascontiguousarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()}
        while sum(map(_size, values.values())) > self._room // 2:
            values.popitem()
        if not values:
            return
        used = self.change(lambda txn: self._write(txn, values))
        if used is None:  # most likely the gaps are too small for these vectors: make room, and do without them
            used = self.change(lambda txn: self._write(txn, {}, spare=self._room // 4))
        metrics.CACHE_BYTES.set(used or 0)

    def has(self, txn: Any, key: bytes) -> bool:
        """Whether there is a vector, perhaps a damaged one; in a transaction of `look` or `change`."""
        return txn.get(key, db=self._vectors) is not None

    def close(self) -> None:
        """Leave it on the disk, for the next start."""
        with self._lock:
            if not self._broken:
                self._env.sync(True)
            self._env.close()
            self._folder.leave(broken=self._broken)
            self._broken = True

    def look(self, what: Callable[[Any], T]) -> T | None:
        """Read in a transaction; None if the cache is broken."""
        if self._broken:
            return None
        try:
            with self._env.begin(buffers=True) as txn:
                return what(txn)
        except lmdb.Error as error:
            self._give_up(error)
            return None

    def change(self, what: Callable[[Any], T]) -> T | None:
        """Write in a transaction; None if nothing was written."""
        with self._lock:
            if self._broken:
                return None
            try:
                with self._folder.writing(), self._env.begin(write=True) as txn:
                    return what(txn)
            except (TimeoutError, lmdb.MapFullError) as error:
                log.info("cache_not_written", reason=str(error))
            except (lmdb.Error, struct.error) as error:
                self._give_up(error)
            return None

    def _put_in_order(self) -> None:
        """Count anew what is there, in case it is not as it was left; and forget the claims of the dead."""
        with self._env.begin(write=True) as txn:
            used = sum(_entry.unpack(value)[1] for _, value in txn.cursor(self._order))
            txn.put(USED, _number.pack(used), db=self._totals)
            txn.drop(self.claims, delete=False)

    def _write(self, txn: Any, values: Mapping[bytes, bytes], spare: int = 0) -> int:
        """Write, in a transaction; returns the bytes used."""
        used: int = _number.unpack(txn.get(USED, db=self._totals))[0]
        incoming = sum(map(_size, values.values()))
        used -= self._evict(txn, used + incoming + spare - self._room)
        last = txn.cursor(self._order)
        number = _number.unpack(last.key())[0] + 1 if last.last() else 0
        for key, value in values.items():
            if txn.put(key, _checksum.pack(_sum(key, value)) + value, db=self._vectors, overwrite=False):
                txn.put(_number.pack(number), _entry.pack(key, _size(value)), db=self._order, append=True)
                number += 1
                used += _size(value)
        txn.put(USED, _number.pack(used), db=self._totals)
        return used

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
        """Do without a cache until the next start of all embedders, which will discard it."""
        log.warning("cache_broken", reason=str(error))
        self._broken = True


def opened(path: Path, size: int) -> Cache | None:
    """Open the cache; discard one that is damaged; None, with a line in the log, if there cannot be one."""
    reason = ""
    for _ in range(2):
        try:
            folder = Folder(path, size)
        except OSError as error:
            reason = str(error)
            break
        try:
            return Cache(folder)
        except (lmdb.Error, struct.error, OSError) as error:
            reason = str(error)
            discarded = not isinstance(error, OSError) and folder.discard()
            folder.close()
            if not discarded:
                break
            log.warning("cache_discarded", folder=str(path), reason=reason)
    log.warning("cache_off", folder=str(path), reason=reason)
    return None


def _sum(key: bytes, value: bytes | memoryview) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _size(value: bytes) -> int:
    """Bytes that an entry takes: LMDB puts long values on pages of their own."""
    return (len(value) // PAGE + 1) * PAGE + OVERHEAD
