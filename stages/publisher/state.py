"""What the publisher decides: when each result is PATCHed, and what follows from the API's response.

    Results ──on disk──► due ──PATCH──► sending ──accepted, or the task is gone──► settled
                         ▲               │
                         └──try again────┤
                                         └──refused for good──► dead letter ──replayed──► due
                                                                            └──dropped

The first result of a task wins. A later result for the same lease is acknowledged and dropped. Acceptances are settled
together, at most `SETTLE_BATCH` in one transaction. A publisher that is killed in between sends these results again,
the same bytes, and no other result twice.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from common.api.access_token import AccessToken
from common.api.patch_queue import PatchQueue
from common.api.responses import ApiResponse, ApiResponses, meaning_of
from common.api.status import Meaning
from common.failures.breaker import State
from common.process.actions import Actions, AfterCommit, Instant, Log, Report, Send, task_fields
from common.recently_settled import DeleteSettled, RecentlySettled
from common.wire import messages as m
from common.wire.timing import DRAIN_AT_LEAST_S, DRAINING_SILENT_AFTER_S, SETTLED_KEPT_S, renewal_interval_s
from stages.publisher import processed
from stages.publisher.actions import (
    DropDeadLetter,
    MoveToDeadLetters,
    OutboxEntry,
    PutResult,
    ReplayDeadLetter,
    ResultsSettled,
    ResultsStored,
    SendPatch,
    Settle,
)
from stages.publisher.config import PublisherConfig
from stages.publisher.refusals import GIVE_UP, Refusals

SETTLE_BATCH = 512
"""Acceptances in one transaction: 4.8 µs each, instead of 331 µs for a transaction of one."""
TOKEN_DEAD_AFTER = 3
"""Refusals of a token in a row, without an accepted PATCH in between, after which it is not used any more."""
TOKEN_DOUBTED_S = 1.0
"""The longest time that a result waits, when its token was refused, for another token or a sign that this one works."""
MOST_UNSETTLED = 1000
"""While this many acceptances are not on disk, no PATCH leaves: if the publisher dies, they are sent again."""
SETTLE_AFTER_S = 0.05
"""How long an acceptance waits for others."""


class Publisher:
    """The state; its handlers return actions."""

    def __init__(
        self,
        config: PublisherConfig,
        inbox: str,
        stored: dict[str, OutboxEntry],
        dead: dict[str, OutboxEntry],
        now: Instant,
    ) -> None:
        self.config = config
        self.entries = stored
        """The results in the outbox, by task id."""
        self.dead = dead
        """The dead letters, by task id."""
        self.settled = RecentlySettled(SETTLED_KEPT_S)
        self._refusals = Refusals(config.max_retries, config.breaker_threshold, config.backoff_factor)
        self.breaker = self._refusals.breaker
        self._token = AccessToken(inbox, TOKEN_DEAD_AFTER)
        self._token_refused: list[str] = []
        """Results that were refused together with the token."""
        self._queue = PatchQueue(
            stored, lambda task_id: self.entries[task_id].tries, config.connections, config.patches_per_minute
        )
        self._accepted: list[str] = []
        self._accepted_at = 0.0
        self._settling = 0
        """Results whose settlement is not on disk yet."""
        self._next_holding = now.mono
        self._draining = False
        self._drained_from = float("inf")
        self._draining_embedders: dict[str, float] = {}
        """Embedders that are draining → when they last said so (monotonic seconds)."""

    def is_drained(self, now: Instant) -> bool:
        """Whether nothing is under way, and no embedder that is draining may still send results."""
        if self._queue.sending or self._accepted or now.mono < self._drained_from:
            return False
        return not any(now.mono - heard <= DRAINING_SILENT_AFTER_S for heard in self._draining_embedders.values())

    # ---- messages and events ----

    def on_results(self, message: m.Results, _: Instant) -> Actions:
        """Store the results that are new, then acknowledge all."""
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
                self.entries[task_id] = OutboxEntry(result.type, state, result.leased_at)
                new.append(task_id)
                yield PutResult(result)
        if message.reply_to:
            yield Send(message.reply_to, m.Stored(message.batch_id))
        if new:
            yield Send("fetcher", m.Holding("publisher", new))
            yield Log("results_stored", task_fields(new))
            yield AfterCommit(ResultsStored(new))
        if settled or dead:
            yield Send("fetcher", m.Published(settled, dead))

    def on_stored(self, event: ResultsStored, now: Instant) -> Actions:
        """Send results that are on disk now."""
        self._queue.add(*event.task_ids)
        return self._send(now)

    def on_settled(self, event: ResultsSettled, now: Instant) -> Actions:
        """Send further results, if they waited because too many acceptances were not on disk."""
        self._settling -= event.number
        return self._send(now)

    def on_draining(self, message: m.Draining, now: Instant) -> Actions:
        """Note that an embedder is draining: until it is done, its results may still come."""
        if message.done:
            self._draining_embedders.pop(message.embedder, None)
        else:
            self._draining_embedders[message.embedder] = now.mono
        return ()

    def on_token(self, message: m.Token, now: Instant) -> Actions:
        """Use this access token from now on. If it is another one, the API may take results again."""
        if not self._token.is_current(message.fingerprint):
            self.breaker.half_open(now.mono)
            self._send_token_refused_again()
        self._token.take(message)
        return self._send(now)

    def on_api_reachable(self, _: m.ApiReachable, now: Instant) -> Actions:
        """A poll succeeded, so the API may take results again."""
        self._refusals.on_poll_succeeded(now.mono)
        if self.breaker.state is State.HALF_OPEN:
            self._queue.hurry_one()
        self._token.reachable(now)
        return self._send(now)

    def on_responses(self, event: ApiResponses, now: Instant) -> Actions:
        """Act on the API's responses to PATCHes."""
        self._queue.learn(event.responses, now.mono, are_probes=self.breaker.state is not State.CLOSED)
        for response in event.responses:
            self._queue.ended(response.task_id)
            found = meaning_of(response)
            if found is Meaning.OK or found is Meaning.GONE:
                if self.breaker.state is not State.CLOSED:
                    self._queue.hurry(i for i in self._queue.waiting() if not self.entries[i].is_blamed)
                self._refusals.on_served(response.task_id, self.entries[response.task_id], now.mono)
                self._token.worked(response.fingerprint)
                if self._token_refused:
                    self._send_token_refused_again()
                if not self._accepted:
                    self._accepted_at = now.mono
                self._accepted.append(response.task_id)
                if found is Meaning.GONE:
                    yield Log("task_gone", {"task_id": response.task_id}, "warning")
            else:
                yield from self._not_accepted(response, found, now)
        yield from self._send(now)
        if self._settle_due(now):
            yield from self._settle(now)

    def on_dead_letters(self, message: m.DeadLetters, _: Instant) -> Actions:
        """Replay or drop the dead letters that an operator chose."""
        for task_id in message.replay:
            if entry := self.dead.pop(task_id, None):
                self.entries[task_id] = OutboxEntry(entry.type, entry.state, entry.leased_at)
                yield ReplayDeadLetter(task_id)
                yield AfterCommit(ResultsStored([task_id]))
                yield Log("dead_letter_replayed", {"task_id": task_id})
        dropped = [task_id for task_id in message.drop if self.dead.pop(task_id, None)]
        for task_id in dropped:
            yield DropDeadLetter(task_id)
            yield Log("dead_letter_dropped", {"task_id": task_id})
        if dropped:
            yield Send("fetcher", m.Published([], [], dropped))

    # ---- the clock ----

    def on_tick(self, now: Instant) -> Actions:
        """Settle, renew leases, request a token, and send what has become due."""
        if self._settle_due(now):
            yield from self._settle(now)
        yield from map(DeleteSettled, self.settled.forget(now.wall, now.mono))
        if now.mono >= self._next_holding:
            self._next_holding = now.mono + renewal_interval_s(self.config.lease_seconds)
            stored, parked = self._stored_and_parked()
            yield Send("fetcher", m.Holding("publisher", stored, [], list(self.dead), parked=parked))
        yield from self._token.ask(now)
        yield from self._send(now)

    def on_drain(self, now: Instant) -> Actions:
        """Start no more PATCHes: what the API has not accepted is safe in the outbox."""
        self._draining = True
        self._drained_from = now.mono + DRAIN_AT_LEAST_S
        return self._settle(now)

    def report(self, now: Instant) -> Report:
        """The content of the heartbeat."""
        blockers = []
        if problem := self._token.problem(now):
            blockers.append(problem)
        if self.breaker.reason:
            blockers.append(f"the API does not take results: {self.breaker.reason}")
        elif (wait_s := self._refusals.throttle.remaining_s(now.mono)) > 0:
            reason = self._refusals.throttle.reason
            blockers.append(f"the API asks to wait: {reason}; next PATCH in {wait_s:.0f} s")
        facts = {"outbox": len(self.entries), "dead_letters": len(self.dead)}
        return Report(blockers, facts | self._queue.facts(now.mono))

    # ---- responses ----

    def _not_accepted(self, response: ApiResponse, found: Meaning, now: Instant) -> Iterator[Any]:
        task_id, entry = response.task_id, self.entries[response.task_id]
        if found is Meaning.TOKEN_REFUSED and (yield from self._is_tokens_fault(response, entry, now)):
            return
        delay_s, reason = self._refusals.on_refused(response, entry, found, now.mono)
        if delay_s == GIVE_UP:
            yield from self._dead_letter(task_id, response, reason, now)
            return
        self._queue.add_later(task_id, now.mono + delay_s)
        if entry.tries == 1:  # its place in the in-flight limit is free for another task
            yield Send("fetcher", m.Holding("publisher", [], parked=[task_id]))
        yield Log("patch_failed", {"task_id": task_id, "status": response.status, "reason": reason}, "warning")

    def _is_tokens_fault(self, response: ApiResponse, entry: OutboxEntry, now: Instant) -> Generator[Any, None, bool]:
        """Whether a 401 or 403 is taken for the token's fault: the first time, and if the token was an old one.

        The second time too, if it was another token, and that one worked for others; and as long as a replacement is
        awaited. The result is sent again, at once and first, when another token comes or this one is accepted again.
        """
        was_current, has_worked = self._token.is_current(response.fingerprint), self._token.has_worked
        if not entry.is_blamed:
            yield from self._token.refused(response.fingerprint, now)
        is_another = entry.refused_token not in {"", response.fingerprint}
        entry.token_tries += 1
        entry.refused_token = response.fingerprint
        is_tokens_fault = entry.token_tries == 1 or (entry.token_tries == 2 and is_another and has_worked)
        if was_current and not is_tokens_fault and not self._token.is_replaced:
            return False
        self.breaker.undecided()
        self._queue.add_later(response.task_id, now.mono + (TOKEN_DOUBTED_S if was_current else 0.0))
        self._token_refused.append(response.task_id)
        return True

    def _send_token_refused_again(self) -> None:
        self._queue.hurry(self._token_refused)
        self._token_refused.clear()

    def _dead_letter(self, task_id: str, response: ApiResponse, reason: str, now: Instant) -> Iterator[Any]:
        self.dead[task_id] = self.entries.pop(task_id)
        self._refusals.forget(task_id)
        yield MoveToDeadLetters(task_id, response.status, reason, now.wall)
        yield Send("fetcher", m.Published([], [task_id]))
        fields = {"task_id": task_id, "status": response.status, "reason": reason}
        yield Log("result_dead_lettered", fields, "error")

    # ---- settling ----

    def _settle_due(self, now: Instant) -> bool:
        is_late = now.mono - self._accepted_at >= SETTLE_AFTER_S
        return bool(self._accepted) and (self._queue.is_idle or len(self._accepted) >= SETTLE_BATCH or is_late)

    def _settle(self, now: Instant) -> Iterator[Any]:
        if not self._accepted:
            return
        # not before its lease, even if the clock was set back: a late result of this lease must not look new
        latest_lease = max(self.entries[task_id].leased_at for task_id in self._accepted)
        record = self.settled.settle(max(now.wall, latest_lease), self._accepted)
        self._accepted = []
        yield Settle(record)
        yield Send("fetcher", m.Published(record.ids))
        yield from processed.count([self.entries.pop(task_id) for task_id in record.ids], now)
        self._settling += len(record.ids)
        yield AfterCommit(ResultsSettled(len(record.ids)))
        yield Log("results_accepted", task_fields(record.ids))

    # ---- sending ----

    def _send(self, now: Instant) -> Iterator[Any]:
        """Start as many PATCHes as there are connections, while the API and the token allow it."""
        queue = self._queue
        queue.take_due(now.mono)
        token = self._token.usable(now)
        is_disk_slow = len(self._accepted) + self._settling >= MOST_UNSETTLED
        if token is None or self._draining or is_disk_slow or not self._refusals.throttle.is_over(now.mono):
            return
        if (is_probe := self.breaker.state is not State.CLOSED) and queue.has_new:
            self._refusals.on_untried(now.mono)
        while queue.has_next(now.mono, is_probe=is_probe) and self.breaker.allows(now.mono):
            task_id = queue.begin(now.mono, is_probe=self.breaker.state is State.HALF_OPEN)
            self.breaker.began()
            yield SendPatch(task_id, token)

    def _stored_and_parked(self) -> tuple[list[str], list[str]]:
        """The results in the outbox: those that the API did not refuse yet, and those that it did."""
        parked = [task_id for task_id, entry in self.entries.items() if entry.tries]
        return [task_id for task_id, entry in self.entries.items() if not entry.tries], parked
