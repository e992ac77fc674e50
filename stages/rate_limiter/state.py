"""What the rate limiter decides: when a task may be spent on a provider, in which batch, and on which embedder.

A task waits in a group (same type, same batch key, same number of attempts) until an embedder has a free slot and the
quotas admit it. Its charge and its batch leave in one turn, the charge committed first. Then the embedder holds it:

    waiting ──admitted, slot free──► sent ──named in Ready──► held ──Finished──► gone (the publisher has its result)
       ▲                              │                         │
       └──not held within 3 s─────────┴──embedder silent or ────┘
                                         started anew: attempt + 1

A task whose embedder died with it is suspect. A batch of 256 is not tried again whole, but in smaller ones and then one
by one (`placement.py`). So the one that kills its workers is found within three deaths, and its neighbours are not
blamed for it. When one is given up for it, and when the embedders themselves are at fault, is in `suspects.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from common.process.actions import Actions, Count, Instant, Log, Report, Send, task_fields
from common.wire import messages as m
from common.wire.timing import LEARNING_S, SILENT_AFTER_S, renewal_interval_s
from stages.rate_limiter.charging import Charging, Quotas, used_up
from stages.rate_limiter.clock_jumps import LEAP, ClockWatch
from stages.rate_limiter.cooldowns import Patience
from stages.rate_limiter.fleet import Sent, Worker, Workers
from stages.rate_limiter.placement import Placement
from stages.rate_limiter.poison import Suspects
from stages.rate_limiter.quota.counters import Window
from stages.rate_limiter.waiting import Group, Waiting

NEVER_FITS = 3600.0
"""Seconds until a task is tried again that is larger than a token quota."""


class PutQuota(NamedTuple):
    """Action: store the windows as they are now; it goes into this turn's transaction."""


class Limits(NamedTuple):
    """The settings that the decisions depend on."""

    batch_size: int = 256
    lease_seconds: float = 15.0
    hold_seconds: float = 60.0
    max_dispatches: int = 5


class RateLimiter:
    """The state; its handlers return actions."""

    def __init__(self, limits: Limits, quotas: Quotas, boot_id: str, now: Instant) -> None:
        self.limits = limits
        self.quotas = quotas
        self.waiting = Waiting()
        self.owned: set[str] = set()
        """Ids that wait here or that an embedder has."""
        self.workers = Workers()
        self._boot_id = boot_id
        self._batches = 0
        self._opens = now.mono + LEARNING_S
        self._relearnt = False
        """Whether the fetcher was told what is here after `LEARNING_S`."""
        self._next_holding = now.mono
        self._next_try = 0.0
        self._next_review = 0.0
        self.charging = Charging(quotas)
        self.suspects = Suspects(limits.max_dispatches)
        self._patience = Patience()
        self._placement = Placement(limits.batch_size, self.workers, self.suspects, quotas, self._patience)
        self._blocking: set[tuple[str, Window]] = set()
        self._clock = ClockWatch(quotas.latest, now)
        self._ticked = now.mono
        self._draining = False

    # ---- what comes in ----

    def tasks(self, message: m.Tasks, now: Instant) -> Actions:
        """Queue new tasks; one that is already here, or with an embedder, was only sent twice."""
        for task in message.tasks:
            if task.id in self.owned:
                continue
            if self.quotas.never_fits(task.key, task.tokens):
                yield from self._refuse(task, now)
            else:
                self.owned.add(task.id)
                self.waiting.add([task])
        yield from self._dispatch(now)

    def ready(self, message: m.Ready, now: Instant) -> Actions:
        """Learn what an embedder has and could take; what it should have and has not is queued again."""
        worker = yield from self._worker_of(message, now)
        if news := self._patience.heard(message.provider_cooldowns):
            yield from (
                Send(other.inbox, m.ProviderCooldowns(news)) for other in self.workers.values() if other is not worker
            )
        if now.mono - worker.heard > SILENT_AFTER_S / 2:
            for sent in worker.batches.values():  # one of us was stopped: it may not have read what it does not name
                sent.missed_at = None
        worker.heard, worker.inbox, worker.paused = now.mono, message.inbox, message.key_cooldowns
        found = worker.compare(message.held, now)
        for sent in found.finished:
            self._finish(worker, sent)
        for batch_id, sent in found.lost.items():
            yield Log("batch_lost", {"batch_id": batch_id, "embedder": worker.name}, "warning")
            self._requeue(list(sent.tasks.values()))
            self.suspects.undecided(now)
        for sent in found.learnt:
            self._adopt(sent.ids)
        on_the_way = sum(not sent.confirmed for sent in worker.batches.values())
        worker.free = max(0, message.free - on_the_way) if now.mono >= worker.busy_until else 0
        yield from self._dispatch(now)

    def finished(self, message: m.Finished, now: Instant) -> Actions:
        """Settle the charge of a batch; what its provider could not take now goes back to the fetcher."""
        worker = self.workers.of_boot(message.embedder, message.boot_id)
        sent = worker.batches.get(message.batch_id) if worker else None
        if worker is None or sent is None:
            return
        del worker.batches[message.batch_id]
        self._finish(worker, sent)
        worker.free += now.mono >= worker.busy_until
        if sent.charge is not None:
            self.charging.settle(sent, sent.charge, message, now.wall)
            yield PutQuota()
        yield from self._again(sent, message, now)
        if message.deferred:
            yield Log("deferred", {"reason": "provider", "until": message.until, **task_fields(message.deferred)})
            yield Send("fetcher", m.Deferred(message.deferred, message.until, "provider"))
        yield from self._dispatch(now)

    # ---- what time brings ----

    def tick(self, now: Instant) -> Actions:
        """Bury silent embedders, say what is held (if only nothing), and try again what waited for a quota."""
        yield from self._clock.look(now)
        gap, self._ticked = now.mono - self._ticked, now.mono
        if gap > SILENT_AFTER_S / 2:
            for worker in self.workers.values():  # this process was stopped: that says nothing about the embedders
                worker.heard = min(worker.heard + gap, now.mono)
        for worker in list(self.workers.values()):
            if now.mono - worker.heard > SILENT_AFTER_S:
                yield from self._bury(worker, now)
        first = not self._relearnt and now.mono >= self._opens
        if first or now.mono >= self._next_holding:
            self._relearnt = self._relearnt or first
            self._next_holding = now.mono + renewal_interval_s(self.limits.lease_seconds)
            yield from self._hold(first)
        if now.mono >= self._next_try:
            yield from self._dispatch(now)

    def drain(self, now: Instant) -> Actions:  # noqa: ARG002  the loop's signature
        """Hand out nothing more; what waits is pending in the API, and leased."""
        self._draining = True
        return ()

    def report(self, now: Instant) -> Report:
        """What the heartbeat says."""
        blockers = []
        if not self.workers:
            blockers.append("no embedder has reported ready")
        if problem := self.suspects.problem():
            blockers.append(problem)
        windows = self.charging.windows(now.wall)
        if reasons := used_up(windows):
            blockers.append(f"waiting for a quota: {reasons}")
        facts: dict[str, Any] = {"waiting": len(self.waiting.ids()), "working": len(self.workers.ids())}
        if (ahead := self.quotas.latest - now.wall) > LEAP:
            facts["clock_behind_windows_seconds"] = round(ahead, 1)
        return Report(blockers, facts, windows)

    # ---- waiting tasks ----

    def _refuse(self, task: m.Task, now: Instant) -> Iterator[Any]:
        """A task that no window could ever hold is looked at again only now and then: the limits may be raised."""
        yield Log("exceeds_token_quota", {"task_id": task.id, "tokens": task.tokens}, "error")
        yield Send("fetcher", m.Deferred([task.id], now.wall + NEVER_FITS, "quota"))

    def _requeue(self, tasks: list[m.Task], at_most: int = 0) -> None:
        """Queue again in front, in their order; the caller has taken them from their worker."""
        self.owned.update(task.id for task in tasks)
        self.waiting.add_first(tasks, at_most)

    def _again(self, sent: Sent, message: m.Finished, now: Instant) -> Iterator[Any]:
        """Queue in front what a batch could not do with the requests that it was charged with."""
        unknown: list[str] = []
        for at_most, ids in message.requeue.items():
            yield Log("again", {"at_most": at_most, **task_fields(ids)})
            self._requeue([sent.tasks[task_id] for task_id in ids if task_id in sent.tasks], at_most)
            unknown += [task_id for task_id in ids if task_id not in sent.tasks]
        if unknown:
            yield Send("fetcher", m.Deferred(unknown, now.wall, "quota"))  # taken before this process started

    def _adopt(self, ids: list[str]) -> None:
        """An embedder has these already: whoever queued them here meanwhile queued them twice."""
        twice = self.owned.intersection(ids)
        self.owned.update(ids)
        if twice:
            self.waiting.remove(twice)

    def _hold(self, relearnt: bool) -> Iterator[Any]:
        yield Send(
            "fetcher", m.Holding("rate_limiter", self.waiting.ids(), self.workers.ids(), inventory_complete=relearnt)
        )

    # ---- embedders ----

    def _worker_of(self, message: m.Ready, now: Instant) -> Generator[Any, None, Worker]:
        if worker := self.workers.of_boot(message.embedder, message.boot_id):
            return worker
        if earlier := self.workers.get(message.embedder):
            yield from self._bury(earlier, now)
        worker = self.workers.add(message, now)
        if known := self._patience.in_force(now.wall):
            yield Send(worker.inbox, m.ProviderCooldowns(known))
        return worker

    def _finish(self, worker: Worker, sent: Sent) -> None:
        self.owned.difference_update(sent.ids)
        self.suspects.finished(worker.name, sent.ids)

    def _bury(self, worker: Worker, now: Instant) -> Iterator[Any]:
        """An embedder is dead: queue its tasks again, as suspects if it had them; give up what it died of."""
        self.workers.bury(worker)
        had = list(worker.batches.values())
        self.owned.difference_update(i for sent in had for i in sent.ids)
        again = [task for sent in had if not sent.confirmed for task in sent.tasks.values()]
        poison: list[str] = []
        if any(sent.confirmed for sent in had):
            tasks = [task for sent in had if sent.confirmed for task in sent.tasks.values()]
            suspects, poison = self.suspects.died(worker.name, tasks, now)
            again += suspects
        elif had:
            self.suspects.undecided(now)
        self.owned.update(task.id for task in again)
        self.suspects.forget(i for sent in had for i in sent.ids if i not in self.owned)
        self.waiting.add(again)
        yield Log("embedder_lost", {"embedder": worker.name, **task_fields([task.id for task in again])}, "warning")
        if poison:
            yield Send("fetcher", m.Deferred(poison, now.wall, "poison"))

    def _dispatch(self, now: Instant) -> Iterator[Any]:
        """Fill the free slots, oldest group first, as far as the quotas admit."""
        if now.mono >= self._next_review:
            self._next_review = now.mono + 1.0
            yield from self._return_outdated(now)
        if self._draining or now.mono < self._opens or not self.suspects.breaker.allows(now.mono):
            return
        self._next_try = now.mono + 1.0
        charged = False
        blocking: set[tuple[str, Window]] = set()
        self._placement.reserve(self.waiting, now)
        for group in self.waiting.turns(innocent_first=self.suspects.probing):
            queue = self.waiting[group]
            served = yield from self._serve(group, queue, now)
            charged = charged or served
            if queue:
                yield from self._give_back(group, queue, blocking, now)
            self.waiting.had_its_turn(group, served=served)
        for _, window in blocking - self._blocking:  # the moment when it begins to hold work back, not each look
            yield Count("rate_limit_exceeded_total", (window.period,))
        self._blocking = blocking
        if charged:
            yield PutQuota()

    def _return_outdated(self, now: Instant) -> Iterator[Any]:
        """Let the fetcher find out which suspects that waited for long are still pending."""
        outdated = self.suspects.outdated(now)
        ids = self.waiting.remove(outdated) if outdated else []
        if not ids:
            return
        self.owned.difference_update(ids)
        self.suspects.forget(ids)
        yield Log("deferred", {"reason": "embedder", "until": now.wall, **task_fields(ids)})
        yield Send("fetcher", m.Deferred(ids, now.wall, "provider"))

    def _serve(self, group: Group, queue: deque[m.Task], now: Instant) -> Generator[Any, None, bool]:
        """Hand out what a group may have now; returns whether it was anything."""
        served = False
        while queue and self.suspects.breaker.allows(now.mono):
            worker = self._placement.worker_for(group, now)
            if worker is None:
                break
            batch = self._admitted(group, queue, now)
            if not batch:
                break
            # first, so that the fetcher never takes for lost what an embedder may have, should this process die now
            yield Send("fetcher", m.Holding("rate_limiter", [], [task.id for task in batch]))
            yield self._hand_out(group, batch, worker, now)
            served = True
        return served

    def _admitted(self, group: Group, queue: deque[m.Task], now: Instant) -> list[m.Task]:
        size = self._placement.size(group, len(queue), now)
        estimates = [queue[i].tokens for i in range(min(size, len(queue)))]
        admitted = self.quotas.admits(group.key, estimates, now.wall)
        return [queue.popleft() for _ in range(admitted)]

    def _hand_out(self, group: Group, batch: list[m.Task], worker: Worker, now: Instant) -> Send:
        self._batches += 1
        self.suspects.breaker.began()
        batch_id = f"{self._boot_id[:8]}-{self._batches}"
        charge = self.charging.charge(group.key, batch, self.workers.free_slots(group.key, now.wall), now.wall)
        tasks = {task.id: task for task in batch}
        worker.batches[batch_id] = Sent(list(tasks), now.mono, tasks, group.key, charge)
        worker.free -= 1
        limited = self.quotas.limits(group.key)
        return Send(worker.inbox, m.Batch(batch_id, worker.boot_id, group.type, group.key, batch, charge, limited))

    # ---- quotas ----

    def _give_back(
        self, group: Group, queue: deque[m.Task], blocking: set[tuple[str, Window]], now: Instant
    ) -> Iterator[Any]:
        """What would wait longer than `hold_seconds` goes back to the API, where a person can still change it.

        Not while a batch is under way that may not spend all that it was charged with: its end comes first.
        """
        first = queue[0].tokens
        blocked = self.quotas.blocked_by(group.key, first, now.wall)
        until, key, reason = now.wall, group.key, "quota"
        if blocked:
            key = "*" if "" in blocked else group.key
            if self.workers.unsettled(key):
                return
            blocking |= {(scope, window) for scope in blocked for window in blocked[scope]}
            until = self.quotas.opens_at(group.key, first, now.wall)
            # not a second later than it opens: of a minute's quota that would be one part in sixty
            self._next_try = min(self._next_try, now.mono + max(0.0, until - now.wall))
        elif self.workers:
            until, reason = min(worker.paused_until(group.key) for worker in self.workers.values()), "provider"
        if until - now.wall <= self.limits.hold_seconds:
            return
        ids = [task.id for task in queue]
        queue.clear()
        self.owned.difference_update(ids)
        self.suspects.forget(ids)
        yield Log("deferred", {"reason": reason, "until": until, "key": key, **task_fields(ids)})
        yield Send("fetcher", m.Deferred(ids, until, reason, key))
