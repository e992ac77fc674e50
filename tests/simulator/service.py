"""The service on the simulated machine: the states of four stages, put together as their `__main__` modules do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from common.api.responses import ApiResponses
from common.recently_settled import DeleteSettled, Record
from common.settings.model_limits import Strategy
from common.wire import messages as m
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.state import Embedder
from stages.fetcher import actions as fetched
from stages.fetcher.actions import Lease
from stages.fetcher.config import FetcherConfig
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.fetcher.page import PendingPage
from stages.fetcher.state import Fetcher
from stages.publisher import actions as published
from stages.publisher import state as publishing
from stages.publisher.body import body, state_of
from stages.publisher.state import Publisher
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import QuotaLimits, Receipt
from stages.rate_limiter.state import RateLimiter, RateLimiterConfig
from tests.simulator.losses import RecordsLosses
from tests.simulator.outside import Api, Provider
from tests.simulator.world import Process, World, void

LEASE_SECONDS = 15.0
MAX_DISPATCHES = 5
MAX_RETRIES = 3
BATCH_SIZE = 9
SLOTS = 2


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
            case DeleteSettled(record):
                return lambda: void(self.settled.pop(record.key, None))
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


class EmbedderProcess(RecordsLosses):
    """Nothing is on disk; what it had when it died, or was silent for long, may be paid twice."""

    def __init__(self, world: World, name: str, provider: Provider, api: Api) -> None:
        super().__init__(world, name)
        self.provider = provider
        self.api = api
        self.crash_loops_until = 0.0
        """Until this time every batch kills the process."""

    def begin(self) -> None:
        self.state = Embedder(self.name, f"{self.name}-{self.life}", f"ipc://{self.name}", SLOTS)

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Batch: self.state.on_batch,
            m.Stored: self.state.on_stored,
            BatchProcessed: self.state.on_processed,
        }
        return handlers[type(message)](message, self.world.instant)

    def tick(self) -> Iterable[Any]:
        return self.state.on_tick(self.world.instant)

    def drain(self) -> Iterable[Any]:
        return self.state.on_drain(self.world.instant)

    def drained(self) -> bool:
        return self.state.is_drained(self.world.instant)

    def task_ids(self) -> set[str]:
        return {task_id for slot in self.state.slots.values() for task_id in slot.ids}

    def effect(self, action: Any) -> None:
        if isinstance(action, ProcessBatch):
            life, batch = self.life, action.batch
            seconds = self.world.random.choice((0.01, 0.1, 0.3, 1.0, 4.0))
            self.world.later(seconds, lambda: self._embed(batch) if self.life == life and self.alive else None)

    def _embed(self, batch: m.Batch) -> None:
        if self.stopped:
            life = self.life
            self.world.later(0.5, lambda: self._embed(batch) if self.life == life and self.alive else None)
            return
        poisoned = any(self.api.tasks[task.id].nature == "poison" for task in batch.tasks)
        if poisoned or self.world.now < self.crash_loops_until:
            self.kill(self.world.random.uniform(0.2, 2.0))
            return
        done = BatchProcessed(batch.batch_id, [], requests=1)
        for task in batch.tasks:
            if self.provider.mode == "down" or self.provider.refused_model == batch.key:
                done.deferred.append(task.id)
            elif self.api.tasks[task.id].nature == "bad":
                self.provider.pay(task)
                failure = m.Failure("invalid_vector", "no usable vector")
                done.results.append(m.Result(task.id, task.type, task.leased_at, failure=failure))
            else:
                vector = self.provider.pay(task)
                done.results.append(m.Result(task.id, task.type, task.leased_at, vector))
                done.tokens += task.tokens
        if done.deferred:
            done.until = self.world.instant.wall + self.world.random.choice((0.0, 2.0, 30.0))
            done.unsent = self.world.random.random() < 0.5
        self.event(done, self.world.random.choice((0.0001, 0.05)))

    def check(self) -> None:
        is_disturbed = any(kind.startswith("message") for kind in self.world.injected)
        assert is_disturbed or len(self.state.slots) <= SLOTS, f"{self.name} has more batches than slots"


class PublisherProcess(Process):
    """Results, dead letters and recently settled tasks are on disk."""

    def __init__(self, world: World, api: Api) -> None:
        super().__init__(world, "publisher")
        self.api = api
        self.results: dict[str, m.Result] = {}
        self.dead: dict[str, m.Result] = {}
        self.settled: dict[bytes, Record] = {}

    def begin(self) -> None:
        config = publishing.PublisherConfig(LEASE_SECONDS, MAX_RETRIES)
        entries, dead = _entries(self.results), _entries(self.dead)
        self.state = Publisher(config, "ipc://publisher", entries, dead, self.world.instant)
        for _, record in sorted(self.settled.items()):
            self.state.settled.add(record)

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.Results: self.state.on_results,
            m.Token: self.state.on_token,
            m.ApiReachable: self.state.on_api_reachable,
            m.Draining: self.state.on_draining,
            m.DeadLetters: self.state.on_dead_letters,
            ApiResponses: self.state.on_responses,
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
                return lambda: self.results.update({result.id: result})
            case published.Settle(record):
                return lambda: self._settle(record)
            case DeleteSettled(record):
                return lambda: void(self.settled.pop(record.key, None))
            case published.MoveToDeadLetters(task_id):
                assert self.api.tasks[task_id].refused, f"{task_id} was given up without a refusal of its own"
                return lambda: self.dead.update({task_id: self.results.pop(task_id)})
            case published.ReplayDeadLetter(task_id):
                return lambda: self.results.update({task_id: self.dead.pop(task_id)})
            case published.DropDeadLetter(task_id):
                return lambda: void(self.dead.pop(task_id))
        return None

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
