"""What an embedder decides: which batches it takes, and how long it keeps what it has paid for.

A batch takes one slot from the moment it comes until the publisher has stored its results:

    Batch ──► running ──Processed──► finished ──Stored──► gone (`Finished` says so to the rate limiter)
                                      │   ▲
                                      └───┘ results are sent again until `Stored`
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from common.failures.retry import Backoff
from common.process.actions import Actions, Instant, Log, Report, Send, task_fields
from common.wire import messages as m
from common.wire.timing import READY_INTERVAL_S

RESEND = Backoff(first=1.0, factor=2.0, longest=10.0)
"""When to send results again that nobody stored: a publisher that restarts is back within a second or two."""


class Process(NamedTuple):
    """Action: process this batch, on a thread."""

    batch: m.Batch


class Processed(msgspec.Struct):
    """Event: a batch was processed, as far as its provider could."""

    batch_id: str
    results: list[m.Result]
    deferred: list[str] = []
    """Ids for which there is no result now; see `messages.Finished` for these and the next."""
    until: float = 0.0
    unsent: bool = False
    tokens: int = 0
    requests: int = 0
    cached: int = 0
    again: dict[int, list[str]] = {}
    reached_at: float = 0.0
    """Monotonic seconds by which its last request had reached the provider; 0 if there was none."""


class Slot(msgspec.Struct):
    """A batch that this embedder has."""

    batch: m.Batch
    ids: list[str]
    processed: Processed | None = None
    """None while it runs."""
    sent: int = 0
    """How often its results were sent."""
    send_at: float = 0.0
    """Monotonic seconds of the next time."""


class Embedder:
    """The state; its handlers return actions."""

    def __init__(self, instance: str, boot_id: str, inbox: str, slots: int) -> None:
        self.slots: dict[str, Slot] = {}
        """By batch id."""
        self.paused: dict[str, float] = {}
        """Batch keys whose provider cannot serve them now → wall seconds; set before each tick."""
        self.patience: dict[str, float] = {}
        """Providers that asked to be left alone → wall seconds; set before each tick."""
        self.blockers: list[str] = []
        self.facts: dict[str, Any] = {}
        self._instance = instance
        self._boot_id = boot_id
        self._inbox = inbox
        self._size = slots
        self._next_ready = 0.0
        self._said = m.Ready(instance, boot_id, inbox, 0, [])
        self._draining = False

    def batch(self, message: m.Batch, now: Instant) -> Actions:
        """Take a batch; one that was meant for an earlier boot was queued again by now."""
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
        yield self._ready(now)  # before it begins: if it dies of this batch, the rate limiter must know that it had it
        yield Process(message)
        yield Log("embedding", {"batch_id": message.batch_id, "key": message.key, **task_fields(ids)})

    def processed(self, event: Processed, now: Instant) -> Actions:
        """Hand the results to the publisher, and keep them until it has stored them."""
        slot = self.slots[event.batch_id]
        slot.processed = event
        if event.results:
            yield from self._send(slot, event, now)
        else:
            yield from self._finish(event, now)

    def stored(self, message: m.Stored, now: Instant) -> Actions:
        """Let go of a batch; `Stored` may come twice."""
        slot = self.slots.get(message.batch_id)
        if slot is not None and slot.processed is not None:
            yield from self._finish(slot.processed, now)

    def tick(self, now: Instant) -> Actions:
        """Say `Ready`, and send again what is not stored."""
        for slot in self.slots.values():
            if slot.processed is not None and now.mono >= slot.send_at:
                yield from self._send(slot, slot.processed, now)
        if now.mono >= self._next_ready or self._has_news():
            yield self._ready(now)

    def drain(self, now: Instant) -> Actions:
        """Take no more batches; what runs is finished and stored."""
        self._draining = True
        yield self._ready(now)

    def drained(self, _: Instant) -> bool:
        """Whether everything that was paid for is stored."""
        return not self.slots

    def report(self, _: Instant) -> Report:
        """What the heartbeat says."""
        running = sum(slot.processed is None for slot in self.slots.values())
        return Report(self.blockers, {**self.facts, "running": running, "unstored": len(self.slots) - running})

    def _send(self, slot: Slot, done: Processed, now: Instant) -> Iterator[Any]:
        slot.sent += 1
        slot.send_at = now.mono + RESEND.delay(slot.sent)
        yield Send("publisher", m.Results(done.batch_id, self._inbox, done.results, self._boot_id))

    def _finish(self, done: Processed, now: Instant) -> Iterator[Any]:
        del self.slots[done.batch_id]
        reached = now.mono - done.reached_at if done.reached_at else 0.0
        yield Send(
            "rate_limiter",
            m.Finished(
                self._instance, self._boot_id, done.batch_id, done.tokens, done.requests, done.deferred, done.until,
                done.unsent, done.cached, done.again, reached,
            ),
        )  # fmt: skip
        yield self._ready(now)

    def _has_news(self) -> bool:
        """Whether the next `Ready` cannot wait: until it is told, work comes that cannot be done, or does not come."""
        asked = any(until > self._said.provider_cooldowns.get(name, 0.0) + 0.1 for name, until in self.patience.items())
        return asked or self.paused.keys() != self._said.key_cooldowns.keys()

    def _ready(self, now: Instant) -> Send:
        self._next_ready = now.mono + READY_INTERVAL_S
        free = 0 if self._draining else max(0, self._size - len(self.slots))
        held = [
            m.HeldBatch(batch_id, slot.batch.key, slot.ids, slot.batch.charge) for batch_id, slot in self.slots.items()
        ]
        paused, patience = dict(self.paused), dict(self.patience)
        self._said = m.Ready(self._instance, self._boot_id, self._inbox, free, held, paused, patience)
        return Send("rate_limiter", self._said)
