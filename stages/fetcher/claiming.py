"""Between "leased" and "dispatched", for a queue that other pipelines work on too (CLAIM_TASKS).

    leased ──PATCH in_progress──accepted───────────► dispatched, and further as without claims
               │            └───refused (409, 404, …)──► another pipeline's: the lease ends
               └──no answer, 5xx, …──► tried again after a pause

A claimed task is not pending in the API any more. So a claimed task that gets lost is searched for among the tasks in
progress, and only a task that one of our leases names is taken back. For the same reason a claimed task that is given
back (a quota, a provider) keeps its lease: it is parked until its time has come, and counts as in flight meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from common.api.responses import ApiResponse, ApiResponses, in_words, meaning_of
from common.api.status import Meaning
from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled, Transient
from common.process.actions import Instant, Log
from common.wire import messages as m
from stages.fetcher.actions import Claim, DeleteLease, PendingClaim, Poll
from stages.fetcher.lease_expiry import LeaseExpiry
from stages.fetcher.lease_table import LEASED, Event, LeaseTable, Whereabouts
from stages.fetcher.poll_schedule import PollSchedule

CONNECTIONS = 16
"""At most this many claims are under way at a time."""
REFUSED_FOR_S = 60.0
"""How long a task whose claim was refused is not leased; after that it is looked at again, if it is still pending."""


class Claiming:
    """The claims, and the search for claimed tasks that were lost."""

    def __init__(self, table: LeaseTable, expiry: LeaseExpiry, schedule: PollSchedule, polling_interval_s: float):
        self.draining = False
        """Whether no new claim may be sent."""
        self._table = table
        self._expiry = expiry
        self._schedule = schedule
        self._polling_interval_s = polling_interval_s
        self._pending: dict[str, PendingClaim] = {}
        self._queue: deque[str] = deque()
        """Ids of pending claims that are not under way."""
        self._under_way_count = 0
        self._failures = 0
        """In a row."""
        self._cooldown = Cooldown()
        """After claims that failed, in monotonic seconds."""
        self._search_at_s = 0.0
        """Monotonic seconds: when to search for lost tasks among those in progress."""
        expiry.searched_at_s = 0.0

    @property
    def pending_count(self) -> int:
        """How many claims are not decided yet."""
        return len(self._pending)

    # ---- claims ----

    def queue(self, tasks: Iterable[m.Task]) -> None:
        """Claim these tasks, which are leased, as soon as possible."""
        for task in tasks:
            self._put(PendingClaim(task))

    def claim(self, now: Instant) -> Iterator[Claim]:
        """Send as many claims as may be under way."""
        token = self._schedule.access_token.usable(now)
        if token is None or self.draining or not self._cooldown.is_over(now.mono):
            return
        breaker = self._schedule.breaker
        while self._queue and self._under_way_count < CONNECTIONS and breaker.allows(now.mono):
            task_id = self._queue.popleft()
            if not self._is_claiming(task_id):
                self._pending.pop(task_id, None)  # settled or given back meanwhile
            elif task_id in self._pending:
                self._under_way_count += 1
                breaker.began()
                yield Claim(task_id, token)

    def on_api_responses(self, event: ApiResponses, now: Instant) -> Generator[Any, None, list[m.Task]]:
        """Act on what the API said about claims; returns the tasks whose claims it accepted."""
        accepted: list[m.Task] = []
        for response in event.responses:
            self._under_way_count -= 1
            pending = self._pending.pop(response.task_id, None)
            if pending is None or not self._is_claiming(response.task_id):
                continue  # settled or given back meanwhile
            means = meaning_of(response)
            if means is Meaning.OK or (means is Meaning.CONFLICT and pending.unsure):
                self._note_success()
                self._schedule.access_token.worked()
                accepted.append(pending.task)
            elif means is Meaning.TOKEN_REFUSED:
                self._note_success()
                yield from self._schedule.access_token.refused(response.fingerprint, now)
                self._put(pending, first=True)
            elif means in {Meaning.UNAVAILABLE, Meaning.TOKEN_DOUBTED}:
                yield from self._back_off(response, pending, now)
            else:
                self._note_success()
                yield from self._give_up(response, now)
        return accepted

    def _is_claiming(self, task_id: str) -> bool:
        return self._table.whereabouts(task_id) is Whereabouts.CLAIMING

    def _put(self, pending: PendingClaim, *, first: bool = False) -> None:
        self._pending[pending.task.id] = pending
        (self._queue.appendleft if first else self._queue.append)(pending.task.id)

    def _note_success(self) -> None:
        """The API answers, whatever it says about this task."""
        self._schedule.breaker.succeeded()
        self._failures = 0

    def _back_off(self, response: ApiResponse, pending: PendingClaim, now: Instant) -> Iterator[Any]:
        """Try again after a pause."""
        reason = in_words(response)
        error = Throttled(reason, response.retry_after_s) if response.retry_after_s else Transient(reason)
        self._failures += 1
        self._schedule.breaker.failed(now.mono, reason, error=error)
        delay = self._schedule.backoff.delay(self._failures, error)
        self._cooldown = self._cooldown.extended(now.mono + delay, reason)
        if meaning_of(response) is Meaning.TOKEN_DOUBTED:
            yield from self._schedule.access_token.refused(response.fingerprint, now)
        # the API may have accepted the claim before it failed
        pending.unsure = pending.unsure or response.status in {0, 408} or response.status >= 500
        self._put(pending)
        fields = {"task_id": response.task_id, "status": response.status, "reason": reason}
        yield Log("claim_failed", fields, "warning")

    def _give_up(self, response: ApiResponse, now: Instant) -> Iterator[Any]:
        """Leave the task to another pipeline, or to nothing if it is gone."""
        task_id = response.task_id
        self._table.defer(task_id, Event.CLAIM_REFUSED, now.wall + REFUSED_FOR_S, now)
        yield DeleteLease(task_id)
        yield Log("claim_refused", {"task_id": task_id, "status": response.status})

    # ---- claimed tasks that were lost, or given back ----

    def search_soon(self, now: Instant) -> None:
        """There are lost tasks to be searched for."""
        self._search_at_s = now.mono

    def search(self, now: Instant) -> Iterator[Poll]:
        """Search for the lost tasks among those in progress, if it is time."""
        lost = self._table.ids(Whereabouts.LOST)
        token = self._schedule.token(now, self._search_at_s) if lost else None
        if token is not None:
            self._search_at_s = now.mono + self._polling_interval_s
            self._schedule.begin()
            yield Poll(0, len(lost), self._table.ids(*LEASED), frozenset(), token, lost)

    def note_found(self, task_ids: Iterable[str], now: Instant) -> None:
        """The search found these lost tasks: they are still there, even if there is no room for them now."""
        self._expiry.searched_at_s = now.mono
        for task_id in task_ids:
            self._table.entry(task_id).heard_at_s = now.mono

    def end_parking(self, now: Instant) -> None:
        """Search for parked tasks whose time has come."""
        for task_id, entry in self._table.at(Whereabouts.PARKED):
            if entry.not_before_s <= now.wall:
                self._table.move(task_id, Event.COOLDOWN_ENDED, now)
                self.search_soon(now)
