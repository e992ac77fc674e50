"""The embedders as the rate limiter knows them: what each has, and what it could take."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import MISSING_AFTER_S, UNREAD_S


class Sent(msgspec.Struct):
    """A batch that an embedder has, or should have."""

    ids: list[str]
    sent_at: float
    """Monotonic seconds."""
    tasks: dict[str, m.Task] = {}
    """Empty for a batch that was learnt from `Ready` after a restart: its contents are not known here."""
    key: str = ""
    charge: m.Charge | None = None
    confirmed: bool = False
    missed_at: float | None = None
    """Monotonic seconds of the first `Ready` that did not name it; none has named it yet."""


class News(NamedTuple):
    """What `Ready` says of batches that was not known."""

    finished: list[Sent]
    """Named before, and no more: their `Finished` was lost. The publisher has the results."""
    lost: dict[str, Sent]
    """Never named: lost on their way. By batch id."""
    learnt: list[Sent]
    """Handed out before this process started, or before it took the embedder for dead."""


class Worker(msgspec.Struct):
    """One embedder."""

    name: str
    boot_id: str
    inbox: str
    heard: float
    """Monotonic seconds of its last `Ready`."""
    free: int = 0
    batches: dict[str, Sent] = {}
    paused: dict[str, float] = {}
    busy_until: float = 0.0
    """Monotonic seconds until which it may have batches that it does not know of yet."""

    def compare(self, held: list[m.HeldBatch], now: Instant) -> News:
        """Take over what the embedder says it has; a batch may be on its way to one that does not name it."""
        news = News([], {}, [])
        named = {batch.batch_id: batch for batch in held}
        for batch_id, sent in list(self.batches.items()):
            if batch_id in named:
                sent.confirmed = True
            elif sent.confirmed:
                news.finished.append(self.batches.pop(batch_id))
            elif sent.missed_at is None:
                sent.missed_at = now.mono  # perhaps said before it came, and only read now
            elif now.mono - sent.missed_at >= MISSING_AFTER_S:
                news.lost[batch_id] = self.batches.pop(batch_id)
        for batch_id, batch in named.items():
            if batch_id not in self.batches:
                sent = Sent(batch.ids, now.mono, {}, batch.key, batch.charge, confirmed=True)
                self.batches[batch_id] = sent
                news.learnt.append(sent)
        return news

    def takes(self, key: str, wall: float) -> bool:
        """Whether it has a slot for this batch key now."""
        return self.free > 0 and self.paused_until(key) <= wall

    def paused_until(self, key: str) -> float:
        """When its provider can serve this batch key; in the past if it can."""
        return max(self.paused.get(key, 0.0), self.paused.get("*", 0.0))


class Workers(dict[str, Worker]):
    """All embedders that are heard of, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._buried: dict[str, str] = {}
        """Embedder → its boot that counted as dead last."""

    def of_boot(self, name: str, boot_id: str) -> Worker | None:
        """The embedder of this name, if it still is the same process."""
        worker = self.get(name)
        return worker if worker and worker.boot_id == boot_id else None

    def add(self, message: m.Ready, now: Instant) -> Worker:
        """Get to know an embedder, or one again that counted as dead."""
        worker = self[message.embedder] = Worker(message.embedder, message.boot_id, message.inbox, now.mono)
        if self._buried.pop(message.embedder, None) == message.boot_id:
            worker.busy_until = now.mono + UNREAD_S  # it was only stopped, and reads now what was sent to it before
        return worker

    def bury(self, worker: Worker) -> None:
        """Count it as dead."""
        del self[worker.name]
        self._buried[worker.name] = worker.boot_id

    def sent(self) -> list[Sent]:
        """All batches that are under way."""
        return [sent for worker in self.values() for sent in worker.batches.values()]

    def ids(self) -> list[str]:
        """Whatever an embedder has, or should have."""
        return [task_id for sent in self.sent() for task_id in sent.ids]

    def free_slots(self, key: str, wall: float) -> int:
        """How many batches of this key could be handed out."""
        return sum(worker.free for worker in self.values() if worker.takes(key, wall))

    def unsettled(self, key: str) -> bool:
        """Whether a batch under way may not spend all that it was charged with; `*` is any key."""
        return any(sent.charge and key in ("*", sent.key) for sent in self.sent())
