"""What an embedder decides: which batches it takes, and how long it keeps the results that it has paid for.

A batch takes one slot from the moment it arrives until the publisher has stored its results:

    Batch ──► running ──BatchProcessed──► finished ──Stored──► gone (`Finished` tells the rate limiter)
                                            │   ▲
                                            └───┘ the results are sent again until `Stored`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from common.failures.retry import Backoff
from common.process.actions import Actions, Instant, Log, Report, Send, task_fields
from common.wire import messages as m
from common.wire.timing import DRAINING_INTERVAL_S, READY_INTERVAL_S
from stages.embedder.actions import BatchProcessed, ProcessBatch

RESEND = Backoff(first=1.0, factor=2.0, longest=10.0)
"""When results that are not stored are sent again: a publisher that restarts is back within a second or two."""
SAME_COOLDOWN_S = 0.1
"""A cooldown that ends later by less than this is not worth a `Ready` of its own."""


class Slot(msgspec.Struct):
    """A batch that this embedder has."""

    batch: m.Batch
    ids: list[str]
    processed: BatchProcessed | None = None
    """None while the batch is running."""
    sent_count: int = 0
    """How often its results were sent."""
    send_at: float = 0.0
    """When they are sent next (monotonic seconds)."""


class Embedder:
    """The state; its handlers return actions."""

    def __init__(self, instance: str, boot_id: str, inbox: str, slots: int) -> None:
        self.slots: dict[str, Slot] = {}
        """By batch id."""
        self.key_cooldowns: dict[str, float] = {}
        """Batch keys that the provider cannot serve now → until when (wall seconds); set before each tick."""
        self.provider_cooldowns: dict[str, float] = {}
        """Providers that asked for a pause → until when (wall seconds); set before each tick."""
        self.blockers: list[str] = []
        """Why no batch could be processed now; set before each tick."""
        self.facts: dict[str, Any] = {}
        """What the heartbeat shows besides; set before each tick."""
        self._instance = instance
        self._boot_id = boot_id
        self._inbox = inbox
        self._slot_count = slots
        self._next_ready = 0.0
        self._next_draining = float("inf")
        self._last_ready = m.Ready(instance, boot_id, inbox, 0, [])
        self._draining = False

    # ---- messages and events ----

    def on_batch(self, message: m.Batch, now: Instant) -> Actions:
        """Take a batch. One that was meant for an earlier boot has been queued again by now."""
        if message.boot_id != self._boot_id or message.batch_id in self.slots:
            return
        ids = [task.id for task in message.tasks]
        if self._draining:
            yield Send(
                "rate_limiter",
                m.Finished(self._instance, self._boot_id, message.batch_id, 0, 0, ids, now.wall, unsent=True),
            )
            return
        self.slots[message.batch_id] = Slot(message, ids)
        yield self._ready(
            now
        )  # before it starts: if the batch kills this process, the rate limiter must know who had it
        yield ProcessBatch(message)
        yield Log("batch_started", {"batch_id": message.batch_id, "key": message.key, **task_fields(ids)})

    def on_processed(self, event: BatchProcessed, now: Instant) -> Actions:
        """Send the results to the publisher, and keep them until it has stored them."""
        slot = self.slots[event.batch_id]
        slot.processed = event
        if event.results:
            yield from self._send_results(slot, event, now)
        else:
            yield from self._finish(event, now)

    def on_stored(self, message: m.Stored, now: Instant) -> Actions:
        """Let go of a batch; `Stored` may arrive twice."""
        slot = self.slots.get(message.batch_id)
        if slot is not None and slot.processed is not None:
            yield from self._finish(slot.processed, now)

    # ---- the clock ----

    def on_tick(self, now: Instant) -> Actions:
        """Send `Ready`, and results again that are not stored."""
        for slot in self.slots.values():
            if slot.processed is not None and now.mono >= slot.send_at:
                yield from self._send_results(slot, slot.processed, now)
        if now.mono >= self._next_ready or self._has_changed():
            yield self._ready(now)
        if now.mono >= self._next_draining:
            yield self._draining_message(now)

    def idle_tick_s(self, _: Instant) -> float | None:
        """Without a batch, a tick for each `Ready` is enough."""
        is_busy = self.slots or self._draining or self.key_cooldowns or self.provider_cooldowns
        return None if is_busy else READY_INTERVAL_S

    def on_drain(self, now: Instant) -> Actions:
        """Take no more batches. Running batches are finished and stored."""
        self._draining = True
        yield self._ready(now)
        yield self._draining_message(now)

    def is_drained(self, _: Instant) -> bool:
        """Whether everything that was paid for is stored."""
        return not self.slots

    def on_drained(self, _: Instant) -> Actions:
        """Tell the publisher that no more results will come."""
        yield Send("publisher", m.Draining(self._instance, self._boot_id, done=True))

    def report(self, _: Instant) -> Report:
        """The content of the heartbeat."""
        running = sum(slot.processed is None for slot in self.slots.values())
        return Report(self.blockers, {**self.facts, "running": running, "unstored": len(self.slots) - running})

    # ---- messages that leave ----

    def _send_results(self, slot: Slot, done: BatchProcessed, now: Instant) -> Iterator[Any]:
        slot.sent_count += 1
        slot.send_at = now.mono + RESEND.delay(slot.sent_count)
        yield Send("publisher", m.Results(done.batch_id, self._inbox, done.results, self._boot_id))

    def _finish(self, done: BatchProcessed, now: Instant) -> Iterator[Any]:
        del self.slots[done.batch_id]
        reached_ago_s = now.mono - done.reached_at if done.reached_at else 0.0
        yield Send(
            "rate_limiter",
            m.Finished(
                self._instance, self._boot_id, done.batch_id, done.tokens, done.requests, done.deferred, done.until,
                done.unsent, done.uncharged, done.requeue, reached_ago_s,
            ),
        )  # fmt: skip
        yield self._ready(now)

    def _has_changed(self) -> bool:
        """Whether the next `Ready` cannot wait: until it arrives, work comes that cannot be done, or does not come."""
        told = self._last_ready.provider_cooldowns
        longer = any(until > told.get(name, 0.0) + SAME_COOLDOWN_S for name, until in self.provider_cooldowns.items())
        return longer or self.key_cooldowns.keys() != self._last_ready.key_cooldowns.keys()

    def _ready(self, now: Instant) -> Send:
        self._next_ready = now.mono + READY_INTERVAL_S
        free = 0 if self._draining else max(0, self._slot_count - len(self.slots))
        held = [m.HeldBatch(name, slot.batch.key, slot.ids, slot.batch.charge) for name, slot in self.slots.items()]
        self._last_ready = m.Ready(
            self._instance,
            self._boot_id,
            self._inbox,
            free,
            held,
            dict(self.key_cooldowns),
            dict(self.provider_cooldowns),
        )
        return Send("rate_limiter", self._last_ready)

    def _draining_message(self, now: Instant) -> Send:
        self._next_draining = now.mono + DRAINING_INTERVAL_S
        return Send("publisher", m.Draining(self._instance, self._boot_id))
