"""What is kept of the windows on disk, and how it is told from anything else.

A snapshot has the same size however many tasks have passed. It is read again by whatever starts next: perhaps with
other limits, another strategy or timezone, perhaps a newer version of this service, perhaps after a bad disk. So it
begins with a version (one byte) and a checksum (CRC-32, four bytes) of the msgpack that follows. Which bucket is where
need not be stored: it follows from the time of the snapshot.
"""

import math
import zlib
from typing import Final

import msgspec
import numpy as np

from stages.rate_limiter.quota.buckets import BUCKETS
from stages.rate_limiter.quota.counters import WINDOWS, Counts

VERSION: Final = 1
_HEADER: Final = 5
_LATEST_DATE: Final = 250_000_000_000.0  # the year 9892, Unix seconds: nearly as far as the calendar reaches


class QuotaFileError(Exception):
    """What was saved of the quotas cannot be read. The message is a sentence for the operator."""


class ScopeSnapshot(msgspec.Struct, frozen=True):
    """The counters of one scope: little-endian int64, in the order of `WINDOWS`."""

    latest: float  # the time that was reached, Unix seconds
    rolling: bytes  # (3, 5, 121)
    fixed: bytes  # (3, 5, 1)


class Snapshot(msgspec.Struct, frozen=True):
    """The counters of every scope, by its name."""

    timezone: str  # where the calendar of the fixed counters was
    scopes: dict[str, ScopeSnapshot]


_DECODER: Final = msgspec.msgpack.Decoder(Snapshot)
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(snapshot: Snapshot) -> bytes:
    """Return a snapshot as bytes."""
    body = _ENCODER.encode(snapshot)
    return b"".join((bytes([VERSION]), zlib.crc32(body).to_bytes(4, "little"), body))


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in these bytes; raises QuotaFileError if they are not one of this version."""
    if len(data) < _HEADER:
        raise QuotaFileError(f"the saved quotas are damaged: only {len(data)} bytes")
    if data[0] != VERSION:
        raise QuotaFileError(f"the saved quotas are of version {data[0]}, and this service reads version {VERSION}")
    body = data[_HEADER:]
    if zlib.crc32(body) != int.from_bytes(data[1:_HEADER], "little"):
        raise QuotaFileError("the saved quotas are damaged: their checksum is wrong")
    try:
        snapshot = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise QuotaFileError(f"the saved quotas are damaged: {error}") from error
    for name, scope in snapshot.scopes.items():
        _check(name, scope)
    return snapshot


def pack(counts: Counts) -> bytes:
    """Return counters as little-endian bytes."""
    return counts.astype("<i8", copy=False).tobytes()


def unpack(data: bytes) -> Counts:
    """Return counters from little-endian bytes, flat and read-only."""
    return np.frombuffer(data, "<i8").astype(np.int64, copy=False)


def _check(name: str, scope: ScopeSnapshot) -> None:
    """Refuse what the checksum cannot: a file that was written wrong."""
    for data, slots in ((scope.rolling, BUCKETS + 1), (scope.fixed, 1)):
        if len(data) != len(WINDOWS) * slots * 8:
            raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} has {len(data)} bytes of counters")
        if (unpack(data) < 0).any():
            raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} has a negative counter")
    if not (math.isfinite(scope.latest) and 0 <= scope.latest <= _LATEST_DATE):
        raise QuotaFileError(f"the saved quotas are damaged: scope {name!r} was saved at {scope.latest}")
