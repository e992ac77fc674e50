"""What the publisher decides: which result is PATCHed when, and what the API's answer means for it.

    Results ──stored──► due ──PATCH──► sending ──accepted, or gone from the API──► settled
                         ▲               │
                         └──try later────┤
                                         └──refused for good──► dead letter ──replayed──► due
                                                                            └──dropped

The first result of a task wins; a later one for the same processing is acknowledged and dropped. Acceptances are
settled together, at most `SETTLE_BATCH` in one transaction: a process killed in between sends these again, the same
bytes, and nothing else twice.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from common.api.access_token import AccessToken
from common.api.responses import ApiResponse, ApiResponses, in_words
from common.failures.breaker import Breaker
from common.failures.errors import Throttled, Transient
from common.failures.retry import LONGEST_WAIT_S, Backoff
from common.process.actions import Actions, Count, Instant, Log, Observe, Report, Send, task_fields
from common.recently_settled import DeleteSettled, RecentlySettled
from common.wire import messages as m
from common.wire.timing import DRAIN_AT_LEAST_S, SETTLED_KEPT_S, renewal_interval_s
from stages.publisher.actions import Bury, Drop, Entry, Patch, PutResult, Revive, Settle
from stages.publisher.verdicts import Verdict, verdict

CONNECTIONS = 16
"""PATCHes under way at a time: measured enough for 14,500 a second on a local API."""
SETTLE_BATCH = 512
"""Acceptances in one transaction: 4.8 µs each instead of 331 for one alone."""
SETTLE_AFTER = 0.05
"""Seconds that an acceptance waits for others."""


class Limits(NamedTuple):
    """The settings that the decisions depend on."""

    lease_seconds: float = 15.0
    max_retries: int = 3
    breaker_threshold: int = 5
    backoff_factor: float = 2.0


class Publisher:
    """The state; its handlers return actions."""

    def __init__(
        self, limits: Limits, inbox: str, stored: dict[str, Entry], dead: dict[str, Entry], now: Instant
    ) -> None:
        self.limits = limits
        self.entries = stored
        self.dead = dead
        self.settled = RecentlySettled(SETTLED_KEPT_S)
        backoff = Backoff(1.0, limits.backoff_factor, 60.0)
        self.breaker = Breaker("api", limits.breaker_threshold, backoff)
        self._backoff = Backoff(0.5, limits.backoff_factor, 60.0)
        self._bearer = AccessToken(inbox)
        self._due: deque[str] = deque(stored)
        self._later: list[tuple[float, str]] = []
        self._sending: set[str] = set()
        self._accepted: list[str] = []
        self._accepted_at = 0.0
        self._not_before = 0.0
        self._patience_for = ""
        """What the API said when it asked for patience."""
        self._next_holding = now.mono
        self._draining = False
        self._drained_from = float("inf")

    def drained(self, now: Instant) -> bool:
        """Whether nothing is under way, and embedders that were stopped too have had time to say so."""
        return not self._sending and not self._accepted and now.mono >= self._drained_from

    # ---- what comes in ----

    def results(self, message: m.Results, now: Instant) -> Actions:
        """Store what is new, then say so to whoever waits for it."""
        settled: list[str] = []
        dead: list[str] = []
        new: list[str] = []
        for result in message.results:
            task_id = result.id
            if task_id in self.dead:
                dead.append(task_id)
            elif task_id not in self.entries:
                settled_at = self.settled.at(task_id)
                if settled_at is not None and settled_at >= result.leased_at:
                    settled.append(task_id)
                    continue
                state = "succeeded" if result.failure is None else "failed"
                self.entries[task_id] = Entry(result.type, state, result.leased_at)
                self._due.append(task_id)
                new.append(task_id)
                yield PutResult(result)
        if message.reply_to:
            yield Send(message.reply_to, m.Stored(message.batch_id))
        if new:
            yield Send("fetcher", m.Holding("publisher", new))
            yield Log("stored", task_fields(new))
        if settled or dead:
            yield Send("fetcher", m.Published(settled, dead))
        yield from self._send(now)

    def token(self, message: m.Token, now: Instant) -> Actions:
        """Use this access token from now on."""
        self._bearer.take(message)
        return self._send(now)

    def answers(self, event: ApiResponses, now: Instant) -> Actions:
        """Act on what the API said."""
        for answer in event.responses:
            self._sending.discard(answer.task_id)
            judged = verdict(answer.status)
            if judged is Verdict.ACCEPTED or judged is Verdict.GONE:
                self.breaker.succeeded()
                self._bearer.worked()
                if not self._accepted:
                    self._accepted_at = now.mono
                self._accepted.append(answer.task_id)
                if judged is Verdict.GONE:
                    yield Log("task_gone", {"task_id": answer.task_id}, "warning")
            else:
                yield from self._not_accepted(answer, judged, now)
        yield from self._send(now)
        if self._settle_due(now):
            yield from self._settle(now)

    def dead_letters(self, message: m.DeadLetters, now: Instant) -> Actions:
        """Do what a person decided."""
        for task_id in message.replay:
            if entry := self.dead.pop(task_id, None):
                self.entries[task_id] = Entry(entry.type, entry.state, entry.leased_at)
                self._due.append(task_id)
                yield Revive(task_id)
                yield Log("dead_letter_replayed", {"task_id": task_id})
        dropped = [task_id for task_id in message.drop if self.dead.pop(task_id, None)]
        for task_id in dropped:
            yield Drop(task_id)
            yield Log("dead_letter_dropped", {"task_id": task_id})
        if dropped:
            yield Send("fetcher", m.Published([], [], dropped))
        yield from self._send(now)

    # ---- what time brings ----

    def tick(self, now: Instant) -> Actions:
        """Settle, renew what is held, ask for a token, send what has become due."""
        if self._settle_due(now):
            yield from self._settle(now)
        for record in self.settled.forget(now.wall):
            yield DeleteSettled(record)
        if now.mono >= self._next_holding:
            self._next_holding = now.mono + renewal_interval_s(self.limits.lease_seconds)
            yield Send("fetcher", m.Holding("publisher", list(self.entries), [], list(self.dead)))
        yield from self._bearer.ask(now)
        yield from self._send(now)

    def drain(self, now: Instant) -> Actions:
        """Begin no PATCH any more: what is not accepted is safe in the outbox."""
        self._draining = True
        self._drained_from = now.mono + DRAIN_AT_LEAST_S
        return self._settle(now)

    def report(self, now: Instant) -> Report:
        """What the heartbeat says."""
        blockers = []
        if problem := self._bearer.problem(now):
            blockers.append(problem)
        if self.breaker.reason:
            blockers.append(f"the API does not take results: {self.breaker.reason}")
        elif (wait := self._not_before - now.mono) > 0:
            blockers.append(f"the API asks for patience: {self._patience_for}; next PATCH in {wait:.0f} s")
        return Report(blockers, {"outbox": len(self.entries), "dead_letters": len(self.dead)})

    # ---- answers ----

    def _not_accepted(self, answer: ApiResponse, judged: Verdict, now: Instant) -> Iterator[Any]:
        task_id, entry = answer.task_id, self.entries[answer.task_id]
        reason = in_words(answer)
        if answer.status in {401, 403}:
            yield from self._bearer.refused(answer.fingerprint, now)
        if judged is Verdict.TOKEN:
            self.breaker.succeeded()  # it answers; without that, a probe would have no outcome
            self._due.appendleft(task_id)
            return
        entry.tries += 1
        entry.doubts += judged is Verdict.DOUBTFUL
        if judged is Verdict.REFUSED or entry.doubts > self.limits.max_retries:
            self.breaker.succeeded()  # it answers
            yield from self._bury(task_id, answer, reason, now)
            return
        patience = min(answer.retry_after_s, LONGEST_WAIT_S)
        error = Throttled(reason, patience) if patience else Transient(reason)
        if judged is Verdict.DOUBTFUL:
            self.breaker.succeeded()
        else:
            self.breaker.failed(now.mono, reason, error=error)
            if now.mono + patience > self._not_before:
                self._not_before, self._patience_for = now.mono + patience, reason
        heapq.heappush(self._later, (now.mono + self._backoff.delay(entry.tries, error), task_id))
        yield Log("patch_failed", {"task_id": task_id, "status": answer.status, "reason": reason}, "warning")

    def _bury(self, task_id: str, answer: ApiResponse, reason: str, now: Instant) -> Iterator[Any]:
        self.dead[task_id] = self.entries.pop(task_id)
        yield Bury(task_id, answer.status, reason, now.wall)
        yield Send("fetcher", m.Published([], [task_id]))
        yield Log("dead_letter", {"task_id": task_id, "status": answer.status, "reason": reason}, "error")

    # ---- settling ----

    def _settle_due(self, now: Instant) -> bool:
        if not self._accepted:
            return False
        idle = not self._due and not self._sending
        return idle or len(self._accepted) >= SETTLE_BATCH or now.mono - self._accepted_at >= SETTLE_AFTER

    def _settle(self, now: Instant) -> Iterator[Any]:
        if not self._accepted:
            return
        record = self.settled.settle(now.wall, self._accepted)
        self._accepted = []
        yield Settle(record)
        yield Send("fetcher", m.Published(record.ids))
        counts: Counter[tuple[str, str]] = Counter()
        durations: dict[str, list[float]] = {}
        for task_id in record.ids:
            entry = self.entries.pop(task_id)
            counts[entry.type, entry.state] += 1
            durations.setdefault(entry.type, []).append(max(0.0, now.wall - entry.leased_at))
        for (task_type, state), number in counts.items():
            yield Count("ai_tasks_processed_total", (task_type, state), number)
        for task_type, values in durations.items():
            yield Observe("ai_task_processing_duration_seconds", (task_type,), values)
        yield Log("accepted", task_fields(record.ids))

    # ---- sending ----

    def _send(self, now: Instant) -> Iterator[Any]:
        """Begin as many PATCHes as there are connections, while the API and the token allow it."""
        while self._later and self._later[0][0] <= now.mono:
            self._due.append(heapq.heappop(self._later)[1])
        token = self._bearer.usable(now)
        if token is None or self._draining or now.mono < self._not_before:
            return
        while self._due and len(self._sending) < CONNECTIONS and self.breaker.allows(now.mono):
            task_id = self._due.popleft()
            self._sending.add(task_id)
            self.breaker.began()
            yield Patch(task_id, token)
