"""Which tasks are this pipeline's, when several share one API: disjoint parts by a stable hash of the id.

The part of a task is the CRC-32 of its id's UTF-8 bytes, modulo the number of parts: the same in every version and on
every machine, and even for ids that differ in their last digits only.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int = 0
    count: int = 1

    def owns(self, task_id: str) -> bool:
        """Whether the task belongs to this part."""
        return self.count == 1 or crc32(task_id.encode()) % self.count == self.index
