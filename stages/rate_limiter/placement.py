"""Which embedder gets a group's next batch, and how large that batch is.

The waiting tasks are divided by the free slots: batches are small and quick when the pipeline is idle, and full under
load. Tasks of the second attempt travel in batches of √256. Tasks of the third and later attempts, and a probe, travel
alone, to an embedder that has nothing else. While such tasks wait, one embedder is reserved for them.
"""

from __future__ import annotations

import math

from common.process.actions import Instant
from stages.rate_limiter.cooldowns import CooldownBoard
from stages.rate_limiter.fleet import EmbedderEntry, Fleet
from stages.rate_limiter.poison import ALONE_FROM_ATTEMPT, Quarantine
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.waiting import Group, Waiting


class Placement:
    """Chooses embedders and sizes; call `reserve` first in each turn."""

    def __init__(
        self, batch_size: int, fleet: Fleet, quarantine: Quarantine, quotas: Quotas, cooldowns: CooldownBoard
    ) -> None:
        self._batch_size = batch_size
        self._fleet = fleet
        self._quarantine = quarantine
        self._quotas = quotas
        self._cooldowns = cooldowns
        self._reserved = ""
        """The embedder that takes only tasks that must be alone; empty: none is reserved."""

    def reserve(self, waiting: Waiting, now: Instant) -> None:
        """Reserve one embedder while tasks wait that must be alone, so that it becomes free for them.

        An embedder that works is preferred: a task that does not kill it leaves quarantine. Nothing is reserved for
        tasks that wait for a quota or a provider: other tasks shall not wait with them.
        """
        self._reserved = ""
        for group, queue in waiting.items():
            if self._is_alone(group) and queue and not self._quotas.blocked_by(group.key, queue[0].tokens, now.wall):
                able = [entry for entry in self._fleet.values() if entry.cooldown_until(group.key) <= now.wall]
                if able:
                    self._reserved = min(able, key=self._rank).name
                    return

    def embedder_for(self, group: Group, now: Instant) -> EmbedderEntry | None:
        """The embedder that takes the next batch; None if the group has to wait."""
        if self._is_alone(group):
            entry = self._fleet.get(self._reserved)
            return entry if entry and not entry.batches and entry.takes(group.key, now.wall) else None
        able = [e for e in self._fleet.values() if e.name != self._reserved and e.takes(group.key, now.wall)]
        return max(able, key=lambda entry: entry.free, default=None)

    def size(self, group: Group, waiting: int, now: Instant) -> int:
        """The largest number of tasks that the next batch may have; `waiting` tasks wait in the group."""
        if self._is_alone(group):
            return 1
        most = self._batch_size if group.attempt == 1 else math.isqrt(self._batch_size)
        most = min(group.at_most or most, most)
        if group.attempt > 1:
            return most
        if self._quotas.requests_left(group.key, now.wall) is not None or self._cooldowns.saves_requests(now.wall):
            return most  # where requests are few, each batch is as large as it may be
        return min(most, math.ceil(waiting / max(1, self._fleet.free_slots(group.key, now.wall))))

    def _is_alone(self, group: Group) -> bool:
        return group.attempt == ALONE_FROM_ATTEMPT or self._quarantine.is_probing

    def _rank(self, entry: EmbedderEntry) -> tuple[bool, int]:
        return self._quarantine.is_failing(entry.name), len(entry.batches)
