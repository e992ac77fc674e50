"""What was settled lately, by task id: tells a late duplicate from a task that was queued again on purpose.

Kept for a bounded time in buckets, so that forgetting is cheap, and written as one record for each turn of the loop
rather than one for each task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

BUCKET_S = 5.0
KEY_STEP_S = 2e-6
"""Seconds between two records of one moment: the least that always makes another key."""


class Record(msgspec.Struct, array_like=True):
    """What was settled together, as it is stored under `key`."""

    at: float
    ids: list[str]

    @property
    def key(self) -> bytes:
        """Sorts by time; `SettledLately.settle` makes it unique."""
        return int(self.at * 1e6).to_bytes(8, "big")


class DeleteSettled(NamedTuple):
    """Action of the stages that store records: delete one whose time is over."""

    record: Record


class RecentlySettled:
    """Ids and when they were settled (seconds since the epoch), for `keep` seconds."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._at: dict[str, float] = {}
        self._buckets: deque[tuple[float, list[Record]]] = deque()
        self._keys: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._at)

    def settle(self, now: float, ids: list[str]) -> Record:
        """Remember what is settled now; the record that is to be stored shares its key with no other."""
        record = Record(now, ids)
        while record.key in self._keys:  # one turn may settle several times
            record.at += KEY_STEP_S
        self.add(record)
        return record

    def add(self, record: Record) -> None:
        """Remember a record, as after a restart."""
        self._keys.add(record.key)
        for task_id in record.ids:
            self._at[task_id] = record.at
        if not self._buckets or record.at >= self._buckets[-1][0] + BUCKET_S:
            self._buckets.append((record.at, []))
        self._buckets[-1][1].append(record)

    def at(self, task_id: str) -> float | None:
        """When the task was last settled, if that was lately."""
        return self._at.get(task_id)

    def forget(self, now: float) -> Iterable[Record]:
        """Drop what is older than `keep` seconds and return those records, to be deleted where they are stored."""
        gone: list[Record] = []
        while self._buckets and self._buckets[0][0] + BUCKET_S + self._keep <= now:
            gone += self._buckets.popleft()[1]
        for record in gone:
            self._keys.discard(record.key)
            for task_id in record.ids:
                if self._at.get(task_id) == record.at:
                    del self._at[task_id]
        return gone
