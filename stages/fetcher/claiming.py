"""Between "leased" and "dispatched", for a queue that other pipelines work on too (CLAIM_TASKS).

    leased ──PATCH in_progress──accepted───────────► dispatched, and further as without claims
               │            └───refused (409, 404, …)──► another pipeline's: the lease ends
               └──no answer, 5xx, …──► tried again after a pause (`claim_refusals`)

A claimed task is not pending in the API any more. So a claimed task that gets lost is searched for among the tasks in
progress, and only a task that one of our leases names is taken back. For the same reason a claimed task that is given
back (a quota, a provider) keeps its lease: it is parked until its time has come, and counts as in flight meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from common.api.patch_queue import PatchQueue
from common.api.responses import ApiResponse, ApiResponses, meaning_of
from common.api.status import Meaning
from common.failures.breaker import State
from common.process.actions import Instant, Log
from common.wire import messages as m
from stages.fetcher.actions import Claim, DeleteLease, PendingClaim, Poll
from stages.fetcher.claim_refusals import ClaimRefusals
from stages.fetcher.config import FetcherConfig
from stages.fetcher.lease_expiry import LeaseExpiry
from stages.fetcher.lease_table import LEASED, Event, LeaseTable, Whereabouts
from stages.fetcher.poll_schedule import PollSchedule
from stages.fetcher.second_claims import SecondClaims

TOKEN_DOUBTED_S = 1.0
"""The longest time that a claim waits, when its token was refused, for another token or a sign that this one works."""
REFUSED_FOR_S = 60.0
"""How long a task whose claim was refused is not leased; after that it is looked at again, if it is still pending."""


class Claiming:
    """The claims, and the search for claimed tasks that were lost."""

    def __init__(self, table: LeaseTable, expiry: LeaseExpiry, schedule: PollSchedule, config: FetcherConfig) -> None:
        self.draining = False
        """Whether no new claim may be sent."""
        self._table = table
        self._expiry = expiry
        self._schedule = schedule
        self._polling_interval_s = config.polling_interval_s
        self.refusals = ClaimRefusals(config.breaker_threshold, schedule.backoff)
        self.second_claims = SecondClaims()
        self._pending: dict[str, PendingClaim] = {}
        self._refused: set[str] = set()
        """Those of them that the API did not carry out before."""
        self._queue = PatchQueue((), self._tries, config.connections)
        self._queue.pace = schedule.pace
        self._token_refused: list[str] = []
        """Those that were refused together with the token."""
        self._token_used = ""
        """Fingerprint of the token that the last claim was sent with."""
        self._search_at_s = 0.0
        """Monotonic seconds: when to search for lost tasks among those in progress."""
        expiry.searched_at_s = 0.0

    def blockers(self, now: Instant) -> list[str]:
        """Why claims are not accepted, in words."""
        throttle = self.refusals.throttle
        if self.refusals.breaker.reason:
            return [f"the API does not accept claims: {self.refusals.breaker.reason}"]
        if not throttle.is_over(now.mono):
            return [f"the API throttles claims: {throttle.reason}; next in {throttle.remaining_s(now.mono):.0f} s"]
        return []

    def facts(self, now: Instant) -> dict[str, Any]:
        """What the heartbeat says about claims."""
        facts = {"claiming": len(self._pending), "parked": self._table.count(Whereabouts.PARKED)}
        load = self._queue.facts(now.mono)
        facts |= load
        notices = self._schedule.facts().get("notices", []) + load.get("notices", []) + self.second_claims.notices()
        return {**facts, "notices": notices} if notices else facts

    @property
    def refused_count(self) -> int:
        """How many of them the API did not carry out before: they wait for their next try."""
        return len(self._refused)

    # ---- claims ----

    def queue(self, tasks: Iterable[m.Task]) -> None:
        """Claim these tasks, which are leased, as soon as possible."""
        for task in tasks:
            self._pending[task.id] = PendingClaim(task)
            self._refused.discard(task.id)
            if task.id not in self._queue.sending:  # otherwise the claim that is under way decides
                self._queue.add(task.id)

    def claim(self, now: Instant) -> Iterator[Claim]:
        """Send as many claims as may be under way."""
        queue, breaker = self._queue, self.refusals.breaker
        queue.take_due(now.mono)
        token = self._schedule.access_token.usable(now)
        if token is None or self.draining or not self.refusals.throttle.is_over(now.mono):
            return
        if self._schedule.is_poll_waiting(now):
            return
        if token.fingerprint != self._token_used:
            self._token_used = token.fingerprint
            self._send_token_refused_again()
        if breaker.state is State.OPEN and queue.has_new:
            self.refusals.on_untried(now.mono)
        is_probe = breaker.state is not State.CLOSED
        while queue.has_next(now.mono, is_probe=is_probe) and breaker.allows(now.mono):
            task_id = queue.begin(now.mono, is_probe=breaker.state is State.HALF_OPEN)
            if task_id in self._pending and self._is_claiming(task_id):
                breaker.began()
                yield Claim(task_id, token)
            else:
                self._forget(task_id)  # settled or given back meanwhile

    def on_api_responses(self, event: ApiResponses, now: Instant) -> Generator[Any, None, list[m.Task]]:
        """Act on what the API said about claims; returns the tasks whose claims it accepted."""
        accepted: list[m.Task] = []
        self._queue.learn(event.responses, now.mono, are_probes=self.refusals.breaker.state is not State.CLOSED)
        for response in event.responses:
            self._queue.ended(response.task_id)
            pending = self._pending.get(response.task_id)
            if pending is None or not self._is_claiming(response.task_id):
                self.refusals.breaker.undecided()
                self._forget(response.task_id)
                continue  # settled or given back meanwhile
            means = meaning_of(response)
            if means is Meaning.TOKEN_REFUSED:
                yield from self._on_token_refused(response, pending, now)
            elif means is Meaning.UNAVAILABLE and not self._is_check_answered(response, pending):
                yield from self._back_off(response, pending, now)
            else:
                accepted += yield from self._on_decided(response, pending, now)
        return accepted

    def _on_decided(
        self, response: ApiResponse, pending: PendingClaim, now: Instant
    ) -> Generator[Any, None, list[m.Task]]:
        """Act on a claim that the API accepted or refused; returns the task, if it is ours."""
        means, task_id = meaning_of(response), response.task_id
        self.refusals.on_decided(task_id, now.mono)
        if means is Meaning.OK:
            self._schedule.access_token.worked(response.fingerprint)
            self._send_token_refused_again()
        if pending.is_check:
            yield from self.second_claims.on_response(means)
        elif means is not Meaning.OK and not (means is Meaning.CONFLICT and pending.unsure):
            yield from self._give_up(response, now)
            return []
        elif not pending.unsure and not self.draining and self.second_claims.is_check_due(now):
            pending.is_check = True  # not dispatched yet: a claim after its result would set it back to in progress
            self._queue.add_first(task_id)
            return []
        self._forget(task_id)
        return [pending.task]

    def _tries(self, task_id: str) -> int:
        return self._pending[task_id].tries if task_id in self._pending else 0

    def _is_claiming(self, task_id: str) -> bool:
        return self._table.whereabouts(task_id) is Whereabouts.CLAIMING

    def _is_check_answered(self, response: ApiResponse, pending: PendingClaim) -> bool:
        """Whether the API has handled a second claim, so that it cannot take effect later."""
        return pending.is_check and response.status not in {0, 408}

    def _forget(self, task_id: str) -> None:
        self._queue.ended(task_id)
        self._pending.pop(task_id, None)
        self._refused.discard(task_id)
        self.refusals.forget(task_id)

    def _on_token_refused(self, response: ApiResponse, pending: PendingClaim, now: Instant) -> Iterator[Any]:
        """Doubt the token, the first time: the claim is sent again first, when another token comes or one is accepted.

        If it is refused again, it is not the token's fault.
        """
        access_token = self._schedule.access_token
        was_current = access_token.is_current(response.fingerprint)
        if pending.tries <= 1:
            yield from access_token.refused(response.fingerprint, now)
        if pending.is_token_doubted and was_current:
            yield from self._back_off(response, pending, now)
            return
        pending.is_token_doubted = True
        self.refusals.breaker.undecided()
        self._queue.add_later(response.task_id, now.mono + (TOKEN_DOUBTED_S if was_current else 0.0))
        self._token_refused.append(response.task_id)

    def _send_token_refused_again(self) -> None:
        if self._token_refused:
            self._queue.hurry(self._token_refused)
            self._token_refused.clear()

    def _back_off(self, response: ApiResponse, pending: PendingClaim, now: Instant) -> Iterator[Any]:
        """Try again after a pause."""
        pending.tries += 1
        self._refused.add(response.task_id)
        delay_s, reason = self.refusals.on_not_decided(response, pending.tries, now.mono)
        # the API may have accepted the claim before it failed
        pending.unsure = pending.unsure or response.status in {0, 408} or response.status >= 500
        self._queue.add_later(response.task_id, now.mono + delay_s)
        fields = {"task_id": response.task_id, "status": response.status, "reason": reason}
        yield Log("claim_failed", fields, "warning")

    def _give_up(self, response: ApiResponse, now: Instant) -> Iterator[Any]:
        """Leave the task to another pipeline, or to nothing if it is gone."""
        task_id = response.task_id
        self._forget(task_id)
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
            self._schedule.begin(now)
            yield Poll(0, len(lost), self._table.ids(*LEASED), frozenset(), token, lost)

    def note_found(self, task_ids: Iterable[str], now: Instant) -> None:
        """The search found these lost tasks: they are still there, even if there is no room for them now."""
        self._expiry.searched_at_s = now.mono
        self._expiry.found = frozenset(task_ids)

    def end_parking(self, now: Instant) -> None:
        """Search for parked tasks whose time has come."""
        for task_id, entry in self._table.at(Whereabouts.PARKED):
            if entry.not_before_s <= now.wall:
                self._table.move(task_id, Event.COOLDOWN_ENDED, now)
                self.search_soon(now)
