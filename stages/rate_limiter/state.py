"""What the rate limiter decides: when a task may be spent on a provider, in which batch, and on which embedder.

A task waits in a group (same type, same batch key, same number of attempts) until an embedder has a free slot and the
quotas admit it. Its charge and its batch leave in one turn, the charge committed first. Then the embedder holds it:

    waiting ──admitted, slot free──► sent ──named in Ready──► held ──Finished──► gone (the publisher has its result)
       ▲                              │                         │
       └──not held within 3 s─────────┴──embedder silent or ────┘
                                         started anew: attempt + 1

A task whose embedder died with it is suspect. A batch of 256 is not tried again whole: suspects of the second attempt
travel in batches of √256, those of the third and later alone, on an embedder that has nothing else. So the one that
kills its workers is found within three deaths, and its neighbours are not blamed for it. When one is given up for it,
and when the embedders themselves are at fault, is in `suspects.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from common import messages as m
from common.actions import Actions, Count, Report, Say, Send, of_tasks
from common.instant import Instant
from stages.rate_limiter.charging import Charging, Quotas, used_up
from stages.rate_limiter.clocks import LEAP, ClockWatch
from stages.rate_limiter.patience import Patience
from stages.rate_limiter.ring import Window
from stages.rate_limiter.suspects import ALONE, Suspects
from stages.rate_limiter.workers import Sent, Worker

SILENT = 3.0
"""Seconds without `Ready` after which an embedder counts as dead."""
MISSED = 2.0
"""Seconds for which one `Ready` after another must not name a batch that counts as lost on its way. Its age would not
do: when this process was stopped, what it reads first was said before the batch was sent."""
UNREAD = 0.5
"""Seconds that an embedder which counted as dead, and was not, has to read what lies in its inbox."""
LEARNING = 1.25
"""Seconds after the start in which nothing is handed out: each living embedder says what it holds every second, not
counting its tick and the time to connect again."""
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


class Group(NamedTuple):
    """What may share a batch."""

    type: str
    key: str
    attempt: int
    """1, 2, or `ALONE` for all later ones."""
    at_most: int = 0
    """The largest batch that may be formed of them, because a larger one was refused; 0: any."""


class RateLimiter:
    """The state; its handlers return actions."""

    def __init__(self, limits: Limits, quotas: Quotas, boot_id: str, now: Instant) -> None:
        self.limits = limits
        self.quotas = quotas
        self.waiting: dict[Group, deque[m.Task]] = {}
        self.owned: set[str] = set()
        """Ids that wait here or that an embedder has."""
        self.workers: dict[str, Worker] = {}
        self._boot_id = boot_id
        self._buried: dict[str, str] = {}
        """Embedder → its boot that counted as dead last."""
        self._batches = 0
        self._opens = now.mono + LEARNING
        self._relearnt = False
        """Whether the fetcher was told what is here after `LEARNING`."""
        self._next_holding = now.mono
        self._next_try = 0.0
        self._next_review = 0.0
        self.charging = Charging(quotas)
        self.suspects = Suspects(limits.max_dispatches)
        self._patience = Patience()
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
                self._queue(task)
        yield from self._dispatch(now)

    def ready(self, message: m.Ready, now: Instant) -> Actions:
        """Learn what an embedder has and could take; what it should have and has not is queued again."""
        worker = yield from self._worker_of(message, now)
        if news := self._patience.heard(message.patience):
            yield from (Send(other.inbox, m.Patience(news)) for other in self.workers.values() if other is not worker)
        if now.mono - worker.heard > SILENT / 2:
            for sent in worker.batches.values():  # one of us was stopped: it may not have read what it does not name
                sent.missed_at = None
        worker.heard, worker.inbox, worker.paused = now.mono, message.inbox, message.paused
        held = {batch.batch_id: batch for batch in message.held}
        for batch_id in [batch_id for batch_id in worker.batches if batch_id not in held]:
            sent = worker.batches[batch_id]
            if sent.confirmed:  # its `Finished` was lost; the publisher has the results
                self._gone(worker, batch_id)
                self.suspects.finished(worker.name, sent.ids)
            elif sent.missed_at is None:
                sent.missed_at = now.mono  # perhaps said before it came, and only read now
            elif now.mono - sent.missed_at >= MISSED:
                yield Say("batch_lost", {"batch_id": batch_id, "embedder": worker.name}, "warning")
                self._gone(worker, batch_id)
                self._requeue(list(sent.tasks.values()))
                self.suspects.undecided(now)
        for batch_id, batch in held.items():
            if batch_id in worker.batches:
                worker.batches[batch_id].confirmed = True
            else:
                worker.batches[batch_id] = Sent(batch.ids, now.mono, {}, batch.key, batch.charge, confirmed=True)
                self._adopt(batch.ids)
        on_the_way = sum(not sent.confirmed for sent in worker.batches.values())
        worker.free = max(0, message.free - on_the_way) if now.mono >= worker.busy_until else 0
        yield from self._dispatch(now)

    def finished(self, message: m.Finished, now: Instant) -> Actions:
        """Settle the charge of a batch; what its provider could not take now goes back to the fetcher."""
        worker = self.workers.get(message.embedder)
        sent = worker.batches.get(message.batch_id) if worker and worker.boot_id == message.boot_id else None
        if worker is None or sent is None:
            return
        self._gone(worker, message.batch_id)
        self.suspects.finished(worker.name, sent.ids)
        worker.free += now.mono >= worker.busy_until
        if sent.charge is not None:
            self.charging.settle(sent, sent.charge, message, now.wall)
            yield PutQuota()
        yield from self._again(sent, message, now)
        if message.deferred:
            yield Say("deferred", {"reason": "provider", "until": message.until, **of_tasks(message.deferred)})
            yield Send("fetcher", m.Deferred(message.deferred, message.until, "provider"))
        yield from self._dispatch(now)

    # ---- what time brings ----

    def tick(self, now: Instant) -> Actions:
        """Bury silent embedders, say what is held (if only nothing), and try again what waited for a quota."""
        yield from self._clock.look(now)
        gap, self._ticked = now.mono - self._ticked, now.mono
        if gap > SILENT / 2:
            for worker in self.workers.values():  # this process was stopped: that says nothing about the embedders
                worker.heard = min(worker.heard + gap, now.mono)
        for worker in [w for w in self.workers.values() if now.mono - w.heard > SILENT]:
            yield from self._bury(worker, now)
        first = not self._relearnt and now.mono >= self._opens
        if first or now.mono >= self._next_holding:
            self._relearnt = self._relearnt or first
            self._next_holding = now.mono + self.limits.lease_seconds / 3
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
        waiting = sum(map(len, self.waiting.values()))
        working = sum(len(sent.ids) for worker in self.workers.values() for sent in worker.batches.values())
        facts: dict[str, Any] = {"waiting": waiting, "working": working}
        if (ahead := self.quotas.latest - now.wall) > LEAP:
            facts["clock_behind_windows_seconds"] = round(ahead, 1)
        return Report(blockers, facts, windows)

    # ---- waiting tasks ----

    def _refuse(self, task: m.Task, now: Instant) -> Iterator[Any]:
        """A task that no window could ever hold is looked at again only now and then: the limits may be raised."""
        yield Say("exceeds_token_quota", {"task_id": task.id, "tokens": task.tokens}, "error")
        yield Send("fetcher", m.Deferred([task.id], now.wall + NEVER_FITS, "quota"))

    def _queue(self, task: m.Task, *, first: bool = False, at_most: int = 0) -> None:
        group = Group(task.type, task.key, min(task.attempt, ALONE), at_most)
        queue = self.waiting.setdefault(group, deque())
        if first:
            queue.appendleft(task)
        else:
            queue.append(task)

    def _requeue(self, tasks: list[m.Task]) -> None:
        """Queue again in front, in their order; the caller has taken them from their worker."""
        for task in reversed(tasks):
            self.owned.add(task.id)
            self._queue(task, first=True)

    def _again(self, sent: Sent, message: m.Finished, now: Instant) -> Iterator[Any]:
        """Queue in front what a batch could not do with the requests that it was charged with."""
        unknown = []
        for at_most, ids in message.again.items():
            yield Say("again", {"at_most": at_most, **of_tasks(ids)})
            for task_id in reversed(ids):
                if task := sent.tasks.get(task_id):
                    self.owned.add(task_id)
                    self._queue(task, first=True, at_most=at_most)
                else:
                    unknown.append(task_id)
        if unknown:
            yield Send("fetcher", m.Deferred(unknown, now.wall, "quota"))  # taken before this process started

    def _adopt(self, ids: list[str]) -> None:
        """An embedder has these already: whoever queued them here meanwhile queued them twice."""
        twice = self.owned.intersection(ids)
        self.owned.update(ids)
        if twice:
            for group, queue in self.waiting.items():
                self.waiting[group] = deque(task for task in queue if task.id not in twice)

    def _hold(self, relearnt: bool) -> Iterator[Any]:
        waiting = [task.id for queue in self.waiting.values() for task in queue]
        working = [i for worker in self.workers.values() for sent in worker.batches.values() for i in sent.ids]
        yield Send("fetcher", m.Holding("rate_limiter", waiting, working, relearnt=relearnt))

    # ---- embedders ----

    def _worker_of(self, message: m.Ready, now: Instant) -> Generator[Any, None, Worker]:
        worker = self.workers.get(message.embedder)
        if worker is not None and worker.boot_id == message.boot_id:
            return worker
        if worker is not None:
            yield from self._bury(worker, now)
        worker = Worker(message.embedder, message.boot_id, message.inbox, now.mono)
        if self._buried.pop(message.embedder, None) == message.boot_id:
            worker.busy_until = now.mono + UNREAD  # it was only stopped, and reads now what was sent to it before
        self.workers[message.embedder] = worker
        if known := self._patience.in_force(now.wall):
            yield Send(worker.inbox, m.Patience(known))
        return worker

    def _gone(self, worker: Worker, batch_id: str) -> None:
        sent = worker.batches.pop(batch_id)
        self.owned.difference_update(sent.ids)

    def _bury(self, worker: Worker, now: Instant) -> Iterator[Any]:
        """An embedder is dead: queue its tasks again, as suspects if it had them; give up what it died of."""
        del self.workers[worker.name]
        self._buried[worker.name] = worker.boot_id
        had = list(worker.batches.values())
        for batch_id in list(worker.batches):
            self._gone(worker, batch_id)
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
        for task in again:
            self._queue(task)
        yield Say("embedder_lost", {"embedder": worker.name, **of_tasks([task.id for task in again])}, "warning")
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
        reserved = self._reserved(now)
        for group in self._turns():
            queue = self.waiting[group]
            served = yield from self._serve(group, queue, reserved, now)
            charged = charged or served
            if queue:
                yield from self._give_back(group, queue, blocking, now)
            if not queue:
                del self.waiting[group]
            elif served:
                self.waiting[group] = self.waiting.pop(group)  # the next turn begins with a group that got nothing
        for _, window in blocking - self._blocking:  # the moment when it begins to hold work back, not each look
            yield Count("rate_limit_exceeded_total", (window.period,))
        self._blocking = blocking
        if charged:
            yield PutQuota()

    def _return_outdated(self, now: Instant) -> Iterator[Any]:
        """Let the fetcher find out which suspects that waited for long are still pending."""
        outdated = self.suspects.outdated(now)
        ids = [task.id for queue in self.waiting.values() for task in queue if task.id in outdated]
        if not ids:
            return
        for group, queue in self.waiting.items():
            self.waiting[group] = deque(task for task in queue if task.id not in outdated)
        self.owned.difference_update(ids)
        self.suspects.forget(ids)
        yield Say("deferred", {"reason": "embedder", "until": now.wall, **of_tasks(ids)})
        yield Send("fetcher", m.Deferred(ids, now.wall, "provider"))

    def _turns(self) -> list[Group]:
        """The groups, oldest first; but nobody's innocence is doubted for a probe if there is another."""
        groups = list(self.waiting)
        return sorted(groups, key=lambda group: group.attempt) if self.suspects.probing else groups

    def _serve(
        self, group: Group, queue: deque[m.Task], reserved: str | None, now: Instant
    ) -> Generator[Any, None, bool]:
        """Hand out what a group may have now; returns whether it was anything."""
        served = False
        while queue and self.suspects.breaker.allows(now.mono):
            worker = self._worker_for(group, reserved, now)
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

    def _is_alone(self, group: Group) -> bool:
        return group.attempt == ALONE or self.suspects.probing

    def _reserved(self, now: Instant) -> str | None:
        """While suspects wait that must be alone, one embedder takes nothing else, so that it becomes free for them.

        One that works, if there is any: what is innocent is then acquitted. Not while they wait for a quota or a
        provider: nothing else shall wait with them.
        """
        for group, queue in self.waiting.items():
            if self._is_alone(group) and queue and not self.quotas.blocked_by(group.key, queue[0].tokens, now.wall):
                able = [w for w in self.workers.values() if w.paused_until(group.key) <= now.wall]
                if able:
                    return min(able, key=lambda w: (self.suspects.is_failing(w.name), len(w.batches))).name
        return None

    def _worker_for(self, group: Group, reserved: str | None, now: Instant) -> Worker | None:
        if self._is_alone(group):
            worker = self.workers.get(reserved or "")
            return worker if worker and not worker.batches and worker.takes(group.key, now.wall) else None
        able = [w for w in self.workers.values() if w.name != reserved and w.takes(group.key, now.wall)]
        return max(able, key=lambda worker: worker.free, default=None)

    def _admitted(self, group: Group, queue: deque[m.Task], now: Instant) -> list[m.Task]:
        size = self._size(group, len(queue), now)
        estimates = [queue[i].tokens for i in range(min(size, len(queue)))]
        admitted = self.quotas.admits(group.key, estimates, now.wall)
        return [queue.popleft() for _ in range(admitted)]

    def _size(self, group: Group, waiting: int, now: Instant) -> int:
        if self._is_alone(group):
            return 1
        most = self.limits.batch_size if group.attempt == 1 else math.isqrt(self.limits.batch_size)
        most = min(group.at_most or most, most)
        if group.attempt > 1:
            return most
        if self.quotas.requests_left(group.key, now.wall) is not None or self._patience.scarce(now.wall):
            return most  # where requests are few, no batch leaves smaller than it could be
        return min(most, math.ceil(waiting / max(1, self._free_slots(group.key, now))))

    def _free_slots(self, key: str, now: Instant) -> int:
        return sum(worker.free for worker in self.workers.values() if worker.takes(key, now.wall))

    def _hand_out(self, group: Group, batch: list[m.Task], worker: Worker, now: Instant) -> Send:
        self._batches += 1
        self.suspects.breaker.began()
        batch_id = f"{self._boot_id[:8]}-{self._batches}"
        charge = self.charging.charge(group.key, batch, self._free_slots(group.key, now), now.wall)
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
            if self._unsettled(key):
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
        yield Say("deferred", {"reason": reason, "until": until, "key": key, **of_tasks(ids)})
        yield Send("fetcher", m.Deferred(ids, until, reason, key))

    def _unsettled(self, key: str) -> bool:
        under_way = [sent for worker in self.workers.values() for sent in worker.batches.values() if sent.charge]
        return any(key in ("*", sent.key) for sent in under_way)
