"""What the rate limiter decides: when a task may be spent on a provider, in which batch, and on which embedder.

A task waits in a group (same type, same batch key, same attempt) until an embedder has a free slot and the quotas admit
it. Its charge and its batch leave in one turn, the charge committed first. Then an embedder has it:

    waiting ──admitted, slot free──► dispatched ──named in a Ready──► confirmed ──Finished──► gone (results are stored)
       ▲                               │                                 │
       └──lost in transit──────────────┴──embedder silent or booted ─────┘
                                          again: attempt + 1

A task whose embedder died while it had the task is quarantined. A batch of 256 is not tried again as a whole, but in
smaller batches, and then one by one (`placement.py`). So a poison task is found within three deaths, and its neighbours
are not blamed. `poison.py` decides when a task is reported failed, and when the embedders themselves are at fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from common.process.actions import Actions, Count, Instant, Log, Report, Send, task_fields
from common.wire import messages as m
from common.wire.timing import SILENT_AFTER_S, renewal_interval_s
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.charging import Charging, exhausted
from stages.rate_limiter.clock_jumps import JUMP_S, ClockJumps
from stages.rate_limiter.cooldowns import CooldownBoard
from stages.rate_limiter.fleet import DispatchedBatch, EmbedderEntry, Fleet
from stages.rate_limiter.learning import Learning
from stages.rate_limiter.placement import Placement
from stages.rate_limiter.poison import Quarantine
from stages.rate_limiter.quota.counters import WindowId
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.waiting import Group, Waiting

NEVER_FITS_RETRY_S = 3600.0
"""A task that is larger than a token quota is tried again after this time: the limit may have been raised."""
REVIEW_INTERVAL_S = 1.0
"""How often tasks that waited for long in quarantine, and groups that were blocked, are looked at."""


class RateLimiterConfig(NamedTuple):
    """The settings that the decisions depend on."""

    batch_size: int = 256
    lease_seconds: float = 15.0
    hold_seconds: float = 60.0
    max_dispatches: int = 5


class RateLimiter:
    """The state; its handlers return actions."""

    def __init__(self, config: RateLimiterConfig, quotas: Quotas, boot_id: str, now: Instant) -> None:
        self.config = config
        self.quotas = quotas
        self.waiting = Waiting()
        self.owned: set[str] = set()
        """Ids of the tasks that wait here or that an embedder has."""
        self.fleet = Fleet()
        self.charging = Charging(quotas)
        self.quarantine = Quarantine(config.max_dispatches)
        self._cooldowns = CooldownBoard()
        self._placement = Placement(config.batch_size, self.fleet, self.quarantine, quotas, self._cooldowns)
        self._clock = ClockJumps(quotas.latest, now)
        self._boot_id = boot_id
        self._batch_count = 0
        self.learning = Learning(now)
        self._next_holding = now.mono
        self._next_try = 0.0
        self._next_review = 0.0
        self._blocking: set[tuple[str, WindowId]] = set()
        """Quota windows, with their scopes, that hold tasks back now."""
        self._ticked_at = now.mono
        self._draining = False

    # ---- messages ----

    def on_tasks(self, message: m.Tasks, now: Instant) -> Actions:
        """Queue new tasks. A task that is already here, or with an embedder, was sent twice and is ignored."""
        for task in message.tasks:
            if task.id in self.owned:
                continue
            if self.quotas.never_fits(task.key, task.tokens):
                yield Log("task_exceeds_token_quota", {"task_id": task.id, "tokens": task.tokens}, "error")
                yield Send("fetcher", m.Deferred([task.id], now.wall + NEVER_FITS_RETRY_S, "quota"))
            else:
                self.owned.add(task.id)
                self.waiting.add([task])
        yield from self._dispatch(now)

    def on_ready(self, message: m.Ready, now: Instant) -> Actions:
        """Learn what an embedder has and can take. A batch that it should have and has not is queued again."""
        entry = yield from self._entry_of(message, now)
        if new := self._cooldowns.report(message.provider_cooldowns):
            others = [other for other in self.fleet.values() if other is not entry]
            yield from (Send(other.inbox, m.ProviderCooldowns(new)) for other in others)
        changes = entry.on_ready(message, now)
        self.learning.heard(message.embedder)
        for sent in changes.finished:
            self._release(entry, sent)
        for batch_id, sent in changes.lost.items():
            yield Log("batch_lost", {"batch_id": batch_id, "embedder": entry.name}, "warning")
            self._requeue(list(sent.tasks.values()))
            self.quarantine.on_undecided(now)
        for sent in changes.learnt:
            if twice := self.owned.intersection(sent.ids):
                self.waiting.remove(twice)
                self.fleet.has_doubles = True
            self.owned.update(sent.ids)
        yield from self._dispatch(now)

    def on_finished(self, message: m.Finished, now: Instant) -> Actions:
        """Settle the charge of a batch. What its provider cannot take now goes back to the fetcher."""
        entry = self.fleet.with_boot(message.embedder, message.boot_id)
        sent = entry.batches.pop(message.batch_id, None) if entry else None
        if entry is None or sent is None:
            return
        self._release(entry, sent)
        entry.free += now.mono >= entry.busy_until
        if sent.charge is not None:
            self.charging.settle(sent, sent.charge, message, now.wall)
            yield PutQuota()
        yield from self._requeue_rest(sent, message, now)
        if deferred := self.fleet.without_elsewhere(message.deferred):
            fields = {"reason": "provider", "until": message.until, **task_fields(deferred)}
            yield Log("tasks_deferred", fields)
            yield Send("fetcher", m.Deferred(deferred, message.until, "provider"))
        yield from self._dispatch(now)

    # ---- the clock ----

    def on_tick(self, now: Instant) -> Actions:
        """Remove silent embedders, renew leases (even of nothing), and retry what waited for a quota."""
        yield from self._clock.look(now)
        gap_s, self._ticked_at = now.mono - self._ticked_at, now.mono
        if gap_s > SILENT_AFTER_S / 2:
            self.fleet.excuse(gap_s, now)
        for entry in self.fleet.silent(now):
            yield from self._remove_dead(entry, now)
        complete = not self.learning.is_told and self.learning.is_over(now)
        if complete or now.mono >= self._next_holding:
            self.learning.is_told |= complete
            self._next_holding = now.mono + renewal_interval_s(self.config.lease_seconds)
            waiting, embedding = self.waiting.ids(), self.fleet.ids()
            yield Send("fetcher", m.Holding("rate_limiter", waiting, embedding, inventory_complete=complete))
        if now.mono >= self._next_try:
            yield from self._dispatch(now)

    def on_drain(self, now: Instant) -> Actions:  # noqa: ARG002  the loop's signature
        """Dispatch nothing more. Tasks that wait here are leased, and still pending in the API."""
        self._draining = True
        return ()

    def report(self, now: Instant) -> Report:
        """The content of the heartbeat."""
        blockers = []
        if not self.fleet:
            blockers.append("no embedder has reported ready")
        if problem := self.quarantine.problem():
            blockers.append(problem)
        windows = self.charging.windows(now.wall)
        if reasons := exhausted(windows):
            blockers.append(f"waiting for a quota: {reasons}")
        facts: dict[str, Any] = {"waiting": len(self.waiting.ids()), "embedding": len(self.fleet.ids())}
        if (ahead_s := self.quotas.latest - now.wall) > JUMP_S:
            facts["clock_behind_windows_seconds"] = round(ahead_s, 1)
        return Report(blockers, facts, windows)

    # ---- tasks that come again ----

    def _requeue(self, tasks: list[m.Task], at_most: int = 0) -> None:
        """Queue tasks before the others, in their order."""
        self.owned.update(task.id for task in tasks)
        self.waiting.add_first(tasks, at_most)

    def _requeue_rest(self, sent: DispatchedBatch, message: m.Finished, now: Instant) -> Iterator[Any]:
        """Queue again what the request budget of a batch did not cover."""
        unknown: list[str] = []
        for at_most, every in message.requeue.items():
            if ids := self.fleet.without_elsewhere(every):
                yield Log("batch_requeued", {"at_most": at_most, **task_fields(ids)})
            self._requeue([sent.tasks[task_id] for task_id in ids if task_id in sent.tasks], at_most)
            unknown += [task_id for task_id in ids if task_id not in sent.tasks]
        if unknown:  # the batch was dispatched before this process started: only the fetcher can get the tasks
            yield Send("fetcher", m.Deferred(unknown, now.wall, "quota"))

    # ---- embedders ----

    def _entry_of(self, message: m.Ready, now: Instant) -> Generator[Any, None, EmbedderEntry]:
        if entry := self.fleet.with_boot(message.embedder, message.boot_id):
            return entry
        if earlier := self.fleet.get(message.embedder):
            yield from self._remove_dead(earlier, now)
        entry = self.fleet.add(message, now)
        if known := self._cooldowns.in_force(now.wall):
            yield Send(entry.inbox, m.ProviderCooldowns(known))
        return entry

    def _release(self, entry: EmbedderEntry, sent: DispatchedBatch) -> None:
        self.owned.difference_update(self.fleet.without_elsewhere(sent.ids))
        self.quarantine.on_finished(entry.name, sent.ids)

    def _remove_dead(self, entry: EmbedderEntry, now: Instant) -> Iterator[Any]:
        """An embedder is dead: queue its tasks again, in quarantine if it had them, and report poison tasks."""
        self.fleet.remove_dead(entry)
        batches = list(entry.batches.values())
        self.owned.difference_update(i for sent in batches for i in sent.ids)
        retried = [task for sent in batches if not sent.confirmed for task in sent.tasks.values()]
        poison_ids: list[str] = []
        if any(sent.confirmed for sent in batches):
            tasks = [task for sent in batches if sent.confirmed for task in sent.tasks.values()]
            outcome = self.quarantine.on_death(entry.name, tasks, now)
            retried, poison_ids = retried + outcome.retried, outcome.poison_ids
        elif batches:
            self.quarantine.on_undecided(now)
        self.owned.update(task.id for task in retried)
        self.quarantine.forget(i for sent in batches for i in sent.ids if i not in self.owned)
        self.waiting.add(retried)
        fields = {"embedder": entry.name, **task_fields([task.id for task in retried])}
        yield Log("embedder_lost", fields, "warning")
        if poison_ids:
            yield Send("fetcher", m.Deferred(poison_ids, now.wall, "poison"))

    # ---- dispatch ----

    def _dispatch(self, now: Instant) -> Iterator[Any]:
        """Fill the free slots, oldest group first, as far as the quotas admit."""
        if now.mono >= self._next_review:
            self._next_review = now.mono + REVIEW_INTERVAL_S
            yield from self._return_outdated(now)
        if self._draining or not self.learning.is_over(now) or not self.quarantine.breaker.allows(now.mono):
            return
        self._next_try = now.mono + REVIEW_INTERVAL_S
        charged = False
        blocking: set[tuple[str, WindowId]] = set()
        self._placement.reserve(self.waiting, now)
        for group in self.waiting.turns(first_attempts_first=self.quarantine.is_probing):
            queue = self.waiting[group]
            served = yield from self._serve(group, queue, now)
            charged = charged or served
            if queue:
                yield from self._defer(group, queue, blocking, now)
            self.waiting.end_turn(group, served=served)
        for _, window in blocking - self._blocking:  # counted when it begins to hold tasks back, not at each look
            yield Count("rate_limit_exceeded_total", (window.period,))
        self._blocking = blocking
        if charged:
            yield PutQuota()

    def _return_outdated(self, now: Instant) -> Iterator[Any]:
        """Give tasks that waited for long in quarantine back to the fetcher: it finds out if they are pending."""
        outdated = self.quarantine.outdated(now)
        ids = self.waiting.remove(outdated) if outdated else []
        if not ids:
            return
        self.owned.difference_update(ids)
        self.quarantine.forget(ids)
        yield Log("tasks_deferred", {"reason": "embedder", "until": now.wall, **task_fields(ids)})
        yield Send("fetcher", m.Deferred(ids, now.wall, "provider"))

    def _serve(self, group: Group, queue: deque[m.Task], now: Instant) -> Generator[Any, None, bool]:
        """Dispatch what a group may have now; returns whether that was anything."""
        served = False
        while queue and self.quarantine.breaker.allows(now.mono):
            entry = self._placement.embedder_for(group, now)
            if entry is None:
                break
            size = self._placement.size(group, len(queue), now)
            estimates = [queue[i].tokens for i in range(min(size, len(queue)))]
            admitted = self.quotas.admits(group.key, estimates, now.wall)
            if not admitted:
                break
            batch = [queue.popleft() for _ in range(admitted)]
            # first, so that the fetcher does not treat as lost what an embedder may have if this process dies now
            yield Send("fetcher", m.Holding("rate_limiter", [], [task.id for task in batch]))
            yield self._batch_for(entry, group, batch, now)
            served = True
        return served

    def _batch_for(self, entry: EmbedderEntry, group: Group, batch: list[m.Task], now: Instant) -> Send:
        self._batch_count += 1
        self.quarantine.breaker.began()
        batch_id = f"{self._boot_id[:8]}-{self._batch_count}"
        charge = self.charging.charge(group.key, batch, self.fleet.free_slots(group.key, now.wall), now)
        tasks = {task.id: task for task in batch}
        entry.batches[batch_id] = DispatchedBatch(list(tasks), tasks, group.key, charge)
        entry.free -= 1
        limited = self.quotas.limits(group.key)
        return Send(entry.inbox, m.Batch(batch_id, entry.boot_id, group.type, group.key, batch, charge, limited))

    def _defer(
        self, group: Group, queue: deque[m.Task], blocking: set[tuple[str, WindowId]], now: Instant
    ) -> Iterator[Any]:
        """Give tasks back that would wait longer than `hold_seconds`: in the API a person can still change them.

        Not while a batch is under way that may not spend all that it was charged: its end comes first.
        """
        first = queue[0].tokens
        blocked = self.quotas.blocked_by(group.key, first, now.wall)
        until, key, reason = now.wall, group.key, "quota"
        if blocked:
            key = "*" if "" in blocked else group.key
            if self.fleet.has_unsettled(key):
                return
            blocking |= {(scope, window) for scope in blocked for window in blocked[scope]}
            until = self.quotas.opens_at(group.key, first, now.wall)
            # exactly when it opens: a second later would be one part in sixty of a minute's quota
            self._next_try = min(self._next_try, now.mono + max(0.0, until - now.wall))
        elif self.fleet:
            until, reason = min(entry.cooldown_until(group.key) for entry in self.fleet.values()), "provider"
        if until - now.wall <= self.config.hold_seconds:
            return
        ids = [task.id for task in queue]
        queue.clear()
        self.owned.difference_update(ids)
        self.quarantine.forget(ids)
        yield Log("tasks_deferred", {"reason": reason, "until": until, "key": key, **task_fields(ids)})
        yield Send("fetcher", m.Deferred(ids, until, reason, key))
