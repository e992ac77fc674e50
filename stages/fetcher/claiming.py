"""The fetcher of a queue that others work on too (CLAIM_TASKS): a task is PATCHed `in_progress` before work begins.

    leased ──PATCH in_progress──accepted──► dispatched, and on as without claims
               │            └──refused (409, 404, …)──► another's: the lease ends
               └──no answer, 5xx, …──► again later

A claimed task is not pending any more, so one that gets lost is looked for among those in progress: only what a lease
of ours names is taken back. For the same reason a task that is given back (a quota, a provider) keeps its lease; it is
parked until its time has come, and counts against the window meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from common.api.responses import ApiResponse, ApiResponses, in_words
from common.failures.errors import Throttled, Transient
from common.process.actions import Actions, Instant, Log, Report, task_fields
from common.wire import messages as m
from stages.fetcher.actions import Held, Lease, Poll
from stages.fetcher.page import Page
from stages.fetcher.state import Fetcher

CONNECTIONS = 16
"""Claims under way at a time."""
REFUSED_FOR = 60.0
"""Seconds until a task whose claim was refused is looked at again, if it is still pending then."""


class Claim(NamedTuple):
    """PATCH this task `in_progress`."""

    task_id: str
    token: m.Token


class Wanted(msgspec.Struct):
    """A leased task whose claim is not decided yet."""

    task: m.Task
    unsure: bool = False
    """An earlier claim had no answer: it may have been accepted, and then a 409 is about ourselves."""


class ClaimingFetcher(Fetcher):
    """The state; its handlers return actions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wanted: dict[str, Wanted] = {}
        self._due: deque[str] = deque()
        self._under_way = 0
        self._failures = 0
        self._claim_after = 0.0
        """Monotonic seconds; the pause after claims that failed."""
        self._ours: set[str] = set()
        """Tasks in progress that are just being taken back: they need no claim."""
        self.parked: dict[str, tuple[Lease, float]] = {}
        """Given back: task id → its lease, and not before (wall seconds)."""
        self._look_at = 0.0
        """Monotonic seconds; when to look for lost tasks among those in progress."""
        self._looked_at = 0.0
        """Monotonic seconds; when that was answered last."""

    @property
    def room(self) -> int:
        """How many more tasks may be leased; what is parked is claimed, and has to end some time."""
        return max(0, super().room - len(self.parked))

    # ---- claims ----

    def answers(self, event: ApiResponses, now: Instant) -> Actions:
        """Act on what the API said of claims."""
        granted: list[m.Task] = []
        for answer in event.responses:
            self._under_way -= 1
            wanted = self._wanted.pop(answer.task_id, None)
            if wanted is None or answer.task_id not in self.leases:
                continue  # settled meanwhile
            status = answer.status
            if 200 <= status < 300 or (status == 409 and wanted.unsure):
                self._reached()
                self._bearer.worked()
                granted.append(wanted.task)
            elif status == 401:
                self._reached()
                yield from self._bearer.refused(answer.fingerprint, now)
                self._again(wanted, first=True)
            elif status in {403, 408, 425, 429} or status < 400 or status >= 500:
                yield from self._later(answer, wanted, now)
            else:
                self._reached()
                yield from self._leave(answer, now)
        yield from super()._dispatch(granted, now)
        yield from self._take(now)
        yield from self._claim(now)
        yield from self._poll_if_due(now)

    def _dispatch(self, tasks: list[m.Task], now: Instant) -> Iterator[Any]:
        yield from super()._dispatch([task for task in tasks if task.id in self._ours], now)
        for task in tasks:
            if task.id in self._ours:
                self._ours.discard(task.id)
            else:
                self._again(Wanted(task))
        yield from self._claim(now)

    def _claim(self, now: Instant) -> Iterator[Any]:
        token = self._bearer.usable(now)
        if token is None or self._draining or now.mono < self._claim_after:
            return
        while self._due and self._under_way < CONNECTIONS and self.breaker.allows(now.mono):
            task_id = self._due.popleft()
            if task_id in self._wanted and task_id in self.leases:
                self._under_way += 1
                self.breaker.began()
                yield Claim(task_id, token)

    def _again(self, wanted: Wanted, *, first: bool = False) -> None:
        self._wanted[wanted.task.id] = wanted
        (self._due.appendleft if first else self._due.append)(wanted.task.id)

    def _reached(self) -> None:
        """Tell that the API answers."""
        self.breaker.succeeded()
        self._failures = 0

    def _later(self, answer: ApiResponse, wanted: Wanted, now: Instant) -> Iterator[Any]:
        reason = in_words(answer)
        error = Throttled(reason, answer.retry_after_s) if answer.retry_after_s else Transient(reason)
        self._failures += 1
        self.breaker.failed(now.mono, reason, error=error)
        self._claim_after = max(self._claim_after, now.mono + self._backoff.delay(self._failures, error))
        if answer.status == 403:
            yield from self._bearer.refused(answer.fingerprint, now)
        wanted.unsure = wanted.unsure or answer.status in {0, 408} or answer.status >= 500
        self._again(wanted)
        yield Log("claim_failed", {"task_id": answer.task_id, "status": answer.status, "reason": reason}, "warning")

    def _leave(self, answer: ApiResponse, now: Instant) -> Iterator[Any]:
        """Another worker has it, or it is gone."""
        task_id = answer.task_id
        self.deferred[task_id] = now.wall + REFUSED_FOR
        yield from self._end_lease(task_id)
        yield Log("claim_refused", {"task_id": task_id, "status": answer.status})

    # ---- what is given back, lost and found ----

    def published(self, message: m.Published, now: Instant) -> Actions:
        """Settle also what is parked: a result may come late."""
        for task_id in (*message.accepted, *message.dead):
            self.parked.pop(task_id, None)
        return super().published(message, now)

    def page(self, page: Page, now: Instant) -> Actions:
        """Take back tasks in progress; pending ones are claimed first."""
        self._ours.clear()
        if not page.in_progress:
            yield from super().page(page, now)
            return
        self._polling = False
        self._reached()
        self._bearer.worked()
        self._ours = {candidate.task.id for candidate in page.candidates if candidate.task.id in self.lost}
        self._looked_at = now.mono
        for task_id in self._ours:
            self.lost[task_id] = (self.lost[task_id][0], now.mono)  # still there, should there be no room for it now
        if self._ours:
            yield Log("taken_back", task_fields(sorted(self._ours)))
        self._buffer = deque(candidate for candidate in page.candidates if candidate.task.id in self._ours)
        self._buffered_at = Instant(now.mono, page.requested_at)
        yield from self._take(now)
        self._next_poll = now.mono  # for what was in the buffer
        yield from self._poll_if_due(now)

    def tick(self, now: Instant) -> Actions:
        """Besides: look for what was parked until now, and claim again."""
        for task_id in [task_id for task_id, (_, until) in self.parked.items() if until <= now.wall]:
            self.lost[task_id] = (self.parked.pop(task_id)[0], now.mono)
            self._look_at = now.mono
        yield from super().tick(now)
        yield from self._claim(now)

    def report(self, now: Instant) -> Report:
        """What the heartbeat says."""
        report = super().report(now)
        report.facts |= {"claiming": len(self._wanted), "parked": len(self.parked)}
        return report

    def _give_back(self, task_id: str, lease: Lease, message: m.Deferred) -> Iterator[Any]:
        self.parked[task_id] = (lease, message.until)
        yield from ()

    def _is_silent(self, task_id: str, held: Held, now: Instant) -> bool:
        return task_id not in self._wanted and super()._is_silent(task_id, held, now)

    def _expire(self, now: Instant) -> Iterator[Any]:
        for task_id, (lease, since) in self.lost.items():
            if since > self._looked_at:  # nobody could look for it yet: only then may it be given up as gone
                self.lost[task_id] = (lease, now.mono)
        yield from super()._expire(now)

    def _lose(self, task_ids: list[str], now: Instant) -> Iterator[Any]:
        self._look_at = now.mono
        yield from super()._lose(task_ids, now)

    def _forget_gone(self, pending: set[str]) -> Iterator[Any]:  # noqa: ARG002
        """A claimed task is not pending, and not gone for it."""
        yield from ()

    def _poll_if_due(self, now: Instant) -> Iterator[Any]:
        if self.lost and now.mono >= max(self._look_at, self._not_before) and self._may_poll(now):
            token = self._bearer.usable(now)
            if token is not None:
                self._look_at = now.mono + self.limits.polling_interval
                self._polling = True
                self.breaker.began()
                known, lost = frozenset(self.leases), frozenset(self.lost)
                yield Poll(0, len(lost), known, frozenset(), token, lost)
                return
        yield from super()._poll_if_due(now)
