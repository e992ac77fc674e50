"""The promise of the quotas, checked with random histories of simulated months.

Tasks arrive, charges are refunded and settled, the clock is set back, and the process is killed. The charges in any
interval of a period's length (rolling) and in any calendar period (fixed) must not exceed the limit. The whole trace is
checked for every interval that begins at a charge: two pointers move along the charges, and the time between them is
never longer than the period. The test also checks that every task that fits is admitted, and that a waiting task is
admitted exactly at the time that `opens_at` returned.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import SECONDS, Period
from stages.rate_limiter.quota.counters import WINDOWS, Unit, WindowId
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import QuotaLimits, Receipt

ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu"]
MODELS = ["limited", "free"]
# Shortly before: daylight saving ends in Berlin; a February of 29 days begins; a year begins within a week.
BEGINNINGS = [
    datetime.fromisoformat(f"{day}Z").timestamp()
    for day in ("2025-10-25T00:00", "2024-01-31T23:00", "2020-12-31T23:00")
]
TINY = 1 / 1024
"""All times are multiples of it. Floats of this size hold them exactly, so the checks are exact too."""


@dataclass
class Charge:
    """One batch, without the amounts that were refunded."""

    receipt: Receipt
    amounts: dict[Unit, int]


@dataclass
class Machine:
    """The quotas, a clock that the test moves, and the trace of all charges."""

    limits: QuotaLimits
    own: QuotaLimits
    strategy: Strategy
    timezone: str
    now: float
    trace: list[Charge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.quotas = self.fresh()

    def fresh(self) -> Quotas:
        return Quotas(self.limits, {"limited": self.own}, self.strategy, self.timezone)

    def restored(self) -> Quotas:
        quotas = self.fresh()
        quotas.restore(self.quotas.dump(), self.now)
        return quotas

    def crash(self) -> None:
        self.quotas = self.restored()

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def step_back(self, seconds: float) -> None:
        self.now -= seconds

    def arrive(self, model: str, tokens: list[int]) -> None:
        admitted = self.quotas.admits(model, tokens, self.now)
        if admitted:
            spent = sum(tokens[:admitted])
            receipt = self.quotas.charge(model, Amounts(admitted, spent, 1), self.now)
            assert not self.trace or receipt.at >= self.trace[-1].receipt.at
            amounts = {Unit.TASKS: admitted, Unit.TOKENS: spent, Unit.REQUESTS: 1}
            self.trace.append(Charge(receipt, amounts))
        elif tokens:
            assert self.quotas.blocked_by(model, tokens[0], self.now)
            self.check_opening(model, tokens[0])

    def check_opening(self, model: str, tokens: int) -> None:
        opens = self.quotas.opens_at(model, tokens, self.now)
        if self.quotas.never_fits(model, tokens):
            assert opens == math.inf
            return
        assert opens > self.quotas.latest
        assert self.restored().admits(model, [tokens], math.nextafter(opens, 0)) == 0
        assert self.restored().admits(model, [tokens], opens) == 1

    def wake(self, model: str, tokens: list[int]) -> None:
        """Move the clock to the time at which the tasks fit, and send them."""
        opens = self.quotas.opens_at(model, tokens[0], self.now)
        if opens < math.inf:
            self.now = opens
            self.arrive(model, tokens)

    def refund(self, which: int, part: float) -> None:
        if self.trace:
            charge = self.trace[which % len(self.trace)]
            back = {unit: int(amount * part) for unit, amount in charge.amounts.items()}
            self.quotas.refund(
                charge.receipt, Amounts(back[Unit.TASKS], back[Unit.TOKENS], back[Unit.REQUESTS]), self.now
            )
            charge.amounts = {unit: amount - back[unit] for unit, amount in charge.amounts.items()}

    def settle(self, which: int, part: float) -> None:
        if self.trace:
            charge = self.trace[which % len(self.trace)]
            reserved = charge.amounts[Unit.TOKENS]
            charge.amounts[Unit.TOKENS] = int(reserved * part)
            self.quotas.settle(charge.receipt, reserved, charge.amounts[Unit.TOKENS], self.now)

    def check_trace(self) -> None:
        for limits, models in ((self.limits, MODELS), (self.own, ["limited"])):
            for window, limit in limits.items():
                charges = [
                    (charge.receipt.at, charge.amounts[window.unit])
                    for charge in self.trace
                    if charge.receipt.model in models
                ]
                if self.strategy is Strategy.ROLLING:
                    assert most_within(charges, SECONDS[window.period]) <= limit
                else:
                    assert most_of_calendar(charges, window.period, ZoneInfo(self.timezone)) <= limit


def most_within(charges: list[tuple[float, int]], seconds: int) -> int:
    """The largest sum of charges in any closed interval of this length."""
    most = held = first = 0
    for at, amount in charges:
        held += amount
        while at - charges[first][0] > seconds:
            held -= charges[first][1]
            first += 1
        most = max(most, held)
    return most


def most_of_calendar(charges: list[tuple[float, int]], period: Period, zone: ZoneInfo) -> int:
    """The largest sum of charges in any calendar period, found from the local date and time."""
    held: Counter[tuple[object, ...]] = Counter()
    for at, amount in charges:
        local = datetime.fromtimestamp(math.floor(at), zone)
        shown: dict[Period, tuple[object, ...]] = {
            Period.MINUTE: (local.date(), local.hour, local.minute, local.utcoffset()),
            Period.HOUR: (local.date(), local.hour, local.utcoffset()),
            Period.DAY: (local.date(),),
            Period.WEEK: tuple(local.isocalendar()[:2]),
            Period.MONTH: (local.year, local.month),
        }
        held[shown[period]] += amount
    return max(held.values(), default=0)


Step = Callable[[Machine], None]

limits_of = st.dictionaries(st.sampled_from(WINDOWS), st.one_of(st.just(1), st.integers(1, 60)), max_size=5)
tokens = st.lists(st.integers(0, 40), min_size=1, max_size=25)
models = st.sampled_from(MODELS)
lengths = st.sampled_from([0.5, *map(float, SECONDS.values())])
spans = st.one_of(
    st.integers(0, 2048).map(lambda parts: parts * TINY),
    st.builds(lambda length, nudge: max(length + nudge * TINY, 0), lengths, st.integers(-1, 1)),
    st.builds(lambda length, part: math.floor(length * part / TINY) * TINY, lengths, st.floats(0, 1.1)),
)
whiches, parts = st.integers(-8, -1), st.floats(0, 1)
arrivals = st.builds(lambda m, t: lambda machine: machine.arrive(m, t), models, tokens)
wakings = st.builds(lambda m, t: lambda machine: machine.wake(m, t), models, tokens)
waits = spans.map(lambda seconds: lambda machine: machine.wait(seconds))
steps: st.SearchStrategy[Step] = st.one_of(
    arrivals,
    arrivals,
    wakings,
    waits,
    waits,
    spans.map(lambda seconds: lambda machine: machine.step_back(seconds)),
    st.builds(lambda w, p: lambda machine: machine.refund(w, p), whiches, parts),
    st.builds(lambda w, p: lambda machine: machine.settle(w, p), whiches, parts),
    st.just(Machine.crash),
)
machines = st.builds(
    Machine, limits_of, limits_of, st.sampled_from(Strategy), st.sampled_from(ZONES), st.sampled_from(BEGINNINGS)
)


@settings(max_examples=500, deadline=None)
@given(machines, st.lists(steps, min_size=5, max_size=60))
def test_no_interval_admits_more_than_its_limit(machine: Machine, history: list[Step]) -> None:
    for step in history:
        step(machine)
    machine.check_trace()


@settings(max_examples=15, deadline=None)
@given(machines, st.lists(st.tuples(models, tokens, spans), min_size=100, max_size=200))
def test_no_interval_admits_more_than_its_limit_under_steady_demand(
    machine: Machine, demand: list[tuple[str, list[int], float]]
) -> None:
    for place, (model, waiting, pause) in enumerate(demand):
        machine.arrive(model, waiting)
        machine.wait(pause)
        if place % 10 == 0:
            machine.crash()
    machine.check_trace()


def test_the_check_finds_an_interval_with_one_task_too_many() -> None:
    charges = [(0.0, 3), (30.0, 2), (60.0, 1), (60.0 + TINY, 4), (120.0, 1)]
    assert most_within(charges, 60) == 7
    assert most_within(charges, 61) == 10
    assert most_of_calendar(charges, Period.MINUTE, ZoneInfo("UTC")) == 5


def test_every_unit_and_period_is_a_window() -> None:
    assert {WindowId(unit, period) for unit in Unit for period in Period} == set(WINDOWS)
