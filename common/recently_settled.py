"""The tasks that were settled recently. They distinguish a late duplicate from a task that was queued again on purpose.

The ids are kept for a limited time, in buckets, so that dropping old ones is cheap. On disk there is one record
for each turn of the loop, not one for each task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

BUCKET_S = 5.0
"""The settlements of this many seconds are dropped together."""
KEY_STEP_S = 2e-6
"""The time between two records of the same moment: the smallest step that always gives a different key."""


class Record(msgspec.Struct, array_like=True):
    """Tasks that were settled together; the stored form, under `key`."""

    at: float
    """When (seconds since the epoch)."""
    ids: list[str]

    @property
    def key(self) -> bytes:
        """Sorts by time; `RecentlySettled.settle` makes it unique."""
        return int(self.at * 1e6).to_bytes(8, "big")


class DeleteSettled(NamedTuple):
    """Action, for the stages that store records: delete one that is no longer needed."""

    record: Record
    """The record to delete."""


class RecentlySettled:
    """Task ids and when they were settled (seconds since the epoch), each for `keep_s` seconds."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._at: dict[str, float] = {}
        self._buckets: deque[tuple[float, list[Record]]] = deque()
        self._keys: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._at)

    def settle(self, now: float, ids: list[str]) -> Record:
        """Remember the tasks that are settled now. Returns the record to store; its key is unique."""
        record = Record(now, ids)
        while record.key in self._keys:  # one turn may settle several times
            record.at += KEY_STEP_S
        self.add(record)
        return record

    def add(self, record: Record) -> None:
        """Remember a stored record, after a restart."""
        self._keys.add(record.key)
        for task_id in record.ids:
            self._at[task_id] = record.at
        if not self._buckets or record.at >= self._buckets[-1][0] + BUCKET_S:
            self._buckets.append((record.at, []))
        self._buckets[-1][1].append(record)

    def at(self, task_id: str) -> float | None:
        """When the task was last settled; None if it was not settled recently."""
        return self._at.get(task_id)

    def forget(self, now: float) -> Iterable[Record]:
        """Drop what is older than `keep_s` seconds. Returns the records to delete from the store."""
        gone: list[Record] = []
        while self._buckets and self._buckets[0][0] + BUCKET_S + self._keep_s <= now:
            gone += self._buckets.popleft()[1]
        for record in gone:
            self._keys.discard(record.key)
            for task_id in record.ids:
                if self._at.get(task_id) == record.at:
                    del self._at[task_id]
        return gone
