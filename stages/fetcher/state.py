"""What the fetcher decides: which pending tasks are leased, when a lease is lost, and when to poll.

A task is, for the fetcher,

    unknown ──seen pending──► leased ──Published──► settled ──forgotten after a minute──► unknown
                               │  ▲
              lease not renewed│  │seen pending again (with attempt + 1 if its worker died with it)
                               ▼  │
                              lost ──not pending any more──► unknown

A lease that nobody renews for `lease_seconds` is lost. So is, much sooner, what waited in a rate limiter that died: the
next one says when it knows what there is, and what it does not name then, nor a second later, is nowhere. A mistake
would send it a task that it has, which it ignores; what a worker may have is never concluded to be lost in this way.
and besides: deferred (stays pending in the API until a time), dead (its result was refused for good: a dead letter).
A task that kills its workers is given up by the rate limiter, which sees whether they live without it. What is counted
here, where nobody can, when both were killed at once, makes a task more suspect and never gives it up.
At most `window` tasks are leased. Every transition that a restart must not forget is an action that writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from common.api.access_token import AccessToken
from common.failures.breaker import Breaker
from common.failures.errors import Throttled
from common.failures.retry import Backoff
from common.process.actions import Actions, Count, Instant, Log, Report, Send, task_fields
from common.recently_settled import DeleteSettled, RecentlySettled
from common.wire import messages as m
from common.wire.timing import (
    IN_TRANSIT_S,
    REQUEUED_AFTER_S,
    STOPPED_AFTER_S,
    UNCONFIRMED_S,
    holder_silent_after_s,
    renewal_interval_s,
)
from stages.fetcher.actions import (
    DeleteDead,
    DeleteLease,
    Held,
    Lease,
    Poll,
    PollFailed,
    PutDead,
    PutLease,
    PutSettled,
)
from stages.fetcher.page import Candidate, Page

CHUNK = 256
"""Tasks in one message: large enough to cost nothing, small enough to be handled between two heartbeats."""
ENOUGH_ROOM = 4
"""A poll for what a full page hid waits until this part of the window is free: the rest keeps the workers busy."""
EXPIRE_EVERY = 1.0
"""Seconds between two looks at all leases."""
SLOWEST_PAGE = 120.0
"""Seconds: a page is never older than this when it is taken."""
SETTLED_POLL = 0.1
"""Seconds: at most this often is a settled task a reason to poll an API that caps its pages."""
MOST_UNKNOWN_TYPES = 1000
"""Logged once each; more are only counted."""
IN_THE_WAY = ("unknown_type", "other_shard", "deferred", "not_pending", "malformed", "no_id")
"""Reasons for which elements are skipped in every page: an API that obeys `limit` is asked for so many more."""
FORGET_LOST = 600.0
"""Seconds: after that a lost task that no page shows is given up; if it is pending after all, it is simply new."""


class Limits(NamedTuple):
    """The settings that the decisions depend on."""

    window: int
    lease_seconds: float
    max_dispatches: int
    polling_interval: float
    breaker_threshold: int = 5
    backoff_factor: float = 2.0


class Fetcher:
    """The state; its handlers return actions."""

    def __init__(
        self, limits: Limits, inbox: str, restored: dict[str, Lease], dead: Iterable[str], now: Instant
    ) -> None:
        self.limits = limits
        self.leases = {task_id: Held(lease, now.mono) for task_id, lease in restored.items()}
        self.lost: dict[str, tuple[Lease, float]] = {}
        self.settled = RecentlySettled(REQUEUED_AFTER_S + SLOWEST_PAGE)
        self.dead = set(dead)
        self._backoff = Backoff(1.0, limits.backoff_factor, 60.0)
        self.breaker = Breaker("api", limits.breaker_threshold, self._backoff)
        self.deferred: dict[str, float] = {}
        """Task id → not before (wall seconds)."""
        self.deferred_keys: dict[str, float] = {}
        """Batch key, or `*` → not before (wall seconds)."""
        self._bearer = AccessToken(inbox)
        self._buffer: deque[Candidate] = deque()
        self._unknown_types: set[str] = set()
        self._buffered_at = Instant(0.0, 0.0)
        self._polling = False
        self._polled_at = float("-inf")
        self._next_poll = 0.0
        self._not_before = 0.0
        """Monotonic seconds; no reason to poll is good enough before it."""
        self._patience_for = ""
        """What the API said when it asked for patience, if it did."""
        self._largest_page = 0
        self._pages_full = False
        self._asked = 0
        """Elements that the last poll asked for."""
        self._in_the_way = 0
        """Elements of the last page that stay pending, and are not for now or not for us."""
        self._ticked = now.mono
        self._next_expiry = now.mono
        self._suspected: set[str] = set()
        """What waited in a rate limiter that died, and nobody has named since the next one knows what it has."""
        self._judge_at = 0.0
        self._limiter_heard = now.mono
        self._publisher_heard = now.mono
        self._draining = False

    @property
    def room(self) -> int:
        """How many more tasks may be leased."""
        return max(0, self.limits.window - len(self.leases))

    # ---- what comes in ----

    def token(self, message: m.Token, now: Instant) -> Actions:
        """Use this access token from now on."""
        self._bearer.take(message)
        return self._poll_if_due(now)

    def page(self, page: Page, now: Instant) -> Actions:
        """Take the oldest new tasks that fit the window, and keep a bounded number of the others for a moment."""
        self._polling = False
        self.breaker.succeeded()
        self._bearer.worked()
        yield from self._say_skipped(page)
        self._largest_page = max(self._largest_page, page.elements)
        self._pages_full = page.elements >= min(self.limits.window, self._largest_page) > 0
        if page.whole and not self._pages_full and "deferred" not in page.skipped:
            yield from self._forget_gone({candidate.task.id for candidate in page.candidates})
        in_the_way, self._in_the_way = self._in_the_way, sum(page.skipped.get(reason, 0) for reason in IN_THE_WAY)
        hidden = page.elements >= self._asked > 0 and self._in_the_way > in_the_way
        before = len(self.leases)
        self._buffer, self._buffered_at = deque(page.candidates), Instant(now.mono, page.requested_at)
        yield from self._take(now)
        if not self.room or (len(self.leases) == before and not hidden):
            self._next_poll = self._polled_at + self.limits.polling_interval
        # else at once: where these came from, or behind those in the way, may be more
        yield from self._poll_if_due(now)

    def poll_failed(self, event: PollFailed, now: Instant) -> Actions:
        """Back off; a refused token is replaced first."""
        self._polling = False
        error = event.error
        yield Log("poll_failed", {"reason": str(error)}, "warning")
        self.breaker.failed(now.mono, str(error), error=error)
        self._patience_for = str(error) if isinstance(error, Throttled) else ""
        if not event.rejected or self.breaker.failures > 1:  # a refused token is replaced at once, the first time
            self._not_before = now.mono + self._backoff.delay(self.breaker.failures, error)
        if event.rejected:
            yield from self._bearer.refused(event.rejected, now)

    def published(self, message: m.Published, now: Instant) -> Actions:
        """Settle tasks: their leases end, and the room that they leave is filled."""
        for task_id in (*message.accepted, *message.dead):
            yield from self._end_lease(task_id)
        for task_id in message.dead:
            if task_id not in self.dead:
                self.dead.add(task_id)
                yield PutDead(task_id)
        for task_id in (*message.accepted, *message.dropped):
            if task_id in self.dead:
                self.dead.discard(task_id)
                yield DeleteDead(task_id)
        if message.accepted:
            yield PutSettled(self.settled.settle(now.wall, message.accepted))
        yield from self._take(now)
        if self._pages_full and not self._buffer and self.room >= self.limits.window // ENOUGH_ROOM:
            self._next_poll = min(self._next_poll, self._polled_at + SETTLED_POLL)
        yield from self._poll_if_due(now)

    def holding(self, message: m.Holding, now: Instant) -> Actions:
        """Renew the leases of what the sender is answerable for."""
        if message.inventory_complete:
            self._suspect(now)
        if message.stage == "rate_limiter":
            if self._limiter_silent(now):
                self._credit(now.mono - self._limiter_heard, now)  # embedders and its inbox may hold what is leased
            self._limiter_heard = now.mono
        else:
            self._publisher_heard = now.mono
        for ids, working in ((message.ids, False), (message.embedding, True)):
            for task_id in ids:
                held = self.leases.get(task_id)
                if held is None and task_id in self.lost:
                    # it was only silent: whoever held it still does
                    held = self.leases[task_id] = Held(self.lost.pop(task_id)[0], now.mono)
                if held is not None:
                    held.heard = now.mono
                    held.stored = held.stored or message.stage == "publisher"
                    held.working = working and not held.stored
                    held.waiting = not working and not held.stored
        self._suspected.difference_update(message.ids, message.embedding)
        if message.dead is not None:
            yield from self._agree_on_dead(set(message.dead) | self.dead.intersection(message.ids))

    def given_back(self, message: m.Deferred, now: Instant) -> Actions:
        """End the leases of deferred tasks; they stay pending, and are not taken again before their time."""
        if message.key is not None:
            self.deferred_keys[message.key] = message.until
        for task_id in message.ids:
            held = self.leases.get(task_id)
            if held is not None and held.stored:
                continue  # an embedder died after its result was stored, and nobody else knows
            lease = held.lease if held else self.lost.pop(task_id, (None, 0.0))[0]
            if lease is None:
                continue
            self.leases.pop(task_id, None)
            if message.reason == "poison":
                yield from self._fail_poison(task_id, lease, now)
                continue
            yield from self._give_back(task_id, lease, message)
        yield from self._poll_if_due(now)

    # ---- what time brings ----

    def tick(self, now: Instant) -> Actions:
        """Expire leases, forget what was settled long ago, ask for a token, poll."""
        gap = now.mono - self._ticked
        self._ticked = now.mono
        if gap > renewal_interval_s(self.limits.lease_seconds):
            self._credit(gap, now)  # this process was stopped: that says nothing about the holders
            self._limiter_heard = min(self._limiter_heard + gap, now.mono)
            self._publisher_heard = min(self._publisher_heard + gap, now.mono)
        if gap > STOPPED_AFTER_S:
            self._judge_at += gap
        if self._suspected and now.mono >= self._judge_at:
            yield from self._lose_suspected(now)
        if now.mono >= self._next_expiry:
            self._next_expiry = now.mono + min(EXPIRE_EVERY, renewal_interval_s(self.limits.lease_seconds))
            yield from self._expire(now)
        for record in self.settled.forget(now.wall):
            yield DeleteSettled(record)
        for table in (self.deferred, self.deferred_keys):
            for name in [name for name, until in table.items() if until <= now.wall]:
                del table[name]
                self._next_poll = min(self._next_poll, now.mono)
        yield from self._bearer.ask(now)
        yield from self._poll_if_due(now)

    def drain(self, now: Instant) -> Actions:  # noqa: ARG002  the loop's signature
        """Take nothing new: the leases are on disk, and what is under way ends without the fetcher."""
        self._draining = True
        return ()

    def report(self, now: Instant) -> Report:
        """What the heartbeat says."""
        blockers = []
        if problem := self._bearer.problem(now):
            blockers.append(problem)
        if self.breaker.reason:
            blockers.append(f"the API does not answer polls: {self.breaker.reason}")
        elif self._patience_for and now.mono < self._not_before:
            wait = self._not_before - now.mono
            blockers.append(f"the API asks for patience: {self._patience_for}; next poll in {wait:.0f} s")
        if self._limiter_silent(now):
            blockers.append("the rate limiter does not say what it holds")
        facts: dict[str, Any] = {"leased": len(self.leases), "lost": len(self.lost), "dead_letters": len(self.dead)}
        if until := self._asleep_until(now):
            facts["deferred_until"] = until
        return Report(blockers, facts)

    # ---- leases ----

    def _agree_on_dead(self, dead: set[str]) -> Iterator[Any]:
        """Take over the publisher's list: a `Published` that came while this process died is never said again."""
        for task_id in dead - self.dead:
            yield from self._end_lease(task_id)
            yield PutDead(task_id)
        for task_id in self.dead - dead:
            yield DeleteDead(task_id)
        self.dead = dead

    def _take(self, now: Instant) -> Iterator[Any]:
        """Lease from the buffer, oldest first, as far as there is room; a stale buffer is thrown away."""
        if now.mono - self._buffered_at.mono > self.limits.polling_interval:
            self._buffer.clear()
        taken: list[m.Task] = []
        failed: list[Candidate] = []
        while self.room and self._buffer and not self._draining and not self._limiter_silent(now):
            candidate = self._buffer.popleft()
            if not self._is_new(candidate.task, now):
                continue
            task_id = candidate.task.id
            task, lease = self._lease(candidate.task, now)
            if lease.attempt > self.limits.max_dispatches:  # given up before, but that was lost on its way
                yield from self._fail_poison(task_id, lease, now)
                continue
            self.leases[task_id] = Held(lease, now.mono)
            yield PutLease(task_id, lease)
            if candidate.failure is None:
                taken.append(task)
            else:
                failed.append(msgspec.structs.replace(candidate, task=task))
        yield from self._dispatch(taken, now)
        for candidate in failed:
            task, failure = candidate.task, candidate.failure
            yield Send("publisher", m.Results("", "", [m.Result(task.id, task.type, task.leased_at, failure=failure)]))
            yield Log("task_invalid", {"task_id": task.id, "reason": failure and failure.message}, "warning")

    def _dispatch(self, tasks: list[m.Task], now: Instant) -> Iterator[Any]:  # noqa: ARG002  for those who override it
        for task in tasks:
            self.leases[task.id].waiting = True
        for start in range(0, len(tasks), CHUNK):
            chunk = tasks[start : start + CHUNK]
            yield Send("rate_limiter", m.Tasks(chunk))
            yield Log("leased", task_fields([task.id for task in chunk]))

    def _give_back(self, task_id: str, lease: Lease, message: m.Deferred) -> Iterator[Any]:  # noqa: ARG002
        if message.key is None:
            self.deferred[task_id] = message.until
        yield DeleteLease(task_id)

    def _is_new(self, task: m.Task, now: Instant) -> bool:
        if task.id in self.leases or task.id in self.dead:
            return False
        by_key = max(self.deferred_keys.get(task.key, 0.0), self.deferred_keys.get("*", 0.0))
        if max(self.deferred.get(task.id, 0.0), by_key) > now.wall:
            return False
        settled_at = self.settled.at(task.id)
        return settled_at is None or self._buffered_at.wall > settled_at + REQUEUED_AFTER_S

    def _lease(self, task: m.Task, now: Instant) -> tuple[m.Task, Lease]:
        lost, _ = self.lost.pop(task.id, (None, 0.0))
        lease = lost or Lease(now.wall, 1, task.type)
        return msgspec.structs.replace(task, leased_at=lease.leased_at, attempt=lease.attempt), lease

    def _fail_poison(self, task_id: str, lease: Lease, now: Instant) -> Iterator[Any]:
        # stored beyond the last attempt, so that the verdict stands even if this result is lost on its way
        lease = msgspec.structs.replace(lease, attempt=max(lease.attempt, self.limits.max_dispatches + 1))
        self.leases[task_id] = Held(lease, now.mono)
        yield PutLease(task_id, lease)
        failure = m.Failure(
            "poison_task", f"given up after {self.limits.max_dispatches} dispatches that each lost their worker"
        )
        yield Send("publisher", m.Results("", "", [m.Result(task_id, lease.type, lease.leased_at, failure=failure)]))
        yield Log("task_poison", {"task_id": task_id, "dispatches": self.limits.max_dispatches}, "error")

    def _expire(self, now: Instant) -> Iterator[Any]:
        """A lease that nobody renewed is lost."""
        if silent := [i for i, held in self.leases.items() if self._is_silent(i, held, now)]:
            yield from self._lose(silent, now)
        for task_id in [i for i, (_, since) in self.lost.items() if now.mono - since > FORGET_LOST]:
            del self.lost[task_id]
            yield DeleteLease(task_id)

    def _suspect(self, now: Instant) -> None:
        """What waited in an earlier rate limiter, unless it may lie in the inbox of this one yet."""
        sent_before = now.mono - IN_TRANSIT_S
        self._suspected = {i for i, held in self.leases.items() if held.waiting and held.heard < sent_before}
        self._judge_at = now.mono + UNCONFIRMED_S

    def _lose_suspected(self, now: Instant) -> Iterator[Any]:
        lost = [i for i, held in self.leases.items() if held.waiting and i in self._suspected]
        self._suspected.clear()
        if lost:
            yield from self._lose(lost, now)

    def _lose(self, task_ids: list[str], now: Instant) -> Iterator[Any]:
        """Nobody has them; the next page tells which are still pending."""
        for task_id in task_ids:
            held = self.leases.pop(task_id)
            if held.working and held.lease.attempt < self.limits.max_dispatches:  # beyond, it would be the verdict
                held.lease = msgspec.structs.replace(held.lease, attempt=held.lease.attempt + 1)
            self.lost[task_id] = (held.lease, now.mono)
            yield PutLease(task_id, held.lease)
        self._next_poll = now.mono
        yield Count("leases_expired_total", amount=len(task_ids))
        yield Log("leases_expired", task_fields(task_ids), "warning")

    def _is_silent(self, task_id: str, held: Held, now: Instant) -> bool:  # noqa: ARG002  for those who override it
        """Whether its holder could have renewed it and has not.

        A stopped publisher still has what it stored. While the rate limiter is gone, nobody can say what embedders
        have, nor what waits before its inbox.
        """
        if held.stored:
            return self._publisher_heard - held.heard > self.limits.lease_seconds
        return now.mono - held.heard > self.limits.lease_seconds and not self._limiter_silent(now)

    def _credit(self, seconds: float, now: Instant) -> None:
        """Give each holder so much more time."""
        for held in self.leases.values():
            held.heard = min(held.heard + seconds, now.mono)

    def _end_lease(self, task_id: str) -> Iterator[Any]:
        self.lost.pop(task_id, None)
        self.leases.pop(task_id, None)
        yield DeleteLease(task_id)

    def _forget_gone(self, pending: set[str]) -> Iterator[Any]:
        for task_id in [i for i in self.lost if i not in pending]:
            del self.lost[task_id]
            yield DeleteLease(task_id)

    # ---- polling ----

    def _say_skipped(self, page: Page) -> Iterator[Any]:
        for reason, count in page.skipped.items():
            yield Count("ai_tasks_skipped_total", (reason,), count)
        for reason in ("malformed", "no_id"):
            if page.skipped.get(reason):
                yield Log("page_element_skipped", {"reason": reason, "count": page.skipped[reason]}, "warning")
        for unknown in page.unknown_types:
            if unknown not in self._unknown_types and len(self._unknown_types) < MOST_UNKNOWN_TYPES:
                self._unknown_types.add(unknown)
                yield Log("unknown_task_type", {"type": unknown, "reason": "left alone: another worker's"}, "warning")

    def _limiter_silent(self, now: Instant) -> bool:
        """Whether the rate limiter is gone: it has not spoken twice, and what is sent to it would only pile up."""
        return now.mono - self._limiter_heard > holder_silent_after_s(self.limits.lease_seconds)

    def _asleep_until(self, now: Instant) -> float | None:
        until = self.deferred_keys.get("*", 0.0)
        return until if until > now.wall else None

    def _may_poll(self, now: Instant) -> bool:
        """Whether there is room for tasks, and nothing that keeps them from being processed."""
        if self._polling or self._draining or not self.room or self._limiter_silent(now):
            return False
        return not self._asleep_until(now) and self.breaker.allows(now.mono)

    def _poll_if_due(self, now: Instant) -> Iterator[Any]:
        if now.mono < max(self._next_poll, self._not_before) or not self._may_poll(now):
            return
        token = self._bearer.usable(now)
        if token is None:
            return
        self._polling = True
        self._polled_at = now.mono
        self.breaker.began()
        window = self.limits.window
        known = frozenset(self.leases).union(self.dead, self.deferred)
        self._asked = window + len(self.dead) + len(self.deferred) + self._in_the_way
        yield Poll(self._asked, self.room + window, known, frozenset(self.deferred_keys), token)
