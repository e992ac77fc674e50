"""Hashes of task ids, each with the number of its last record: a hash table of byte strings, 18 bytes for each id.

A Python dict takes 170 bytes for an id and its time, and the garbage collector walks it. numpy has no quick way to look
up a single hash, and the fetcher does not load it. So the entries stand in byte strings, the chains of a hash table
that grows and shrinks by one chain at a time (linear hashing, Litwin 1980): no turn of the loop waits for all of it.
Entries are appended, so each chain is in the order of the record numbers: its last match is the newest, and what is
dropped is its beginning. `bytes.rfind` searches a chain in C.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2s
from sys import byteorder

HASH_BYTES = 8
NUMBER_BYTES = 5
"""Enough for 174 years of 200 records a second."""
ENTRY_BYTES = HASH_BYTES + NUMBER_BYTES
LONGEST_CHAIN = 20
"""Entries in a chain on average, at most. Python allocates strings of up to 512 bytes without waste."""
SHORTEST_CHAIN = 8
"""Entries in a chain on average, at least: each chain costs 49 bytes more."""
SWEEP_SHARE = 64
"""This part of the chains is swept at a time."""


def new_secret() -> bytes:
    """A random key for the hashes, so that no one can choose ids with the same hash."""
    return secrets.token_bytes(16)


def hash_of(secret: bytes, task_id: str) -> bytes:
    """The hash of an id."""
    return blake2s(secret + task_id.encode()).digest()[:HASH_BYTES]


def hashes_of(secret: bytes, ids: Iterable[str]) -> list[bytes]:
    """The hashes of ids."""
    return [blake2s(secret + task_id.encode()).digest()[:HASH_BYTES] for task_id in ids]


def divided(hashes: bytes) -> list[bytes]:
    """The hashes in a byte string, one after another."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


class SettledHashes:
    """For each hash the number of the record that it was last in. Numbers must never fall."""

    def __init__(self) -> None:
        self._chains = [b""]
        self._mask = 1
        """The bits of a hash that choose its chain: one less than a power of two, which is at least their number."""
        self._count = 0
        self._oldest = 0
        """Entries of earlier records are to be dropped."""
        self._swept = 0
        """The next chain to sweep."""
        self._to_sweep = 0
        """How many chains may still have such entries."""

    def last_number(self, hashed: bytes) -> int | None:
        """The number of the last record with this hash, which may be one to be dropped; None if there is none."""
        place = int.from_bytes(hashed, byteorder) & self._mask
        chain = self._chains[place if place < len(self._chains) else place & self._mask >> 1]
        at = chain.rfind(hashed)
        while at % ENTRY_BYTES and at >= 0:  # found across two entries
            at = chain.rfind(hashed, 0, at + HASH_BYTES - 1)
        return None if at < 0 else _number(chain, at)

    def add(self, hashes: Sequence[bytes], number: int) -> None:
        """Add the hashes of one record."""
        chains, tail = self._chains, number.to_bytes(NUMBER_BYTES, "big")
        mask, half, size = self._mask, self._mask >> 1, len(chains)
        for value, hashed in zip(memoryview(b"".join(hashes)).cast("Q"), hashes, strict=True):
            place = value & mask
            chains[place if place < size else place & half] += hashed + tail
        self._count += len(hashes)
        while self._count > LONGEST_CHAIN * len(chains):
            self._grow()

    def drop_before(self, oldest: int) -> None:
        """Drop the entries of records before this number. A part of them each time, so call it regularly."""
        if oldest > self._oldest:
            self._oldest, self._to_sweep = oldest, len(self._chains)
        for _ in range(len(self._chains) // SWEEP_SHARE + 1):
            if self._to_sweep:
                self._to_sweep -= 1
                self._swept += 1
                if self._swept >= len(self._chains):  # also if there are fewer chains now: none is left out
                    self._swept = 0
                self._sweep(self._swept)
            if len(self._chains) > 1 and self._count < SHORTEST_CHAIN * len(self._chains):
                self._shrink()
            elif not self._to_sweep:
                break

    def _sweep(self, place: int) -> None:
        chain = self._chains[place]
        if not chain or _number(chain, 0) >= self._oldest:
            return
        low, high = 1, len(chain) // ENTRY_BYTES
        while low < high:
            middle = (low + high) // 2
            if _number(chain, middle * ENTRY_BYTES) >= self._oldest:
                high = middle
            else:
                low = middle + 1
        self._chains[place] = chain[low * ENTRY_BYTES :]
        self._count -= low

    def _grow(self) -> None:
        """Split the next chain in two."""
        size = len(self._chains)
        if size > self._mask:
            self._mask = self._mask * 2 + 1
        place = size & self._mask >> 1
        chain, bit = self._chains[place], self._mask - (self._mask >> 1)
        stay: list[bytes] = []
        move: list[bytes] = []
        for start in range(0, len(chain), ENTRY_BYTES):
            entry = chain[start : start + ENTRY_BYTES]
            (move if int.from_bytes(entry[:HASH_BYTES], byteorder) & bit else stay).append(entry)
        self._chains[place] = b"".join(stay)
        self._chains.append(b"".join(move))

    def _shrink(self) -> None:
        """Join the last chain with the one that it was split from."""
        last = self._chains.pop()
        size = len(self._chains)
        place = size & self._mask >> 1
        if self._mask > 1 and size <= (self._mask >> 1) + 1:
            self._mask >>= 1
        both = self._chains[place] + last
        entries = [both[start : start + ENTRY_BYTES] for start in range(0, len(both), ENTRY_BYTES)]
        entries.sort(key=_number_bytes)
        self._chains[place] = b"".join(entries)
        self._sweep(place)


def _number(chain: bytes, start: int) -> int:
    return int.from_bytes(chain[start + HASH_BYTES : start + ENTRY_BYTES], "big")


def _number_bytes(entry: bytes) -> bytes:
    return entry[HASH_BYTES:]
