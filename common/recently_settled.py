"""The tasks that were settled recently. They distinguish a late duplicate from a task that was queued again on purpose.

The ids are kept for a limited time, in buckets, so that dropping old ones is cheap. On disk there is one record
for each turn of the loop, not one for each task. When the wall clock is set, what is in memory is moved with it: else a
task that was just settled would seem to be settled long ago, and a late page or result would bring it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

BUCKET_S = 5.0
"""The settlements of this many seconds are dropped together."""
LARGEST_DRIFT_S = 1.0
"""The wall clock may run this much faster or slower between two looks at it; more is a step."""
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
        self._buckets: deque[tuple[float, list[tuple[Record, float]]]] = deque()
        """(Time of the first one as the wall clock shows it now, records and their times)."""
        self._keys: set[bytes] = set()
        self._offset_s: float | None = None
        """The wall clock less the monotonic clock, when both were seen last."""

    def __len__(self) -> int:
        return len(self._at)

    def _follow_clock(self, wall: float, mono: float) -> None:
        step = 0.0 if self._offset_s is None else wall - mono - self._offset_s
        self._offset_s = wall - mono
        if abs(step) > LARGEST_DRIFT_S:
            # never back: what is late was begun before the step, and would seem to be begun after it was settled
            ahead = max(0.0, step)
            self._at = {task_id: at + ahead for task_id, at in self._at.items()}
            self._buckets = deque(
                (first + step, [(record, at + ahead) for record, at in records]) for first, records in self._buckets
            )

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
        self._buckets[-1][1].append((record, record.at))

    def at(self, task_id: str) -> float | None:
        """When the task was last settled; None if it was not settled recently."""
        return self._at.get(task_id)

    def forget(self, now: float, mono: float | None = None) -> Iterable[Record]:
        """Drop what is older than `keep_s` seconds. Returns the records to delete from the store.

        With the monotonic time too, a step of the wall clock is noticed and followed.
        """
        if mono is not None:
            self._follow_clock(now, mono)
        gone: list[tuple[Record, float]] = []
        while self._buckets and self._buckets[0][0] + BUCKET_S + self._keep_s <= now:
            gone += self._buckets.popleft()[1]
        for record, at in gone:
            self._keys.discard(record.key)
            for task_id in record.ids:
                if self._at.get(task_id) == at:
                    del self._at[task_id]
        return [record for record, _ in gone]
