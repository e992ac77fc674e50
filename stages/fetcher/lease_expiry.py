"""When a lease is lost: it is not renewed for `lease_seconds`, or a new rate limiter does not list its task.

The holder of a task lists it (`Holding`) every third of a lease. A task that is not listed for a whole lease is lost.
A silence proves nothing in three cases: this process was stopped itself; the rate limiter is gone, so it is not known
what embedders have; the publisher is gone, but what it stored is on its disk. After a restart of this process that may
be any task, until the publisher has listed all that it holds.

The second way is much faster. A rate limiter that has just started sends its complete inventory once. A task that
waited in its predecessor, and that it lists neither then nor within `UNCONFIRMED_S`, is lost. If that is wrong, the
rate limiter gets a task twice, and ignores the second one. A task that an embedder may have is never lost in this way,
because it may already be paid for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from common.process.actions import Count, Instant, Log, task_fields
from common.wire import messages as m
from common.wire.timing import (
    IN_TRANSIT_S,
    STOPPED_AFTER_S,
    UNCONFIRMED_S,
    holder_silent_after_s,
    renewal_interval_s,
)
from stages.fetcher.actions import DeleteLease, PutLease
from stages.fetcher.lease_table import HELD, LEASED, Event, LeaseEntry, LeaseTable, Whereabouts

EXPIRY_INTERVAL_S = 1.0
"""How often all leases are looked at."""
FORGET_LOST_S = 600.0
"""A lost task that no page has shown for this long is forgotten; if it is pending after all, it is simply new."""


class LeaseExpiry:
    """Which holder was heard of when, and what follows for the leases."""

    def __init__(self, table: LeaseTable, lease_seconds: float, max_dispatches: int, now: Instant) -> None:
        self.found: frozenset[str] = frozenset()
        """The lost tasks that the latest search found: without room for them there is no further search."""
        self.searched_at_s = float("inf")
        """Monotonic seconds of the last search for lost tasks; a task lost later is not forgotten before the next."""
        self._table = table
        self._lease_s = lease_seconds
        self._max_dispatches = max_dispatches
        self._ticked_at_s = now.mono
        self._next_expiry_s = now.mono
        self._limiter_heard_s = now.mono
        self._publisher_heard_s = now.mono
        self._has_publisher_listed = False
        """Whether the publisher has listed all that it holds since this process started."""
        self._unlisted: set[str] = set()
        """Tasks that waited in a rate limiter that died, and that its successor has not listed yet."""
        self._unlisted_until_s = 0.0
        """Monotonic seconds: what is not listed by then is lost."""

    def is_limiter_silent(self, now: Instant) -> bool:
        """Whether the rate limiter is gone: it missed two renewals, and what is sent to it would only pile up."""
        return now.mono - self._limiter_heard_s > holder_silent_after_s(self._lease_s)

    def renew(self, message: m.Holding, now: Instant) -> None:
        """Renew the leases of the tasks that a holder lists."""
        if message.inventory_complete:
            self._note_unlisted(now)
        if message.stage == "rate_limiter":
            if self.is_limiter_silent(now):
                self._extend(now.mono - self._limiter_heard_s, now)  # embedders and its inbox may hold what is leased
            self._limiter_heard_s = now.mono
            self._table.renew(message.ids, Event.LISTED_WAITING, now)
            self._table.renew(message.embedding, Event.LISTED_EMBEDDING, now)
        else:
            self._publisher_heard_s = now.mono
            self._has_publisher_listed = self._has_publisher_listed or message.dead is not None
            self._table.renew(message.ids, Event.LISTED_STORED, now)
            self._table.renew(message.embedding, Event.LISTED_STORED, now)
            self._table.renew(message.parked, Event.LISTED_PARKED, now)
        if self._unlisted:
            self._unlisted.difference_update(message.ids, message.embedding, message.parked)

    def tick(self, now: Instant) -> Generator[Any, None, bool]:
        """Find what is lost; returns whether anything is."""
        gap = now.mono - self._ticked_at_s
        self._ticked_at_s = now.mono
        if gap > renewal_interval_s(self._lease_s):
            self._extend(gap, now)  # this process was stopped: that says nothing about the holders
            self._limiter_heard_s = min(self._limiter_heard_s + gap, now.mono)
            self._publisher_heard_s = min(self._publisher_heard_s + gap, now.mono)
        if gap > STOPPED_AFTER_S:
            self._unlisted_until_s += gap
        lost = self._confirmed_unlisted() if self._unlisted and now.mono >= self._unlisted_until_s else []
        yield from self._lose(lost, now)
        if now.mono >= self._next_expiry_s:
            self._next_expiry_s = now.mono + min(EXPIRY_INTERVAL_S, renewal_interval_s(self._lease_s))
            expired = [task_id for task_id, entry in self._table.at(*HELD) if self._is_expired(entry, now)]
            yield from self._lose(expired, now)
            lost += expired
            yield from self._forget_lost(now)
        return bool(lost)

    def forget_gone(self, pending: set[str], now: Instant) -> Iterator[DeleteLease]:
        """Forget the lost tasks that are not pending any more."""
        for task_id, _ in self._table.at(Whereabouts.LOST):
            if task_id not in pending:
                self._table.move(task_id, Event.FORGOTTEN, now)
                yield DeleteLease(task_id)

    def _note_unlisted(self, now: Instant) -> None:
        """Suppose that what waited is lost, unless it was sent so late that it may still be in transit."""
        sent_before = now.mono - IN_TRANSIT_S
        waiting = self._table.at(Whereabouts.WAITING)
        self._unlisted = {task_id for task_id, entry in waiting if entry.heard_at_s < sent_before}
        self._unlisted_until_s = now.mono + UNCONFIRMED_S

    def _confirmed_unlisted(self) -> list[str]:
        lost = [task_id for task_id, _ in self._table.at(Whereabouts.WAITING) if task_id in self._unlisted]
        self._unlisted.clear()
        return lost

    def _is_expired(self, entry: LeaseEntry, now: Instant) -> bool:
        """Whether the holder could have renewed the lease, and has not."""
        if entry.whereabouts in {Whereabouts.STORED, Whereabouts.REFUSED}:
            return self._publisher_heard_s - entry.heard_at_s > self._lease_s
        if entry.whereabouts is Whereabouts.RESTORED and not self._has_publisher_listed:
            return False  # its result may be on the publisher's disk
        return now.mono - entry.heard_at_s > self._lease_s and not self.is_limiter_silent(now)

    def _lose(self, task_ids: list[str], now: Instant) -> Iterator[Any]:
        """End the leases of tasks that no process holds; the next page tells which are still pending."""
        for task_id in task_ids:
            entry = self._table.entry(task_id)
            lease = entry.lease
            if entry.whereabouts is Whereabouts.EMBEDDING and lease.attempt < self._max_dispatches:
                # not beyond: only the rate limiter gives a task up, since only it sees whether the embedder lives
                lease = entry.lease = msgspec.structs.replace(lease, attempt=lease.attempt + 1)
            self._table.move(task_id, Event.EXPIRED, now)
            yield PutLease(task_id, lease)
        if task_ids:
            yield Count("leases_expired_total", amount=len(task_ids))
            yield Log("leases_expired", task_fields(task_ids), "warning")

    def _forget_lost(self, now: Instant) -> Iterator[Any]:
        for task_id, entry in self._table.at(Whereabouts.LOST):
            if task_id in self.found or entry.heard_at_s > self.searched_at_s:  # seen, or not searched for since
                entry.heard_at_s = now.mono
            elif now.mono - entry.heard_at_s > FORGET_LOST_S:
                self._table.move(task_id, Event.FORGOTTEN, now)
                yield DeleteLease(task_id)

    def _extend(self, seconds: float, now: Instant) -> None:
        """Give each holder this much more time."""
        for _, entry in self._table.at(*LEASED):
            entry.heard_at_s = min(entry.heard_at_s + seconds, now.mono)
