"""Fetcher, rate limiter and publisher on the simulated machine, put together as their `__main__` modules do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from common.api.responses import ApiResponses
from common.recently_settled import DeleteSettled, Record
from common.settings.model_limits import Strategy
from common.wire import messages as m
from stages.fetcher import actions as fetched
from stages.fetcher.actions import Lease
from stages.fetcher.config import FetcherConfig
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.fetcher.page import PendingPage
from stages.fetcher.state import Fetcher
from stages.publisher import actions as published
from stages.publisher.body import body, state_of
from stages.publisher.config import PublisherConfig
from stages.publisher.state import Publisher
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import QuotaLimits, Receipt
from stages.rate_limiter.state import RateLimiter, RateLimiterConfig
from tests.simulator.outside import Api
from tests.simulator.process import Process
from tests.simulator.provider import LENGTH
from tests.simulator.world import World, void

LEASE_SECONDS = 15.0
MAX_DISPATCHES = 5
MAX_RETRIES = 3
BATCH_SIZE = 9
FAIL = frozenset({"bad", "invalid", "poison", "unreadable", "crashing"})
"""The natures of tasks that must fail."""


class FetcherProcess(Process):
    """Leases, recently settled tasks and dead letters are on disk."""

    def __init__(self, world: World, api: Api, window: int) -> None:
        super().__init__(world, "fetcher")
        self.api = api
        self.config = FetcherConfig(window, LEASE_SECONDS, MAX_DISPATCHES, polling_interval_s=5.0)
        self.leases: dict[str, Lease] = {}
        self.settled: dict[bytes, Record] = {}
        self.dead: set[str] = set()
        self.expired: dict[str, int] = {}
        """Task id → how often its lease expired."""

    def begin(self) -> None:
        leases = {task_id: msgspec.structs.replace(lease) for task_id, lease in self.leases.items()}
        settled = [record for _, record in sorted(self.settled.items())]
        self.state = Fetcher(self.config, "ipc://fetcher", leases, self.dead, self.world.instant, settled)

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Token: self.state.on_token,
            m.Published: self.state.on_published,
            m.Holding: self.state.on_holding,
            m.Deferred: self.state.on_deferred,
            PendingPage: self.state.on_page,
            fetched.PollFailed: self.state.on_poll_failed,
        }
        actions = list(handlers[type(message)](message, self.world.instant))
        if any(isinstance(action, fetched.PutLease) for action in actions):
            assert self.leased_and_counted <= self.config.max_in_flight, "more than MAX_IN_FLIGHT are leased"
        return actions

    @property
    def leased_and_counted(self) -> int:
        """What counts against MAX_IN_FLIGHT: of the results that the API refuses, as many again are exempt."""
        table = self.state.table
        return table.leased_count - min(table.count(Whereabouts.REFUSED), self.config.max_in_flight)

    def tick(self) -> Iterable[Any]:
        before = self.state.table.ids(*LEASED)
        actions = list(self.state.on_tick(self.world.instant))
        for task_id in before - self.state.table.ids(*LEASED):
            self.expired[task_id] = self.expired.get(task_id, 0) + 1
        return actions

    def drain(self) -> Iterable[Any]:
        return self.state.on_drain(self.world.instant)

    def write(self, action: Any) -> Callable[[], None] | None:  # noqa: PLR0911  one for each
        match action:
            case fetched.PutLease(task_id, lease):
                return lambda: self.leases.update({task_id: lease})
            case fetched.DeleteLease(task_id):
                return lambda: void(self.leases.pop(task_id, None))
            case fetched.PutSettled(record):
                return lambda: self.settled.update({record.key: record})
            case DeleteSettled(key):
                return lambda: void(self.settled.pop(key, None))
            case fetched.PutDead(task_id):
                return lambda: self.dead.add(task_id)
            case fetched.DeleteDead(task_id):
                return lambda: self.dead.discard(task_id)
        return None

    def effect(self, action: Any) -> None:
        if isinstance(action, fetched.Poll):
            asked_at, life = self.world.now, self.life
            coming = self.world.random.choice((0.001, 0.05, 0.5))

            def answer() -> None:
                self.event(self.api.poll(action, asked_at), self.world.random.choice((0.001, 0.05, 0.5)))

            self.world.later(coming, lambda: answer() if self.life == life and self.alive else None)

    def check(self) -> None:
        """Bounded: MAX_IN_FLIGHT, as many refused results again, and as many lost tasks that are listed again."""
        known = self.state.table.leased_count + self.state.table.count(Whereabouts.LOST)
        assert known <= 3 * self.config.max_in_flight, "more than three times MAX_IN_FLIGHT are known"


class LimiterProcess(Process):
    """The quota windows are on disk; all charges are recorded."""

    def __init__(self, world: World, quota: QuotaLimits) -> None:
        super().__init__(world, "rate_limiter")
        self.quota = quota
        self.stored: bytes | None = None
        self.charges: dict[float, int] = {}
        """Time → tasks charged then, for batches that may have been sent."""
        self.quotas = Recording(self)

    def begin(self) -> None:
        self.quotas = Recording(self)
        if self.stored is not None:
            self.quotas.restore(self.stored, self.world.instant.wall)
        config = RateLimiterConfig(BATCH_SIZE, LEASE_SECONDS, hold_seconds=10.0, max_dispatches=MAX_DISPATCHES)
        self.state = RateLimiter(config, self.quotas, f"life{self.life:04}", self.world.instant)

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Tasks: self.state.on_tasks,
            m.Ready: self.state.on_ready,
            m.Finished: self.state.on_finished,
        }
        return handlers[type(message)](message, self.world.instant)

    def tick(self) -> Iterable[Any]:
        return self.state.on_tick(self.world.instant)

    def drain(self) -> Iterable[Any]:
        return self.state.on_drain(self.world.instant)

    def write(self, action: Any) -> Callable[[], None] | None:
        return self._store if isinstance(action, PutQuota) else None

    def check(self) -> None:
        """What is remembered of tasks does not outlive their stay."""
        assert set(self.state.quarantine.cases) <= self.state.owned, "cases of tasks that are not here any more"

    def _store(self) -> None:
        self.stored = self.quotas.dump()
        for at, tasks in self.quotas.changes:
            self.charges[at] = self.charges.get(at, 0) + tasks
        self.quotas.changes.clear()


class Recording(Quotas):
    """The real quotas; charges and refunds are recorded when they are committed."""

    def __init__(self, process: LimiterProcess) -> None:
        super().__init__(process.quota, {}, Strategy.ROLLING)
        self.changes: list[tuple[float, int]] = []

    def charge(self, model: str, amounts: Amounts, now: float) -> Receipt:
        receipt = super().charge(model, amounts, now)
        self.changes.append((receipt.at, amounts.tasks))
        return receipt

    def refund(self, receipt: Receipt, amounts: Amounts, now: float) -> None:
        super().refund(receipt, amounts, now)
        self.changes.append((receipt.at, -amounts.tasks))


class PublisherProcess(Process):
    """Results, dead letters and recently settled tasks are on disk."""

    def __init__(self, world: World, api: Api, connections: int) -> None:
        super().__init__(world, "publisher")
        self.api = api
        self.config = PublisherConfig(LEASE_SECONDS, MAX_RETRIES, connections=connections)
        self.results: dict[str, m.Result] = {}
        self.dead: dict[str, m.Result] = {}
        self.settled: dict[bytes, Record] = {}
        self.failed: dict[str, str] = {}
        """Task id → the code of its failure."""

    def begin(self) -> None:
        entries, dead = _entries(self.results), _entries(self.dead)
        self.state = Publisher(self.config, "ipc://publisher", entries, dead, self.world.instant)
        self.state.settled.restore(record for _, record in sorted(self.settled.items()))

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Results: self.state.on_results,
            m.Token: self.state.on_token,
            m.ApiReachable: self.state.on_api_reachable,
            m.Draining: self.state.on_draining,
            m.DeadLetters: self.state.on_dead_letters,
            ApiResponses: self.state.on_responses,
            published.ResultsStored: self.state.on_stored,
            published.ResultsSettled: self.state.on_settled,
        }
        return handlers[type(message)](message, self.world.instant)

    def tick(self) -> Iterable[Any]:
        return self.state.on_tick(self.world.instant)

    def drain(self) -> Iterable[Any]:
        return self.state.on_drain(self.world.instant)

    def drained(self) -> bool:
        return self.state.is_drained(self.world.instant)

    def write(self, action: Any) -> Callable[[], None] | None:  # noqa: PLR0911  one for each
        match action:
            case published.PutResult(result):
                self.judge(result)
                return lambda: self.results.update({result.id: result})
            case published.Settle(record):
                return lambda: self._settle(record)
            case DeleteSettled(key):
                return lambda: void(self.settled.pop(key, None))
            case published.MoveToDeadLetters(task_id):
                assert self.api.tasks[task_id].refused, f"{task_id} was given up without a refusal of its own"
                return lambda: self.dead.update({task_id: self.results.pop(task_id)})
            case published.ReplayDeadLetter(task_id):
                return lambda: self.results.update({task_id: self.dead.pop(task_id)})
            case published.DropDeadLetter(task_id):
                return lambda: void(self.dead.pop(task_id))
        return None

    def judge(self, result: m.Result) -> None:
        """No result fails a good task, and every vector has its model's length."""
        nature = self.api.tasks[result.id].nature
        if result.failure is None:
            assert len(result.vector) == 4 * LENGTH, f"{result.id} has a vector of a wrong length"
            assert nature in {"good", "gone", "refused"}, f"{result.id} has succeeded"
        else:
            self.failed[result.id] = result.failure.code
            is_given_up = result.failure.code == "poison_task"
            assert nature in FAIL or is_given_up, f"{result.id} has failed without evidence: {result.failure.code}"

    def _settle(self, record: Record) -> None:
        assert record.key not in self.settled, "two records share a key"
        for task_id in record.ids:
            del self.results[task_id]
        self.settled[record.key] = record

    def effect(self, action: Any) -> None:
        if isinstance(action, published.SendPatch):
            sent, life = body(self.results[action.task_id]), self.life
            self.world.later(self.world.random.choice((0.0005, 0.01, 0.2)), lambda: self._patch(action, sent, life))

    def _patch(self, patch: published.SendPatch, sent: bytes, life: int) -> None:
        answer = self.api.patch(patch, sent)  # it arrives even if its sender has died meanwhile
        self.world.tell("API", f"answers the PATCH of {patch.task_id} with {answer.status or 'nothing'}")
        if self.life == life and self.alive:
            self.event(ApiResponses([answer]), self.world.random.choice((0.0005, 0.01, 0.2)))


def _entries(results: dict[str, m.Result]) -> dict[str, published.OutboxEntry]:
    return {i: published.OutboxEntry(result.type, state_of(result), result.leased_at) for i, result in results.items()}
