"""Decides which tasks belong to this pipeline when several pipelines share one API.

The shard of a task is the CRC-32 of its id's UTF-8 bytes, modulo the number of shards. It is the same in every version
and on every machine, and it spreads evenly even ids that differ in their last digits only.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Shard:
    """Shard number `index` (from 0) of `count`."""

    index: int = 0
    count: int = 1

    def owns(self, task_id: str) -> bool:
        """Whether the task belongs to this shard."""
        return self.count == 1 or crc32(task_id.encode()) % self.count == self.index
