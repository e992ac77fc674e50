"""A rate limiter with real quotas. The tests send the messages of the embedders and move the clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.process.actions import Send
from common.settings.model_limits import Strategy
from common.wire import messages as m
from common.wire.timing import LEARNING_S
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import QuotaLimits
from stages.rate_limiter.state import RateLimiter, RateLimiterConfig
from tests import decisions, samples
from tests.decisions import START, after

PER_MINUTE = WindowId(Unit.TASKS, Period.MINUTE)
PER_HOUR = WindowId(Unit.TASKS, Period.HOUR)
TOKENS_PER_MINUTE = WindowId(Unit.TOKENS, Period.MINUTE)
REQUESTS_PER_MINUTE = WindowId(Unit.REQUESTS, Period.MINUTE)


class Limiter:
    """Calls the handlers of a rate limiter; `batches` are those that the last call dispatched."""

    def __init__(
        self,
        quota: QuotaLimits | None = None,
        *,
        models: dict[str, QuotaLimits] | None = None,
        learnt: bool = True,
        **limits: Any,
    ) -> None:
        self.quotas = Quotas(quota or {}, models or {}, Strategy.ROLLING)
        self.state = RateLimiter(RateLimiterConfig(**limits), self.quotas, "limiterboot", START)
        self.now = START
        self.batches: list[m.Batch] = []
        self.inboxes: list[str] = []
        if learnt:
            self.after(LEARNING_S)

    def after(self, seconds: float) -> Limiter:
        self.now = after(seconds, self.now)
        return self

    def did(self, actions: Iterable[Any]) -> list[Any]:
        done = list(actions)
        self.batches = decisions.of_type(m.Batch, done)
        self.inboxes = [a.to for a in done if isinstance(a, Send) and isinstance(a.message, m.Batch)]
        return done

    def tasks(self, *ids: str, **fields: Any) -> list[Any]:
        return self.did(self.state.on_tasks(samples.tasks(*ids, **fields), self.now))

    def ready(
        self,
        free: int = 1,
        *held: m.Batch | m.HeldBatch,
        embedder: str = "embedder_00",
        boot: str = "boot",
        key_cooldowns: dict[str, float] | None = None,
    ) -> list[Any]:
        named = [h if isinstance(h, m.HeldBatch) else m.HeldBatch(h.batch_id, h.key, ids_of(h)) for h in held]
        ready = m.Ready(embedder, boot, f"ipc://{embedder}", free, named, key_cooldowns or {})
        return self.did(self.state.on_ready(ready, self.now))

    def finished(self, batch: m.Batch, embedder: str = "embedder_00", boot: str = "boot", **fields: Any) -> list[Any]:
        told = {"tokens": sum(task.tokens for task in batch.tasks), "requests": 1, **fields}
        return self.did(self.state.on_finished(m.Finished(embedder, boot, batch.batch_id, **told), self.now))

    def tick(self) -> list[Any]:
        return self.did(self.state.on_tick(self.now))

    def live(self, seconds: float, step: float = 1.0) -> list[Any]:
        """Tick for this many seconds. Returns all actions; `batches` are all batches of that time."""
        done: list[Any] = []
        for _ in range(int(seconds / step)):
            self.after(step)
            done += self.state.on_tick(self.now)
        return self.did(done)

    @property
    def batch(self) -> m.Batch:
        (batch,) = self.batches
        return batch

    @property
    def sizes(self) -> list[int]:
        return [len(batch.tasks) for batch in self.batches]

    @property
    def waiting(self) -> list[str]:
        return self.state.waiting.ids()

    def used(self, window: WindowId = PER_MINUTE) -> int:
        windows = self.quotas.usage(self.now.wall)
        (found,) = [one for one in windows if (one.unit, one.period) == window and not one.scope]
        return found.current


def ids_of(batch: m.Batch) -> list[str]:
    return [task.id for task in batch.tasks]


def with_a_batch(*ids: str, **limits: Any) -> tuple[Limiter, m.Batch]:
    """A rate limiter, and a batch of these tasks that an embedder has reported."""
    limiter = Limiter(**limits)
    limiter.tick()
    limiter.ready(1)
    limiter.tasks(*ids)
    batch = limiter.batch
    limiter.ready(0, batch)
    return limiter, batch
