"""On which embedder a group's next batch is processed, and how large it is.

What waits is divided by the free slots: small and quick batches when idle, full ones under load. Suspects of the second
attempt travel in batches of √256. Those of the third and later, and a probe, go alone, to an embedder that has nothing
else; while some wait for that, one embedder is reserved for them.
"""

from __future__ import annotations

import math

from common.process.actions import Instant
from stages.rate_limiter.charging import Quotas
from stages.rate_limiter.cooldowns import Patience
from stages.rate_limiter.fleet import Worker, Workers
from stages.rate_limiter.poison import ALONE, Suspects
from stages.rate_limiter.waiting import Group, Waiting


class Placement:
    """Chooses; `reserve` comes first in each turn."""

    def __init__(
        self, batch_size: int, workers: Workers, suspects: Suspects, quotas: Quotas, patience: Patience
    ) -> None:
        self._batch_size = batch_size
        self._workers = workers
        self._suspects = suspects
        self._quotas = quotas
        self._patience = patience
        self._reserved = ""
        """The embedder that takes nothing but what must be alone; empty: none."""

    def reserve(self, waiting: Waiting, now: Instant) -> None:
        """While tasks wait that must be alone, one embedder takes nothing else, so that it becomes free for them.

        One that works, if there is any: what is innocent is then acquitted. Not while they wait for a quota or a
        provider: nothing else shall wait with them.
        """
        self._reserved = ""
        for group, queue in waiting.items():
            if self._is_alone(group) and queue and not self._quotas.blocked_by(group.key, queue[0].tokens, now.wall):
                able = [worker for worker in self._workers.values() if worker.paused_until(group.key) <= now.wall]
                if able:
                    self._reserved = min(able, key=self._rank).name
                    return

    def worker_for(self, group: Group, now: Instant) -> Worker | None:
        """The embedder that takes the next batch; None: it has to wait."""
        if self._is_alone(group):
            worker = self._workers.get(self._reserved)
            return worker if worker and not worker.batches and worker.takes(group.key, now.wall) else None
        able = [w for w in self._workers.values() if w.name != self._reserved and w.takes(group.key, now.wall)]
        return max(able, key=lambda worker: worker.free, default=None)

    def size(self, group: Group, waiting: int, now: Instant) -> int:
        """How many of those that wait may be in it."""
        if self._is_alone(group):
            return 1
        most = self._batch_size if group.attempt == 1 else math.isqrt(self._batch_size)
        most = min(group.at_most or most, most)
        if group.attempt > 1:
            return most
        if self._quotas.requests_left(group.key, now.wall) is not None or self._patience.scarce(now.wall):
            return most  # where requests are few, no batch leaves smaller than it could be
        return min(most, math.ceil(waiting / max(1, self._workers.free_slots(group.key, now.wall))))

    def _is_alone(self, group: Group) -> bool:
        return group.attempt == ALONE or self._suspects.probing

    def _rank(self, worker: Worker) -> tuple[bool, int]:
        return self._suspects.is_failing(worker.name), len(worker.batches)
