"""The tasks that were settled recently. They distinguish a late duplicate from a task that was queued again on purpose.

They are kept for a limited time, in buckets, so that dropping old ones is cheap. On disk there is one record for each
turn of the loop, not one for each task. When the wall clock is set, what is in memory is moved with it: else a task
that was just settled would seem to be settled long ago, and a late page or result would bring it back.

Of a task only a hash of its id is kept, 64 bits with the installation's own random key (`settled_hashes.py`), in
memory and on disk. Two ids may have the same hash. Among 1.8 million remembered tasks (10,000 a second for 180 s) the
chance is 1 in 10^13 for each look-up, once in 27 years at that rate. Then the fetcher leaves a pending task alone until
the other one is forgotten, or the publisher drops a result and the task is processed again; no task is lost.

Memory: at most 24 bytes for each remembered task, whatever the rate (measured: 18 to 20). On disk: 8 bytes, and 40 for
each record. Records of older versions, with whole ids, are read too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from common.settled_hashes import SettledHashes, divided, hash_of, hashes_of, new_secret

BUCKET_S = 5.0
"""The settlements of this many seconds are dropped together."""
LARGEST_DRIFT_S = 1.0
"""The wall clock may run this much faster or slower between two looks at it; more is a step."""
KEY_STEP_S = 2e-6
"""The time between two records of the same moment: the smallest step that always gives a different key."""


class Record(msgspec.Struct, array_like=True):
    """Tasks that were settled together."""

    at: float
    """When (seconds since the epoch)."""
    ids: list[str]
    """Not stored; only in records of older versions."""
    hashes: bytes = b""
    """Their hashes, one after another."""
    secret: bytes = b""
    """The key of the hashes."""

    @property
    def key(self) -> bytes:
        """The key on disk. It sorts by time; `RecentlySettled.settle` makes it unique."""
        return _key(self.at)

    @property
    def stored(self) -> bytes:
        """The stored form, under `key`."""
        return _encode(Record(self.at, [], self.hashes, self.secret))


_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode
"""Read the stored form."""


def _key(at: float) -> bytes:
    return int(at * 1e6).to_bytes(8, "big")


class DeleteSettled(NamedTuple):
    """Action, for the stages that store records: delete one that is no longer needed."""

    key: bytes
    """The key of the record."""


class _Bucket:
    """The records of some seconds."""

    def __init__(self, first_at: float, first_number: int) -> None:
        self.first_at = first_at
        """When the first of them was settled, as the wall clock shows it now."""
        self.first_number = first_number
        """Records are numbered on and on."""
        self.ats = array("d")
        """The time of each record, as it is stored."""
        self._is_sorted = True
        """Whether the times rise, as they do unless the clock was set back a little."""
        self.ahead_s = 0.0
        """By how much the wall clock was set ahead since."""
        self.task_count = 0

    def append(self, at: float) -> None:
        """Add the time of the next record."""
        self._is_sorted = self._is_sorted and (not self.ats or at >= self.ats[-1])
        self.ats.append(at)

    def has_key_of(self, at: float) -> bool:
        """Whether one of the records has the key of this time."""
        near = self.ats
        if self._is_sorted:
            if at > self.ats[-1] + KEY_STEP_S:  # the usual case
                return False
            near = near[bisect_left(near, at - KEY_STEP_S) : bisect_right(near, at + KEY_STEP_S)]
        key = _key(at)
        return any(key == _key(other) for other in near)


class RecentlySettled:
    """Which tasks were settled, and when (seconds since the epoch), each for `keep_s` seconds."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._secret = new_secret()
        self._hashes = SettledHashes()
        self._buckets: list[_Bucket] = []
        self._starts: list[int] = []
        """The number of the first record of each bucket."""
        self._next_number = 0
        self._offset_s: float | None = None
        """The wall clock less the monotonic clock, when both were seen last."""

    def __len__(self) -> int:
        return sum(bucket.task_count for bucket in self._buckets)

    def _follow_clock(self, wall: float, mono: float) -> None:
        step = 0.0 if self._offset_s is None else wall - mono - self._offset_s
        self._offset_s = wall - mono
        if abs(step) > LARGEST_DRIFT_S:
            for bucket in self._buckets:
                bucket.first_at += step
                # never back: what is late was begun before the step, and would seem to be begun after it was settled
                bucket.ahead_s += max(0.0, step)

    def settle(self, now: float, ids: list[str]) -> Record:
        """Remember the tasks that are settled now. Returns the record to store; its key is unique."""
        hashes = hashes_of(self._secret, ids)
        record = Record(now, ids, b"".join(hashes), self._secret)
        while any(bucket.has_key_of(record.at) for bucket in self._buckets):  # one turn may settle several times
            record.at += KEY_STEP_S
        self._add(record.at, hashes)
        return record

    def restore(self, records: Iterable[Record]) -> None:
        """Remember what is on disk, in the order of the keys, after a restart. Nothing may be remembered yet."""
        records = list(records)
        self._secret = next((record.secret for record in reversed(records) if record.secret), self._secret)
        for record in records:
            self._add(record.at, divided(record.hashes) or hashes_of(self._secret, record.ids))

    def at(self, task_id: str) -> float | None:
        """When the task was last settled; None if it was not settled recently."""
        number = self._hashes.last_number(hash_of(self._secret, task_id))
        if number is None or not self._starts or number < self._starts[0]:
            return None
        bucket = self._buckets[bisect_right(self._starts, number) - 1]
        return bucket.ats[number - bucket.first_number] + bucket.ahead_s

    def forget(self, now: float, mono: float | None = None) -> list[bytes]:
        """Drop what is older than `keep_s` seconds. Returns the keys of the records to delete from the store.

        With the monotonic time too, a step of the wall clock is noticed and followed.
        """
        if mono is not None:
            self._follow_clock(now, mono)
        gone: list[bytes] = []
        while self._buckets and self._buckets[0].first_at + BUCKET_S + self._keep_s <= now:
            del self._starts[0]
            gone += map(_key, self._buckets.pop(0).ats)
        self._hashes.drop_before(self._starts[0] if self._starts else self._next_number)
        return gone

    def _add(self, at: float, hashes: list[bytes]) -> None:
        if not self._buckets or at >= self._buckets[-1].first_at + BUCKET_S:
            self._buckets.append(_Bucket(at, self._next_number))
            self._starts.append(self._next_number)
        bucket = self._buckets[-1]
        bucket.append(at)
        bucket.task_count += len(hashes)
        self._hashes.add(hashes, self._next_number)
        self._next_number += 1
