"""What the fetcher decides: which pending tasks are leased, and what each message means for their leases.

Its parts: `lease_table` says where each task is and what may happen to it there; `lease_expiry` says when a lease is
lost; `poll_schedule` says when to poll; `claiming` stands between "leased" and "dispatched" if CLAIM_TASKS is on.

At most `max_in_flight` tasks are leased. Everything that a restart must not forget is an action that writes.

A task that kills its embedders is given up by the rate limiter, which sees whether they live without it. The attempts
that the fetcher counts itself, when rate limiter and embedder died together, are passed on with the task, but never
make the fetcher give it up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from common.api.responses import ApiResponses
from common.process.actions import Actions, Count, Instant, Log, Report, Send, task_fields
from common.recently_settled import DeleteSettled, RecentlySettled, Record
from common.wire import messages as m
from common.wire.timing import IDLE_TICK_S, REQUEUED_AFTER_S
from stages.fetcher import dead_letters, outgoing
from stages.fetcher.actions import DeleteDead, DeleteLease, Lease, Poll, PollFailed, PutLease, PutSettled
from stages.fetcher.buffer import Buffer
from stages.fetcher.claiming import Claiming
from stages.fetcher.config import FetcherConfig
from stages.fetcher.deferred_keys import DeferredKeys
from stages.fetcher.lease_expiry import LeaseExpiry
from stages.fetcher.lease_table import NOT_WANTED, Event, LeaseTable, Whereabouts
from stages.fetcher.page import PendingPage
from stages.fetcher.poll_schedule import PollSchedule

SLOWEST_PAGE_S = 120.0
"""The time from the request of a page to its tasks being leased is never longer."""


class Fetcher:
    """The state; its handlers return actions."""

    def __init__(
        self,
        config: FetcherConfig,
        inbox: str,
        restored: dict[str, Lease],
        dead: Iterable[str],
        now: Instant,
        settled: Iterable[Record] = (),
    ) -> None:
        """Begin with the leases, the dead letters and the settled tasks that are on disk."""
        self.config = config
        self.table = LeaseTable(restored, dead, now)
        self.settled = RecentlySettled(REQUEUED_AFTER_S + SLOWEST_PAGE_S)
        self.settled.restore(settled)
        self._expiry = LeaseExpiry(self.table, config.lease_seconds, config.max_dispatches, now)
        self._schedule = PollSchedule(config, inbox)
        self.breakers = [self._schedule.breaker]
        self._claiming: Claiming | None = None
        """None unless CLAIM_TASKS is on."""
        if config.claim_tasks:
            self._claiming = Claiming(self.table, self._expiry, self._schedule, config)
            self.breakers.append(self._claiming.refusals.breaker)
        self._deferred_keys = DeferredKeys()
        self._buffer = Buffer(config.max_in_flight, config.polling_interval_s)
        self._draining = False

    @property
    def room(self) -> int:
        """How many more tasks may be leased. A parked task is claimed, so it has to end some time and counts too."""
        return max(0, self.config.max_in_flight - self._counted - self.table.count(Whereabouts.PARKED))

    @property
    def _counted(self) -> int:
        """Leased tasks that count against MAX_IN_FLIGHT. What the API refuses is exempt, up to as many tasks again."""
        return self.table.leased_count - min(self._refused_count, self.config.max_in_flight)

    @property
    def _refused_count(self) -> int:
        """Leased tasks whose result or claim the API refused. They are pending."""
        return self.table.count(Whereabouts.REFUSED) + (self._claiming.refused_count if self._claiming else 0)

    # ---- from the API ----

    def on_token(self, message: m.Token, now: Instant) -> Actions:
        """Use this access token from now on."""
        self._schedule.take_token(message)
        for breaker in self.breakers:
            breaker.half_open(now.mono)  # with the new token the API may answer
        return self._poll_if_due(now)

    def on_page(self, page: PendingPage, now: Instant) -> Actions:
        """Lease the oldest new tasks that there is room for, and buffer a bounded number of the others."""
        self._schedule.succeeded()
        yield Send("publisher", m.ApiReachable())
        if self._claiming is not None:
            self._claiming.refusals.breaker.half_open(now.mono)
        if page.in_progress:
            yield from self._take_back(page, now)
            return
        yield from self._schedule.log_skipped(page)
        longer_page_shows_more = self._schedule.learn(page)
        if self._claiming is None and self._schedule.shows_all(page):
            # a claimed task is not pending, and not gone for that reason
            yield from self._expiry.forget_gone({candidate.task.id for candidate in page.candidates}, now)
        self._buffer.fill(page, page.candidates, now)
        yield from self._lease_from_buffer(now)
        self._schedule.plan_next(longer_page_shows_more, now)
        self._poll_if_worth_it()
        yield from self._poll_if_due(now)

    def on_poll_failed(self, event: PollFailed, now: Instant) -> Actions:
        """Back off."""
        return self._schedule.failed(event, now)

    def on_api_responses(self, event: ApiResponses, now: Instant) -> Actions:
        """Dispatch the tasks whose claims were accepted."""
        if self._claiming is None:
            return
        room = self.room
        accepted = yield from self._claiming.on_api_responses(event, now)
        for task in accepted:
            self.table.move(task.id, Event.DISPATCHED, now)
        yield from outgoing.dispatch(accepted)
        yield from self._claiming.claim(now)
        # a claim that was refused leaves room for another task
        yield from self._use_room(now) if self.room > room else self._poll_if_due(now)

    # ---- from other stages ----

    def on_published(self, message: m.Published, now: Instant) -> Actions:
        """End the leases of settled tasks, and fill the room that they leave."""
        for task_id in message.dead:
            yield from dead_letters.add(self.table, task_id, now)
        has_dead = self.table.count(Whereabouts.DEAD) > 0
        for task_id in message.accepted:
            if has_dead and self.table.whereabouts(task_id) is Whereabouts.DEAD:
                yield DeleteDead(task_id)
            self.table.move(task_id, Event.SETTLED, now)
            yield DeleteLease(task_id)
        for task_id in message.dropped:
            yield from dead_letters.end(self.table, task_id, now)
        if message.accepted:
            yield PutSettled(self.settled.settle(now.wall, message.accepted))
        yield from self._lease_from_buffer(now)
        self._poll_if_worth_it()
        yield from self._poll_if_due(now)

    def on_holding(self, message: m.Holding, now: Instant) -> Actions:
        """Renew the leases of the tasks that the sender holds."""
        room = self.room
        self._expiry.renew(message, now)
        if message.dead is not None:
            held = {*message.ids, *message.parked}
            yield from dead_letters.adopt(self.table, set(message.dead), held, now)
        if self.room > room:
            yield from self._use_room(now)

    def on_deferred(self, message: m.Deferred, now: Instant) -> Actions:
        """End the leases of deferred tasks; they stay pending, and are not leased again before their time."""
        if message.key is not None:
            self._deferred_keys.defer(message.key, message.until)
        for task_id in message.ids:
            if message.reason == "poison":
                yield from outgoing.give_up(self.table, task_id, self.config.max_dispatches, now)
            elif self._claiming is not None:
                self.table.defer(task_id, Event.CLAIM_DEFERRED, message.until, now)
            else:
                event = Event.TASK_DEFERRED if message.key is None else Event.KEY_DEFERRED
                if self.table.defer(task_id, event, message.until, now):
                    yield DeleteLease(task_id)
        yield from self._use_room(now)

    # ---- by the clock ----

    def on_tick(self, now: Instant) -> Actions:
        """Expire leases, end deferrals, forget what was settled long ago, ask for a token, poll."""
        if self._claiming is not None:
            self._claiming.end_parking(now)
        if (yield from self._expiry.tick(now)):
            self._schedule.poll_at_once(now)
            if self._claiming is not None:
                self._claiming.search_soon(now)
        yield from map(DeleteSettled, self.settled.forget(now.wall, now.mono))
        self._end_deferrals(now)
        yield from self._schedule.access_token.ask(now)
        yield from self._poll_if_due(now)
        if self._claiming is not None:
            yield from self._claiming.claim(now)

    def idle_tick_s(self, now: Instant) -> float | None:
        """Tick less often while no task is known and no poll is due soon."""
        is_busy = self.table.is_busy or self._claiming is not None or self._schedule.is_due_soon(now)
        return None if is_busy else IDLE_TICK_S

    def on_drain(self, now: Instant) -> Actions:  # noqa: ARG002  the loop's signature
        """Lease nothing new: the leases are on disk, and what is in flight ends without the fetcher."""
        self._draining = True
        if self._claiming is not None:
            self._claiming.draining = True
        return ()

    def report(self, now: Instant) -> Report:
        """What the heartbeat says."""
        blockers = self._schedule.blockers(now)
        if self._expiry.is_limiter_silent(now):
            blockers.append("the rate limiter has stopped reporting the tasks that it holds")
        facts = self.table.facts() | self._schedule.facts()
        if self._claiming is not None:
            blockers += self._claiming.blockers(now)
            facts |= self._claiming.facts(now)
        if until := self._deferred_keys.all_until(now.wall):
            facts["deferred_until"] = until
        return Report(blockers, facts)

    # ---- leasing ----

    def _take_back(self, page: PendingPage, now: Instant) -> Iterator[Any]:
        """Lease the lost tasks that the search found; they need no claim."""
        lost = self.table.ids(Whereabouts.LOST)
        found = [candidate for candidate in page.candidates if candidate.task.id in lost]
        ids = sorted(candidate.task.id for candidate in found)
        if self._claiming is not None:
            self._claiming.note_found(ids, now)
        if ids:
            yield Log("claimed_tasks_recovered", task_fields(ids))
        self._buffer.fill(page, found, now)
        self._schedule.poll_at_once(now)  # for the pending tasks that were in the buffer
        yield from self._use_room(now)

    def _use_room(self, now: Instant) -> Iterator[Any]:
        """There is room for other tasks, which the last page may have hidden."""
        self._schedule.poll_after_interval()
        yield from self._lease_from_buffer(now)
        yield from self._poll_if_due(now)

    def _lease_from_buffer(self, now: Instant) -> Iterator[Any]:
        """Lease while there is room, oldest first."""
        self._buffer.drop_if_stale(now)
        if not self._buffer or self._draining or self._expiry.is_limiter_silent(now):
            return
        to_claim = self._claiming is not None and not self._buffer.are_claimed
        leased: list[m.Task] = []
        invalid: list[tuple[m.Task, m.Failure]] = []
        room, leased_count = self.room, 0
        while leased_count < room and self._buffer:
            candidate = self._buffer.candidates.popleft()
            task = candidate.task
            if not self._is_new(task, now):
                continue
            leased_count += 1
            lease = self.table.lease_for(task.id, task.type, now)
            if lease.attempt > self.config.max_dispatches:  # given up before, but the result was lost on its way
                yield from outgoing.give_up(self.table, task.id, self.config.max_dispatches, now)
                continue
            task = msgspec.structs.replace(task, leased_at=lease.leased_at, attempt=lease.attempt)
            if candidate.failure is not None:
                event = Event.FOUND_INVALID
                invalid.append((task, candidate.failure))
            else:
                event = Event.CLAIM_QUEUED if to_claim else Event.DISPATCHED
                leased.append(task)
            self.table.begin(task.id, lease, event, now)
            yield PutLease(task.id, lease)
        if leased_count:
            yield Count("ai_tasks_leased_total", (), leased_count)
        if self._claiming is not None and to_claim:
            self._claiming.queue(leased)
            yield from self._claiming.claim(now)
        else:
            yield from outgoing.dispatch(leased)
        for task, failure in invalid:
            yield from outgoing.fail_invalid(task, failure)

    def _is_new(self, task: m.Task, now: Instant) -> bool:
        """Whether the task may be leased."""
        whereabouts = self.table.whereabouts(task.id)
        if whereabouts is Whereabouts.DEFERRED:
            if self.table.entry(task.id).not_before_s > now.wall:
                return False
        elif whereabouts is not Whereabouts.NEW and whereabouts is not Whereabouts.LOST:
            return False
        if self._deferred_keys.has(task.key, now.wall):
            return False
        settled_at = self.settled.at(task.id)
        return settled_at is None or self._buffer.requested_at > settled_at + REQUEUED_AFTER_S

    def _end_deferrals(self, now: Instant) -> None:
        ended = [i for i, entry in self.table.at(Whereabouts.DEFERRED) if entry.not_before_s <= now.wall]
        for task_id in ended:
            self.table.move(task_id, Event.COOLDOWN_ENDED, now)
        if self._deferred_keys.end(now.wall) or ended:
            self._schedule.poll_at_once(now)

    # ---- polling ----

    def _poll_if_worth_it(self) -> None:
        """Poll soon if a page can bring enough new tasks, and the buffer has none left."""
        if not self._buffer:  # a claimed task is not pending any more, so that it is in no page
            in_flight = self._counted
            if self._claiming is not None:
                in_flight = self.table.count(Whereabouts.CLAIMING) - self._claiming.refused_count
            self._schedule.poll_if_worth_it(in_flight, self.room)

    def _poll_if_due(self, now: Instant) -> Iterator[Any]:
        """Poll if it is time, there is room, and the tasks could be processed."""
        keys = self._deferred_keys
        if self._draining or not self.room or self._expiry.is_limiter_silent(now) or keys.all_until(now.wall):
            return
        if self._claiming is not None:
            yield from self._claiming.search(now)
        token = self._schedule.token(now)
        if token is None:
            return
        not_wanted_count = self._refused_count + sum(map(self.table.count, (Whereabouts.DEAD, Whereabouts.DEFERRED)))
        limit = self._schedule.begin_for_pending(not_wanted_count, now)
        known, wanted = self.table.ids(*NOT_WANTED), self._buffer.wanted(self.room, now)
        yield Poll(limit, wanted, known, keys.names(), token)
