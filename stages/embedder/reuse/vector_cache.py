"""Vectors from earlier batches: LMDB, shared by the embedders of one machine, bounded, the oldest are deleted first.

    vectors  16-byte hash of provider, vendor, model, dimensions and text → CRC-32, then the vector's float32 bytes
    order    number of the entry, counting up → hash and size in bytes
    totals   `used` → bytes that all entries take
    claims   hash → id of the process that embeds the text now, and the time of its claim

Why LMDB and not SQLite: SQLite in WAL mode with synchronous=OFF needs more than 10 µs a text more (bench/reuse.py).

It may be deleted at any time while no embedder runs, and it never stops the service: a cache that cannot be opened,
read or trusted is discarded and logged (cache_folder.py). Each vector's checksum guards against all else.

A claim counts only while its process runs: a process that was killed or stopped (SIGSTOP) does not block others,
because the rate limiter gives its tasks to another embedder, which must not wait for it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
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
from stages.embedder.reuse.cache_folder import CacheFolder

FILL_RATIO = 0.7
"""How much of the file entries may take: LMDB needs free pages for its copies, and long values need adjacent ones."""
PAGE_BYTES = 4096
OVERHEAD_BYTES = 128
"""Bytes that an entry takes beside its vector's pages: two keys, hash, size, and its part of the trees."""
MAX_READERS = 4096
"""Threads of all embedders that can read at the same time."""
OLDEST_CLAIM_S = 180.0
"""Seconds after which a claim no longer counts. No batch waits longer for its provider, OPENAI_TIMEOUT included."""
USED = b"used"

_number = struct.Struct(">Q")
_entry = struct.Struct(">16sI")
_checksum = struct.Struct("<I")
_claim = struct.Struct("<Id")

T = TypeVar("T")

log = structlog.get_logger()


def keys_of(provider: str, vendor: str, model: str, dimensions: int, texts: Iterable[str]) -> list[bytes]:
    """Return the cache's key of each text: 16 bytes of BLAKE2b."""
    parts = "\0".join((provider, vendor, model, str(dimensions)))
    key = blake2b(parts.encode(), digest_size=32).digest()
    return [blake2b(text.encode(), digest_size=16, key=key).digest() for text in texts]


class VectorCache:
    """The cache as one embedder process has it, used by all its threads. After an error of LMDB it does nothing."""

    def __init__(self, folder: CacheFolder) -> None:
        """Open it; raises `lmdb.Error`, `OSError` or `struct.error` if it is damaged or cannot be opened."""
        self._folder = folder
        self._lock = threading.Lock()
        self._broken = False
        self._pid = os.getpid()
        self._capacity_bytes = int(folder.size * FILL_RATIO)
        with folder.opening() as first:
            self._env: Any = lmdb.open(
                str(folder.data), map_size=folder.size, max_dbs=4, max_readers=MAX_READERS, mode=0o600,
                sync=False, metasync=False,
            )  # fmt: skip
            try:
                names = (b"vectors", b"order", b"totals", b"claims")
                self._vectors, self._order, self._totals, self._claims = map(self._env.open_db, names)
                self._env.reader_check()
                if first:
                    self._tidy()
            except (lmdb.Error, struct.error):
                self._env.close()
                raise

    def get(self, keys: Iterable[bytes], length: int | None = None) -> dict[bytes, Vector]:
        """Return the vectors of the keys; missing and damaged ones, and those of another length, are left out."""

        def look(txn: Any) -> dict[bytes, Vector]:
            found: dict[bytes, Vector] = {}
            for key in keys:
                value = txn.get(key, db=self._vectors)
                if value is not None and _is_usable(key, value, length):
                    found[key] = np.frombuffer(bytes(value[4:]), dtype="<f4").astype(np.float32, copy=False)
            return found

        return self._read(look) or {}

    def put(self, vectors: Mapping[bytes, Vector], unclaim: Iterable[bytes] = ()) -> None:
        """Store the vectors, delete the oldest if there is not enough space, and drop this process's claims."""
        values = {key: np.ascontiguousarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()}
        while sum(map(_size, values.values())) > self._capacity_bytes // 2:
            values.popitem()
        used = self._write(lambda txn: self._store(txn, values, unclaim))
        if used is None:  # most likely the gaps are too small for these vectors: free some space, and store none
            used = self._write(lambda txn: self._store(txn, {}, unclaim, spare_bytes=self._capacity_bytes // 4))
        metrics.CACHE_BYTES.set(used or 0)

    def claim(self, keys: Iterable[bytes], length: int | None = None) -> set[bytes]:
        """Claim the keys for this process; return those that another process has claimed or stored by now."""

        def take(txn: Any) -> set[bytes]:
            taken = set()
            own = _claim.pack(self._pid, time.time())
            for key in keys:
                value = txn.get(key, db=self._vectors)
                stored = value is not None and _is_usable(key, value, length)
                if stored or self._is_others(txn.get(key, db=self._claims)):
                    taken.add(key)
                else:
                    txn.put(key, own, db=self._claims)
            return taken

        return self._write(take) or set()

    def unclaim(self, keys: Iterable[bytes]) -> None:
        """Drop this process's claims of the keys."""
        self._write(lambda txn: self._drop_claims(txn, keys))

    def is_claimed(self, keys: Iterable[bytes]) -> bool:
        """Whether another running process has claimed any of the keys."""
        return bool(self._read(lambda txn: any(self._is_others(txn.get(key, db=self._claims)) for key in keys)))

    def close(self) -> None:
        """Close the file; the next start finds it."""
        with self._lock:
            if not self._broken:
                self._env.sync(True)
            self._env.close()
            self._folder.leave(broken=self._broken)
            self._broken = True

    def _read(self, action: Callable[[Any], T]) -> T | None:
        """Read in a transaction; None if the cache is broken."""
        if self._broken:
            return None
        try:
            with self._env.begin(buffers=True) as txn:
                return action(txn)
        except lmdb.Error as error:
            self._give_up(error)
            return None

    def _write(self, action: Callable[[Any], T]) -> T | None:
        """Write in a transaction; None if nothing was written."""
        with self._lock:
            if self._broken:
                return None
            try:
                with self._folder.writing(), self._env.begin(write=True) as txn:
                    return action(txn)
            except (TimeoutError, lmdb.MapFullError) as error:
                log.info("cache_not_written", reason=str(error))
            except (lmdb.Error, struct.error) as error:
                self._give_up(error)
            return None

    def _tidy(self) -> None:
        """Recount the bytes used, in case the last process was killed, and drop all claims: no other process runs."""
        with self._env.begin(write=True) as txn:
            used = sum(_entry.unpack(value)[1] for _, value in txn.cursor(self._order))
            txn.put(USED, _number.pack(used), db=self._totals)
            txn.drop(self._claims, delete=False)

    def _store(self, txn: Any, values: Mapping[bytes, bytes], unclaim: Iterable[bytes], spare_bytes: int = 0) -> int:
        """Store values in a transaction; returns the bytes that all entries take."""
        self._drop_claims(txn, unclaim)
        used: int = _number.unpack(txn.get(USED, db=self._totals))[0]
        incoming = sum(map(_size, values.values()))
        used -= self._evict(txn, used + incoming + spare_bytes - self._capacity_bytes)
        last = txn.cursor(self._order)
        number = _number.unpack(last.key())[0] + 1 if last.last() else 0
        for key, value in values.items():
            if txn.put(key, _checksum.pack(_sum(key, value)) + value, db=self._vectors, overwrite=False):
                txn.put(_number.pack(number), _entry.pack(key, _size(value)), db=self._order, append=True)
                number += 1
                used += _size(value)
        txn.put(USED, _number.pack(used), db=self._totals)
        return used

    def _evict(self, txn: Any, surplus_bytes: int) -> int:
        """Delete the oldest entries until `surplus_bytes` are free; returns the bytes freed."""
        freed = 0
        cursor = txn.cursor(self._order)
        while freed < surplus_bytes and cursor.first():
            key, size = _entry.unpack(cursor.value())
            txn.delete(key, db=self._vectors)
            cursor.delete()
            freed += size
        return freed

    def _drop_claims(self, txn: Any, keys: Iterable[bytes]) -> None:
        for key in keys:
            txn.delete(key, db=self._claims)

    def _is_others(self, claim: Any) -> bool:
        if claim is None or len(claim) != _claim.size:
            return False
        pid, since = _claim.unpack(claim)
        return pid != self._pid and abs(time.time() - since) < OLDEST_CLAIM_S and _is_running(pid)

    def _give_up(self, error: Exception) -> None:
        """Use no cache until the next start of all embedders, which discards it."""
        log.warning("cache_broken", reason=str(error))
        self._broken = True


def open_cache(path: Path, size: int) -> VectorCache | None:
    """Open the cache; discard it if it is damaged; return None, and log the reason, if there cannot be one."""
    reason = ""
    for _ in range(2):
        try:
            folder = CacheFolder(path, size)
        except OSError as error:
            reason = str(error)
            break
        try:
            return VectorCache(folder)
        except (lmdb.Error, struct.error, OSError) as error:
            reason = str(error)
            discarded = not isinstance(error, OSError) and folder.discard()
            folder.close()
            if not discarded:
                break
            log.warning("cache_discarded", folder=str(path), reason=reason)
    log.warning("cache_disabled", folder=str(path), reason=reason)
    return None


def _is_running(pid: int) -> bool:
    """Whether the process exists and is neither stopped nor a zombie (proc(5), field 3 of `stat`)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] not in ([b"T"], [b"t"], [b"Z"], [b"X"])


def _is_usable(key: bytes, value: bytes | memoryview, length: int | None) -> bool:
    """Whether a stored value is undamaged, and a vector of this length if one is given."""
    if len(value) <= 4 or (length is not None and len(value) != 4 + 4 * length):
        return False
    expected: int = _checksum.unpack_from(value)[0]
    return expected == _sum(key, value[4:])


def _sum(key: bytes, value: bytes | memoryview) -> int:
    return zlib.crc32(value, zlib.crc32(key))


def _size(value: bytes) -> int:
    """Bytes that an entry takes: LMDB puts long values on pages of their own."""
    return (len(value) // PAGE_BYTES + 1) * PAGE_BYTES + OVERHEAD_BYTES
