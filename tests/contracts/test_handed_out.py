"""The promise of the rate limiter: no interval contains more than its limit, even if processes are killed.

The rate limiter is run as the loop runs it: a turn returns its actions, the quota windows are committed, then the
batches are sent. It is killed between any two of these steps, and the clock is moved over hours. An embedder spends the
requests and tokens of its charges or less; some tasks come back, some of its messages are lost. The trace of the sent
batches is then checked for every interval that begins at a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from common.process.actions import Send
from common.settings.model_limits import Strategy
from common.wire import messages as m
from common.wire.timing import SILENT_AFTER_S
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.buckets import SECONDS, Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.scope import QuotaLimits
from stages.rate_limiter.quota_store import limits_of
from stages.rate_limiter.state import RateLimiter, RateLimiterConfig
from tests.contracts.installations import Installation
from tests.decisions import START, after
from tests.samples import task

Install = Callable[..., Installation]
MODELS = ("small", "large")
SETTINGS = {
    "rate_limit_per_minute": 40,
    "rate_limit_per_hour": 900,
    "rate_limit_tokens_per_minute": 2_000,
    "rate_limit_tokens_per_day": 400_000,
    "rate_limit_requests_per_minute": 7,
    "rate_limit_models": '{"small": {"per_minute": 15, "requests_per_minute": 3}}',
}
TURNS = 1_500
SLOTS = 3


class Killed(Exception):
    """The rate limiter has been killed."""


@dataclass
class Spent:
    """A batch that was sent, and what its embedder has spent on it."""

    at: float
    """When it was admitted; later, when it reached the provider."""
    model: str
    tasks: int
    tokens: int
    requests: int


class Simulation:
    """A rate limiter, one embedder, and more tasks than the quotas allow."""

    def __init__(self, installation: Installation, seed: int) -> None:
        self.random = Random(seed)
        self.installation = installation
        self.rolling = Strategy(installation.settings.rate_limit_strategy) is Strategy.ROLLING
        """Whether the limits apply when a batch reaches the provider, or else when it is admitted."""
        self.reached: list[tuple[Spent, float]] = []
        """Batches for which the rate limiter learns in this turn when they reached the provider."""
        self.now = START
        self.trace: list[Spent] = []
        self.held: dict[str, tuple[m.Batch, Spent]] = {}
        self.tasks = 0
        self.kills = 0
        self.limiter = self.new_limiter()

    def new_limiter(self) -> RateLimiter:
        limits = RateLimiterConfig(batch_size=12, hold_seconds=90.0)
        return RateLimiter(limits, self.installation.quotas, f"boot {self.kills}", self.now)

    def run(self) -> None:
        for _ in range(TURNS):
            self.now = after(self.random.choice((0.05, 0.4, 1.0, 1.0, 2.5)), self.now)
            try:
                self.turn()
            except Killed:
                self.kills += 1
                self.now = after(self.random.uniform(0.1, SILENT_AFTER_S * 2), self.now)
                self.installation.restart(self.now.wall)
                self.limiter = self.new_limiter()

    def turn(self) -> None:
        """One turn of the loop: decide, commit, send; the rate limiter may be killed after each step."""
        unsent = []
        self.reached.clear()
        for action in self.decide():
            if isinstance(action, PutQuota):
                self.installation.put()
            else:
                unsent.append(action)
        self.maybe_kill()
        self.installation.commit()
        for spent, at in self.reached:
            spent.at = at
        for action in unsent:
            self.maybe_kill()
            if isinstance(action, Send) and isinstance(action.message, m.Batch):
                self.take(action.message)

    def decide(self) -> Iterable[Any]:
        limiter, now = self.limiter, self.now
        yield from limiter.on_tick(now)
        if sum(map(len, limiter.waiting.values())) < 60:
            new = [self.task() for _ in range(self.random.randrange(40))]
            yield from limiter.on_tasks(m.Tasks(new), now)
        for batch_id in [batch_id for batch_id in self.held if self.random.random() < 0.4]:
            known = any(batch_id in embedder.batches for embedder in limiter.fleet.values())
            heard = self.random.random() < 0.9 and known  # a new rate limiter knows no batches yet
            finished = self.finish(batch_id, heard=heard)
            if heard:
                yield from limiter.on_finished(finished, now)
        held = [
            m.HeldBatch(batch_id, batch.key, ids(batch), batch.charge) for batch_id, (batch, _) in self.held.items()
        ]
        yield from limiter.on_ready(m.Ready("embedder_00", "boot", "ipc://e", SLOTS - len(held), held), now)

    def task(self) -> m.Task:
        self.tasks += 1
        return task(f"t{self.tasks}", key=self.random.choice(MODELS), tokens=self.random.randrange(1, 200))

    def take(self, batch: m.Batch) -> None:
        """The embedder receives a batch: its whole charge may be spent from now on."""
        assert batch.charge is not None
        assert batch.limited
        spent = Spent(self.now.wall, batch.key, len(batch.tasks), batch.charge.tokens, batch.charge.requests)
        self.trace.append(spent)
        self.held[batch.batch_id] = batch, spent

    def finish(self, batch_id: str, *, heard: bool) -> m.Finished:
        """The embedder has spent the whole charge or less; the rest comes back."""
        batch, spent = self.held.pop(batch_id)
        named, random = ids(batch), self.random
        finished = m.Finished("embedder_00", "boot", batch_id, spent.tokens, spent.requests)
        free = random.randrange(len(named) + 1) if random.random() < 0.5 else 0
        finished.requests = random.randint(0 if free == len(named) else 1, spent.requests)
        finished.tokens = random.randrange(spent.tokens + 1)
        match random.choice(("cached", "unsent", "batch_requeued")) if free else "":
            case "cached":
                finished.uncharged = free
            case "unsent":
                finished.deferred, finished.unsent, finished.until = named[:free], True, self.now.wall
            case "batch_requeued":
                finished.requeue, finished.uncharged = {max(1, free // 2): named[:free]}, free
        spent.tasks -= free
        spent.tokens, spent.requests = finished.tokens, finished.requests
        if self.rolling and heard and finished.requests:
            self.reached.append((spent, random.uniform(spent.at, self.now.wall)))
            finished.reached_ago_s = self.now.wall - self.reached[-1][1]
        return finished

    def maybe_kill(self) -> None:
        if self.random.random() < 0.01:
            raise Killed


def ids(batch: m.Batch) -> list[str]:
    return [one.id for one in batch.tasks]


def check(trace: list[Spent], limits: QuotaLimits, strategy: Strategy) -> None:
    trace = sorted(trace, key=lambda spent: spent.at)
    for (unit, period), limit in limits.items():
        if not limit:
            continue
        amounts = [(spent.at, getattr(spent, unit)) for spent in trace]
        if strategy is Strategy.FIXED:
            assert most_in_calendar(amounts, period) <= limit, (unit, period)
        else:
            assert most_in_any(amounts, SECONDS[period]) <= limit, (unit, period)


def most_in_any(amounts: list[tuple[float, int]], seconds: float) -> int:
    """The maximum in any interval of this length, both ends included; it is reached in one that begins at a charge."""
    most = total = end = 0
    for at, amount in amounts:
        while end < len(amounts) and amounts[end][0] <= at + seconds:
            total += amounts[end][1]
            end += 1
        most = max(most, total)
        total -= amount
    return most


def most_in_calendar(amounts: list[tuple[float, int]], period: Period) -> int:
    """The maximum in a minute, hour or day of UTC."""
    found: dict[int, int] = {}
    for at, amount in amounts:
        number = int(at // SECONDS[period])
        found[number] = found.get(number, 0) + amount
    return max(found.values())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", Strategy)
def test_no_interval_gets_more_than_its_limit(install: Install, strategy: Strategy, seed: int) -> None:
    installation = install(strategy, **SETTINGS)
    simulation = Simulation(installation, seed)
    simulation.run()
    assert simulation.kills > 5
    assert sum(spent.tasks for spent in simulation.trace) > 250, "too few tasks were sent to prove anything"
    limits, models = limits_of(installation.settings)
    check(simulation.trace, limits, strategy)
    check([spent for spent in simulation.trace if spent.model == "small"], models["small"], strategy)


def test_the_check_detects_a_single_task_over_the_limit() -> None:
    limits = {WindowId(Unit.TASKS, Period.MINUTE): 3}
    trace = [Spent(START.wall + seconds, "small", 1, 0, 1) for seconds in (0, 10, 20, 60.5, 70.4)]
    check(trace, limits, Strategy.ROLLING)
    with pytest.raises(AssertionError):
        check([*trace, Spent(START.wall + 70.45, "small", 1, 0, 1)], limits, Strategy.ROLLING)


def test_a_kill_between_commit_and_send_leaves_one_batch_charged(install: Install) -> None:
    installation = install(rate_limit_per_day=100)
    limiter = RateLimiter(RateLimiterConfig(), installation.quotas, "boot", START)
    now = after(2.0)
    list(limiter.on_ready(m.Ready("embedder_00", "boot", "ipc://e", 1, []), now))
    actions = list(limiter.on_tasks(m.Tasks([task(f"t{number}") for number in range(10)]), now))
    sent = [type(action.message) for action in actions if isinstance(action, Send)]
    assert sent == [m.Holding, m.Batch]
    assert PutQuota() in actions
    installation.put()
    installation.commit()
    installation.restart(now.wall + 1)  # before anything was sent
    assert installation.quotas.usage(now.wall + 1)[0].current == 10


def test_a_restarted_rate_limiter_settles_the_charges_of_the_previous_one(install: Install) -> None:
    installation = install(rate_limit_per_day=100, rate_limit_tokens_per_day=1000)
    limiter = RateLimiter(RateLimiterConfig(), installation.quotas, "boot", START)
    now = after(2.0)
    list(limiter.on_ready(m.Ready("embedder_00", "boot", "ipc://e", 1, []), now))
    sent = list(limiter.on_tasks(m.Tasks([task("a", tokens=300), task("b", tokens=100)]), now))
    (batch,) = [a.message for a in sent if isinstance(a, Send) and isinstance(a.message, m.Batch)]
    installation.put()
    installation.commit()
    installation.restart(now.wall + 1)
    limiter = RateLimiter(RateLimiterConfig(), installation.quotas, "another boot", after(3.0))
    held = m.HeldBatch(batch.batch_id, batch.key, ids(batch), batch.charge)
    list(limiter.on_ready(m.Ready("embedder_00", "boot", "ipc://e", 0, [held]), after(4.0)))
    list(limiter.on_finished(m.Finished("embedder_00", "boot", batch.batch_id, 60, 1, uncharged=1), after(5.0)))
    current = {usage.unit: usage.current for usage in installation.quotas.usage(after(5.0).wall)}
    assert current == {Unit.TASKS: 1, Unit.TOKENS: 60}
