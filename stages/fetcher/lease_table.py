"""Where each task is, as far as the fetcher knows, and which events move it.

`TRANSITIONS` is the whole rule: (whereabouts, event) → whereabouts. Any other event raises `IllegalEvent`, because it
means that the fetcher has lost track of the task. An event that changes nothing is listed too: for example, the
publisher may list a dead letter that is being replayed, and the task remains a dead letter.

The picture in `docs/architecture.md` is generated from `TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import msgspec

from common.process.actions import Instant
from stages.fetcher.actions import Lease


class Whereabouts(Enum):
    """Where a task is."""

    NEW = "new"
    """The fetcher keeps nothing about it: it is leased when a page shows it."""
    RESTORED = "restored"
    """Leased before a restart of the fetcher; no holder has listed it yet."""
    CLAIMING = "claiming"
    """Leased, and with the fetcher until the API accepts its claim (only with CLAIM_TASKS)."""
    WAITING = "waiting"
    """Leased, and in the rate limiter or on the way to it: if the rate limiter dies, the task is lost."""
    EMBEDDING = "embedding"
    """Leased, and with an embedder: if it gets lost, the task may be what killed the embedder."""
    FAILED = "failed"
    """Leased; the fetcher sent a failed result to the publisher, which has not confirmed it yet."""
    STORED = "stored"
    """Leased; the publisher has its result on disk, so a silent publisher does not lose it."""
    REFUSED = "refused"
    """Leased; the API refused its result, which waits in the publisher for its next try and leaves room for others."""
    LOST = "lost"
    """Its lease was not renewed. It keeps the lease's times and attempts for when it is found again."""
    PARKED = "parked"
    """Claimed, then given back until a time: it keeps its lease, because it is not pending in the API any more."""
    DEFERRED = "deferred"
    """Not to be leased before a time; it stays pending in the API."""
    DEAD = "dead"
    """Its result is a dead letter of the publisher."""

    __hash__ = object.__hash__  # Enum's own is Python code, and this is looked up for each task of each renewal


class Event(Enum):
    """What moves a task."""

    DISPATCHED = "dispatched"
    """The task was sent to the rate limiter."""
    CLAIM_QUEUED = "claim queued"
    """The task was leased, and its claim waits to be sent."""
    CLAIM_REFUSED = "claim refused"
    """The API refused the claim: another pipeline has the task, or it is gone."""
    FOUND_INVALID = "found invalid"
    """The task cannot be processed; the fetcher sent a failed result to the publisher."""
    GIVEN_UP = "given up"
    """The task lost its embedder too often; the fetcher sends a failed result to the publisher."""
    LISTED_WAITING = "listed as waiting"
    """The rate limiter listed the task, and no embedder has it."""
    LISTED_EMBEDDING = "listed as embedding"
    """The rate limiter listed the task as one that an embedder has."""
    LISTED_STORED = "listed as stored"
    """The publisher listed the task."""
    LISTED_PARKED = "listed as parked"
    """The publisher listed the task as one whose result the API refused before."""
    EXPIRED = "expired"
    """No holder renewed the lease in time, or a new rate limiter's complete inventory did not list the task."""
    TASK_DEFERRED = "task deferred"
    """The rate limiter gave the task back until a time."""
    KEY_DEFERRED = "key deferred"
    """The rate limiter gave the task back together with all tasks of its batch key."""
    CLAIM_DEFERRED = "claim deferred"
    """The rate limiter gave back a claimed task until a time (only with CLAIM_TASKS)."""
    COOLDOWN_ENDED = "cooldown ended"
    """The time until which the task was deferred or parked has come."""
    SETTLED = "settled"
    """The API accepted the task's result."""
    DEAD_LETTERED = "dead-lettered"
    """The publisher made a dead letter of the task's result."""
    DEAD_LETTER_ENDED = "dead letter ended"
    """The dead letter was dropped, or the publisher does not have it any more."""
    FORGOTTEN = "forgotten"
    """No page shows the lost task: it is not pending any more."""

    __hash__ = object.__hash__  # as above


class IllegalEvent(Exception):
    """An event that cannot happen to a task where it is."""

    def __init__(self, whereabouts: Whereabouts, event: Event) -> None:
        super().__init__(f"the event {event.value!r} cannot happen to a task that is {whereabouts.value!r}")


NEW, RESTORED, CLAIMING, WAITING, EMBEDDING, FAILED, STORED, REFUSED, LOST, PARKED, DEFERRED, DEAD = Whereabouts

LEASED = (RESTORED, CLAIMING, WAITING, EMBEDDING, FAILED, STORED, REFUSED)
"""A task here counts against MAX_IN_FLIGHT, except that as many again may be REFUSED."""
HELD = (RESTORED, WAITING, EMBEDDING, FAILED, STORED, REFUSED)
"""A task here is with another process, which must renew its lease."""
NOT_WANTED = (*LEASED, DEFERRED, PARKED, DEAD)
"""A task here is not taken from a page."""

_TAKEN_FROM = (NEW, LOST, DEFERRED)
"""A task is leased from here. DEFERRED: the time has come, and the next tick has not noticed it yet."""
_RENEWED_FROM = (RESTORED, WAITING, EMBEDDING, FAILED, LOST)
"""Here the rate limiter's word about a task counts."""
_RETURNED_FROM = (RESTORED, CLAIMING, WAITING, EMBEDDING, FAILED, LOST)
"""From here a task can be given back. Not from `_STORED`: then its embedder died after its result was stored."""
_STORED = (STORED, REFUSED)
"""Here the publisher has the result on disk."""
_UNTOUCHED = (NEW, PARKED, DEFERRED, DEAD)
"""Here a holder's late word about a task changes nothing."""


def _stay(*whereabouts: Whereabouts) -> dict[Whereabouts, Whereabouts]:
    return {each: each for each in whereabouts}


def _all(whereabouts: Iterable[Whereabouts], after: Whereabouts) -> dict[Whereabouts, Whereabouts]:
    return dict.fromkeys(whereabouts, after)


_MOVES: Mapping[Event, Mapping[Whereabouts, Whereabouts]] = {
    Event.DISPATCHED: _all((*_TAKEN_FROM, CLAIMING), WAITING),
    Event.CLAIM_QUEUED: _all(_TAKEN_FROM, CLAIMING),
    Event.CLAIM_REFUSED: _all((CLAIMING,), DEFERRED),
    Event.FOUND_INVALID: _all(_TAKEN_FROM, FAILED),
    Event.GIVEN_UP: _all(_RETURNED_FROM, FAILED) | _stay(*_STORED, *_UNTOUCHED),
    Event.LISTED_WAITING: _all(_RENEWED_FROM, WAITING) | _stay(CLAIMING, *_STORED, *_UNTOUCHED),
    Event.LISTED_EMBEDDING: _all(_RENEWED_FROM, EMBEDDING) | _stay(CLAIMING, *_STORED, *_UNTOUCHED),
    Event.LISTED_STORED: _all((*_RENEWED_FROM, *_STORED), STORED) | _stay(CLAIMING, *_UNTOUCHED),
    Event.LISTED_PARKED: _all((*_RENEWED_FROM, *_STORED), REFUSED) | _stay(CLAIMING, *_UNTOUCHED),
    Event.EXPIRED: _all(HELD, LOST),
    Event.TASK_DEFERRED: _all(_RETURNED_FROM, DEFERRED) | _stay(*_STORED, *_UNTOUCHED),
    Event.KEY_DEFERRED: _all(_RETURNED_FROM, NEW) | _stay(*_STORED, *_UNTOUCHED),
    Event.CLAIM_DEFERRED: _all(_RETURNED_FROM, PARKED) | _stay(*_STORED, *_UNTOUCHED),
    Event.COOLDOWN_ENDED: {DEFERRED: NEW, PARKED: LOST},
    Event.SETTLED: _all(Whereabouts, NEW),
    Event.DEAD_LETTERED: _all(Whereabouts, DEAD),
    Event.DEAD_LETTER_ENDED: _all((DEAD,), NEW),
    Event.FORGOTTEN: _all((LOST,), NEW),
}

TRANSITIONS: Mapping[tuple[Whereabouts, Event], Whereabouts] = {
    (before, event): after for event, moves in _MOVES.items() for before, after in moves.items()
}
"""(whereabouts, event) → whereabouts; what is not here is illegal."""


class LeaseEntry(msgspec.Struct):
    """What the fetcher keeps about one task that is not NEW."""

    lease: Lease
    """Without meaning for a task that is DEFERRED or DEAD."""
    whereabouts: Whereabouts
    heard_at_s: float
    """Monotonic seconds: when a holder last listed it, or it was sent; if LOST, when it was lost or last seen."""
    not_before_s: float = 0.0
    """Wall seconds: until when it is DEFERRED or PARKED."""


NO_LEASE = Lease(0.0)
"""What an entry has that never had a lease."""


class LeaseTable:
    """All tasks that are not NEW, by id and by whereabouts."""

    def __init__(self, restored: Mapping[str, Lease], dead: Iterable[str], now: Instant) -> None:
        """Begin with the leases and the dead letters that are on disk."""
        self._entries: dict[str, LeaseEntry] = {}
        self._at: dict[Whereabouts, dict[str, LeaseEntry]] = {each: {} for each in Whereabouts}
        for task_id, lease in restored.items():
            self._entries[task_id] = self._at[RESTORED][task_id] = LeaseEntry(lease, RESTORED, now.mono)
        for task_id in dead:
            self.move(task_id, Event.DEAD_LETTERED, now)

    @property
    def leased_count(self) -> int:
        """How many tasks are leased, without the parked ones."""
        return sum(len(self._at[each]) for each in LEASED)

    @property
    def is_busy(self) -> bool:
        """Whether there is a task for which something may become due."""
        return any(tasks for whereabouts, tasks in self._at.items() if whereabouts is not DEAD)

    def facts(self) -> dict[str, Any]:
        """What the heartbeat says about the tasks."""
        counts = {"refused": REFUSED, "lost": LOST, "dead_letters": DEAD}
        return {"leased": self.leased_count, **{name: self.count(each) for name, each in counts.items()}}

    def count(self, whereabouts: Whereabouts) -> int:
        """How many tasks are there."""
        return len(self._at[whereabouts])

    def whereabouts(self, task_id: str) -> Whereabouts:
        """Where the task is."""
        entry = self._entries.get(task_id)
        return NEW if entry is None else entry.whereabouts

    def entry(self, task_id: str) -> LeaseEntry:
        """What is kept about a task; raises `KeyError` if it is NEW."""
        return self._entries[task_id]

    def at(self, *whereabouts: Whereabouts) -> list[tuple[str, LeaseEntry]]:
        """The tasks that are there, as a list, so that they may be moved meanwhile."""
        return [item for each in whereabouts for item in self._at[each].items()]

    def ids(self, *whereabouts: Whereabouts) -> frozenset[str]:
        """The ids of the tasks that are there."""
        return frozenset().union(*(self._at[each] for each in whereabouts))

    def lease_for(self, task_id: str, task_type: str, now: Instant) -> Lease:
        """The lease that the task was lost with, or a new one."""
        lost = self._at[LOST].get(task_id)
        return Lease(now.wall, 1, task_type) if lost is None else lost.lease

    def begin(self, task_id: str, lease: Lease, event: Event, now: Instant) -> None:
        """The task is leased; the event says what is done with it first."""
        self.move(task_id, event, now, lease)

    def defer(self, task_id: str, event: Event, not_before_s: float, now: Instant) -> bool:
        """The task is given back until a time (wall seconds); returns whether it was there to be given back."""
        moved = self.move(task_id, event, now)
        if moved and (entry := self._entries.get(task_id)) is not None:
            entry.not_before_s = not_before_s
        return moved

    def move(self, task_id: str, event: Event, now: Instant, lease: Lease = NO_LEASE) -> bool:
        """Move the task as the event demands; returns whether it is elsewhere now. Raises `IllegalEvent`.

        `lease` is given where the task may not have one yet.
        """
        entry = self._entries.get(task_id)
        before = NEW if entry is None else entry.whereabouts
        after = _MOVES[event].get(before)
        if after is None:
            raise IllegalEvent(before, event)
        if after is before:
            return False
        if entry is None:
            self._entries[task_id] = self._at[after][task_id] = LeaseEntry(lease, after, now.mono)
        else:
            self._relocate(task_id, entry, after)
            entry.heard_at_s = now.mono
            if lease is not NO_LEASE:
                entry.lease = lease
        return True

    def renew(self, task_ids: Iterable[str], event: Event, now: Instant) -> None:
        """A holder listed these tasks. This runs for each task every few seconds, so it is kept short."""
        moves, mono, find = _MOVES[event], now.mono, self._entries.get
        for task_id in task_ids:
            entry = find(task_id)
            if entry is None:
                continue  # NEW, and stays so
            before = entry.whereabouts
            after = moves[before]
            if after is not before:
                self._relocate(task_id, entry, after)
            entry.heard_at_s = mono

    def _relocate(self, task_id: str, entry: LeaseEntry, after: Whereabouts) -> None:
        del self._at[entry.whereabouts][task_id]
        entry.whereabouts = after
        if after is NEW:
            del self._entries[task_id]
        else:
            self._at[after][task_id] = entry
