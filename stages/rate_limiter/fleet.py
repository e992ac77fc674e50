"""The embedders as the rate limiter knows them: which are alive, which batches each one has, and what it can take.

dispatched ──named in a `Ready`──► confirmed ──`Finished`, or named no more──► gone (the publisher has the results)
│                                  │
└──missing from every `Ready`──► lost in transit        the embedder falls silent, or boots again ──► dead
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import MISSING_AFTER_S, SILENT_AFTER_S, UNREAD_S


class DispatchedBatch(msgspec.Struct):
    """A batch that was sent to an embedder."""

    ids: list[str]
    tasks: dict[str, m.Task] = {}
    """Empty for a batch that was learnt from a `Ready` after a restart: only its ids are known."""
    key: str = ""
    """The batch key."""
    charge: m.Charge | None = None
    """What was charged to the quotas for it."""
    confirmed: bool = False
    """Whether a `Ready` has named it: the embedder has it."""
    missed_at: float | None = None
    """When a `Ready` first did not name it (monotonic seconds); None if no `Ready` has come since it was sent."""


class InventoryChanges(NamedTuple):
    """What a `Ready` changes in what is known of an embedder's batches."""

    finished: list[DispatchedBatch]
    """Named before and not named now: their `Finished` was lost. The publisher has the results."""
    lost: dict[str, DispatchedBatch]
    """Lost in transit, by batch id."""
    learnt: list[DispatchedBatch]
    """Sent before this process started, or before it treated the embedder as dead."""


class EmbedderEntry(msgspec.Struct):
    """One embedder."""

    name: str
    boot_id: str
    inbox: str
    heard_at: float
    """When its last `Ready` came (monotonic seconds)."""
    free: int = 0
    """Slots that are free, less the batches in transit."""
    batches: dict[str, DispatchedBatch] = {}
    """By batch id."""
    key_cooldowns: dict[str, float] = {}
    """Batch keys that its provider cannot serve now → until when (wall seconds)."""
    busy_until: float = 0.0
    """Until then it may have batches in its inbox that it does not know of yet (monotonic seconds)."""

    def on_ready(self, message: m.Ready, now: Instant) -> InventoryChanges:
        """Take over what the embedder reports."""
        if now.mono - self.heard_at > SILENT_AFTER_S / 2:
            for sent in self.batches.values():  # one of the two was stopped: this `Ready` may predate the batch
                sent.missed_at = None
        self.heard_at, self.inbox, self.key_cooldowns = now.mono, message.inbox, message.key_cooldowns
        changes = self._compare(message.held, now)
        in_transit = sum(not sent.confirmed for sent in self.batches.values())
        self.free = max(0, message.free - in_transit) if now.mono >= self.busy_until else 0
        return changes

    def _compare(self, held: list[m.HeldBatch], now: Instant) -> InventoryChanges:
        changes = InventoryChanges([], {}, [])
        named = {batch.batch_id: batch for batch in held}
        for batch_id, sent in list(self.batches.items()):
            if batch_id in named:
                sent.confirmed = True
            elif sent.confirmed:
                changes.finished.append(self.batches.pop(batch_id))
            elif sent.missed_at is None:
                sent.missed_at = now.mono  # this `Ready` may have been sent before the batch arrived
            elif now.mono - sent.missed_at >= MISSING_AFTER_S:
                changes.lost[batch_id] = self.batches.pop(batch_id)
        for batch_id, batch in named.items():
            if batch_id not in self.batches:
                sent = DispatchedBatch(batch.ids, {}, batch.key, batch.charge, confirmed=True)
                self.batches[batch_id] = sent
                changes.learnt.append(sent)
        return changes

    def takes(self, key: str, wall: float) -> bool:
        """Whether it has a free slot for this batch key now."""
        return self.free > 0 and self.cooldown_until(key) <= wall

    def cooldown_until(self, key: str) -> float:
        """When its provider can serve this batch key (wall seconds); in the past if it can now."""
        return max(self.key_cooldowns.get(key, 0.0), self.key_cooldowns.get("*", 0.0))


class Fleet(dict[str, EmbedderEntry]):
    """All embedders that are alive, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._dead_boots: dict[str, str] = {}
        """Embedder → its boot that was treated as dead last."""
        self.has_doubles = False
        """Whether two embedders may have the same task, since one returned that was treated as dead."""

    def with_boot(self, name: str, boot_id: str) -> EmbedderEntry | None:
        """The embedder of this name, if it is still the same process."""
        entry = self.get(name)
        return entry if entry and entry.boot_id == boot_id else None

    def add(self, message: m.Ready, now: Instant) -> EmbedderEntry:
        """Add an embedder that is new, or that was treated as dead and was only stopped."""
        entry = self[message.embedder] = EmbedderEntry(message.embedder, message.boot_id, message.inbox, now.mono)
        if self._dead_boots.pop(message.embedder, None) == message.boot_id:
            entry.busy_until = now.mono + UNREAD_S  # it reads now what was sent to it before
        return entry

    def remove_dead(self, entry: EmbedderEntry) -> None:
        """Treat an embedder as dead."""
        del self[entry.name]
        self._dead_boots[entry.name] = entry.boot_id

    def silent(self, now: Instant) -> list[EmbedderEntry]:
        """Embedders that have sent no `Ready` for too long."""
        return [entry for entry in self.values() if now.mono - entry.heard_at > SILENT_AFTER_S]

    def excuse(self, gap_s: float, now: Instant) -> None:
        """Do not count the time in which this process was stopped: it says nothing about the embedders."""
        for entry in self.values():
            entry.heard_at = min(entry.heard_at + gap_s, now.mono)

    def batches(self) -> list[DispatchedBatch]:
        """All batches that embedders have or should have."""
        return [sent for entry in self.values() for sent in entry.batches.values()]

    def ids(self) -> list[str]:
        """The ids of all tasks that embedders have or should have."""
        return [task_id for sent in self.batches() for task_id in sent.ids]

    def without_elsewhere(self, ids: list[str]) -> list[str]:
        """The tasks that no embedder has: one that was stopped may return when another does its tasks."""
        if not self.has_doubles:
            return ids
        elsewhere = set(self.ids())
        return [task_id for task_id in ids if task_id not in elsewhere]

    def free_slots(self, key: str, wall: float) -> int:
        """How many batches of this key could be dispatched now."""
        return sum(entry.free for entry in self.values() if entry.takes(key, wall))

    def has_unsettled(self, key: str) -> bool:
        """Whether a batch is under way that may not spend all that it was charged; `*` stands for any key."""
        return any(sent.charge and key in ("*", sent.key) for sent in self.batches())
