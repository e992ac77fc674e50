"""The counters as they are stored on disk, and the checks when they are read.

The size of a snapshot does not depend on the number of tasks. The process that reads it may have other limits, another
strategy or timezone, or a newer version of this service, and the disk may have damaged the file. So a snapshot begins
with a version (one byte) and a checksum (CRC-32, four bytes) of the msgpack data that follows. The numbers of the
buckets are not stored: they follow from the time of the snapshot.
"""

import math
import zlib
from typing import Final

import msgspec
import numpy as np

from stages.rate_limiter.quota.buckets import AHEAD, BUCKETS
from stages.rate_limiter.quota.counters import WINDOWS, Counts

VERSION: Final = 2
_ROLLING_SLOTS: Final = {1: BUCKETS + 1, 2: BUCKETS + 1 + AHEAD}
"""Version → the number of rolling buckets. Version 1 had none after the current one."""
_HEADER_BYTES: Final = 5
"""Version and checksum."""
_LATEST_DATE: Final = 250_000_000_000.0
"""The latest time that is accepted (Unix seconds, in the year 9892): Python's dates end in the year 9999."""


class QuotaFileError(Exception):
    """The saved quotas cannot be read. The message is a sentence for the operator."""


class ScopeSnapshot(msgspec.Struct, frozen=True):
    """The counters of one scope: little-endian int64, in the order of `WINDOWS`."""

    latest: float
    """The latest time seen (Unix seconds)."""
    rolling: bytes
    """Counters of the rolling buckets, `(3, 5, 145)`; in version 1 `(3, 5, 121)`."""
    fixed: bytes
    """Counters of the calendar buckets, `(3, 5, 1)`."""


class Snapshot(msgspec.Struct, frozen=True):
    """The counters of all scopes."""

    timezone: str
    """The timezone of the calendar buckets."""
    scopes: dict[str, ScopeSnapshot]
    """Name of the scope → its counters."""


_DECODER: Final = msgspec.msgpack.Decoder(Snapshot)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    body = _ENCODER.encode(snapshot)
    return b"".join((bytes([VERSION]), zlib.crc32(body).to_bytes(4, "little"), body))


def decode(data: bytes) -> Snapshot:
    """The snapshot in these bytes. Raises QuotaFileError if they are damaged or have another version."""
    if len(data) < _HEADER_BYTES:
        raise QuotaFileError(f"the saved quotas are damaged: only {len(data)} bytes")
    version = data[0]
    if version not in _ROLLING_SLOTS:
        raise QuotaFileError(f"the saved quotas are of version {version}, and this service reads version {VERSION}")
    body = data[_HEADER_BYTES:]
    if zlib.crc32(body) != int.from_bytes(data[1:_HEADER_BYTES], "little"):
        raise QuotaFileError("the saved quotas are damaged: their checksum is wrong")
    try:
        snapshot = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise QuotaFileError(f"the saved quotas are damaged: {error}") from error
    for name, scope in snapshot.scopes.items():
        _check(name, scope, _ROLLING_SLOTS[version])
    return snapshot


def pack(counts: Counts) -> bytes:
    """Counters as little-endian bytes."""
    return counts.astype("<i8", copy=False).tobytes()


def unpack(data: bytes) -> Counts:
    """Counters from little-endian bytes, one-dimensional and read-only."""
    return np.frombuffer(data, "<i8").astype(np.int64, copy=False)


def _check(name: str, scope: ScopeSnapshot, rolling_slots: int) -> None:
    """Raise QuotaFileError for values that are wrong although the checksum is right."""
    for data, slots in ((scope.rolling, rolling_slots), (scope.fixed, 1)):
        if len(data) != len(WINDOWS) * slots * 8:
            raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} has {len(data)} bytes of counters")
        if (unpack(data) < 0).any():
            raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} has a negative counter")
    if not (math.isfinite(scope.latest) and 0 <= scope.latest <= _LATEST_DATE):
        raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} was saved at {scope.latest}")
