"""Whatever dies, stops, answers late or not at all: every task ends once, and costs no more than it may.

A scenario is a list of faults at their times, for hypothesis to shrink; all other chance comes from its seed.
"""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.wire import messages as m
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, Window
from tests.properties.outside import Api, ApiTask, Provider
from tests.properties.service import (
    MAX_DISPATCHES,
    BrokerProcess,
    EmbedderProcess,
    FetcherProcess,
    LimiterProcess,
    PublisherProcess,
)
from tests.properties.world import World
from tests.rate_limiter.test_quota_invariant import most_within

EMBEDDERS = ("embedder_00", "embedder_01")
STAGES = ("fetcher", "rate_limiter", *EMBEDDERS, "publisher")
FAULTS_END = 40.0
"""Seconds; from then on nothing goes wrong any more."""
NEXT_TASK = 20.0
"""Seconds between tasks that are queued while poison is still pending: finished ones tell it from a broken embedder."""
PATIENCE = 700.0
"""Seconds after that in which all must have ended: back-offs, pauses and expired leases included."""


class Fault(NamedTuple):
    """Something goes wrong for a while."""

    at: float
    kind: str
    target: str
    seconds: float


@dataclass
class Scenario:
    """One run."""

    seed: int
    tasks: int
    window: int
    cap: int | None
    obeys_limit: bool
    per_minute: int
    natures: list[str]
    faults: list[Fault]


class Service:
    """Everything together."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = world = World(scenario.seed)
        self.api = api = Api(world, cap=scenario.cap, obeys_limit=scenario.obeys_limit)
        self.provider = Provider(world)
        quota = {Window(Unit.TASKS, Period.MINUTE): scenario.per_minute}
        self.broker = BrokerProcess(world, api)
        self.fetcher = FetcherProcess(world, api, scenario.window)
        self.limiter = LimiterProcess(world, quota)
        self.embedders = [EmbedderProcess(world, name, self.provider, api) for name in EMBEDDERS]
        self.publisher = PublisherProcess(world, api)
        for nature in scenario.natures:
            api.create(1, "small", nature)
        for key, share in (("small", 0.5), ("large", 0.3)):
            api.create(int(scenario.tasks * share), key)
        world.later(10.0, lambda: api.create(scenario.tasks - len(api.tasks), "small"))
        for process in world.processes.values():
            world.later(world.random.uniform(0.0, 0.5), process.start)
        for fault in scenario.faults:
            world.later(fault.at, lambda fault=fault: self.strike(fault))  # type: ignore[misc]

    def strike(self, fault: Fault) -> None:
        process = self.world.processes[fault.target]
        match fault.kind:
            case "kill":
                process.kill(fault.seconds)
            case "kill before commit" | "kill after commit":
                process.doom = fault.kind.split()[1]
                process.back_after = fault.seconds
            case "stop":
                process.stop(fault.seconds)
            case "terminate":
                process.terminate()
            case "crash loop":
                (embedder,) = [embedder for embedder in self.embedders if embedder.name == fault.target]
                embedder.crash_loops_until = self.world.now + fault.seconds
            case _:
                self.strike_outside(fault)

    def strike_outside(self, fault: Fault) -> None:
        match fault.kind:
            case "down" | "deaf" | "refusing":
                self.api.mood = fault.kind
                self.world.later(fault.seconds, lambda: setattr(self.api, "mood", "well"))
            case "new token":
                self.api.token += 1
            case "provider":
                self.provider.mood = "down"
                self.world.later(fault.seconds, lambda: setattr(self.provider, "mood", "well"))
            case "delete":
                self.api.delete()

    def run(self) -> None:
        self.world.run(FAULTS_END + 30.0)  # the longest of them is over by then
        self.go_on()
        self.world.run(FAULTS_END + PATIENCE, self.quiet)
        assert self.quiet(), f"still at work: {self.busy()}"
        self.replay()

    def go_on(self) -> None:
        """Queue another task now and then."""
        if any(task.pending for task in self.api.tasks.values() if task.nature == "poison"):
            self.api.create(1, "small")
            self.world.later(NEXT_TASK, self.go_on)

    def replay(self) -> None:
        """A person replays the dead letters, when the API takes them again."""
        if self.publisher.state.dead:
            letters = m.DeadLetters(list(self.publisher.state.dead))
            self.publisher.receive(letters, self.publisher.life)
            self.world.run(self.world.now + 100.0, lambda: self.quiet() and not self.publisher.dead)
            assert not self.publisher.dead
            self.world.run(self.world.now + 7.0)

    def busy(self) -> dict[str, object]:
        """What is not at its end."""
        dead = set(self.publisher.dead)
        every = {
            "pending": [
                t.id for t in self.api.tasks.values() if t.pending and t.nature != "foreign" and t.id not in dead
            ],
            "dead": [] if all(process.alive for process in self.world.processes.values()) else ["somebody"],
            "leases": sorted(self.fetcher.state.table.ids(*LEASED)),
            "limiter": list(self.limiter.state.owned),
            "slots": [list(embedder.state.slots) for embedder in self.embedders if embedder.state.slots],
            "outbox": list(self.publisher.state.entries),
        }
        return {name: what for name, what in every.items() if what}

    def quiet(self) -> bool:
        return not self.busy()

    # ---- what must be true in the end ----

    def check(self) -> None:
        for task in self.api.tasks.values():
            self.check_end(task)
            self.check_acceptances(task)
            self.check_payments(task)
        charges = sorted(self.limiter.charges.items())
        if self.scenario.per_minute:
            assert most_within(charges, 60) <= self.scenario.per_minute
        assert set(self.fetcher.leases) <= self.fetcher.state.table.ids(Whereabouts.LOST)
        assert self.fetcher.dead == set()

    def check_end(self, task: ApiTask) -> None:
        """None is lost, and none failed that should not."""
        expected = {
            "good": {"succeeded"},
            "bad": {"failed"},
            "invalid": {"failed"},
            "poison": {"failed"},
            "gone": {"succeeded", "deleted"},
            "foreign": {"pending"},
        }
        if task.nature in {"good", "gone"} and task.state == "failed":
            assert self.blamed(task.id) >= MAX_DISPATCHES, f"{task.id} was failed without reason"
        else:
            assert task.state in expected[task.nature], f"{task.id} is {task.state}"

    def check_acceptances(self, task: ApiTask) -> None:
        """Accepted once, but for the window between acceptance and commit; then with the same bytes."""
        if task.nature != "foreign" and task.state != "deleted":
            assert task.accepted
        assert len({accepted.body for accepted in task.accepted}) <= 1, f"{task.id} was answered in two ways"
        for first, second in itertools.pairwise(task.accepted):
            died = any(first.at - 1.0 < death < second.at for death in self.publisher.deaths)
            assert first.status != 200 or died, f"{task.id} was accepted twice for nothing"

    def check_payments(self, task: ApiTask) -> None:
        """Paid once, but for what an embedder had when it died, or was silent for so long that it counted as dead."""
        paid = self.provider.paid.get(task.id, 0)
        had = sum(embedder.had.get(task.id, 0) for embedder in self.embedders)
        assert paid <= 1 + had, f"{task.id} was paid for {paid} times, and lost {had} times"
        if task.nature in {"invalid", "foreign", "poison"}:
            assert paid == 0

    def blamed(self, task_id: str) -> int:
        had = sum(embedder.had.get(task_id, 0) for embedder in self.embedders)
        return had + self.fetcher.expired.get(task_id, 0)


def happen(scenario: Scenario) -> Service:
    """Run a scenario to its end; all chance, also that of the back-offs, is in its seed."""
    before = random.getstate()
    random.seed(scenario.seed)
    try:
        service = Service(scenario)
        service.run()
        service.check()
        return service
    finally:
        random.setstate(before)


times = st.integers(0, int(FAULTS_END * 10)).map(lambda tenths: tenths / 10)
spans = st.sampled_from([0.3, 1.0, 3.0, 8.0, 20.0])
processes = st.sampled_from(STAGES)
nobody = st.just("token_broker")
deaths = st.builds(
    Fault,
    times,
    st.sampled_from(["kill", "kill", "kill before commit", "kill after commit", "terminate"]),
    processes,
    spans,
)
stops = st.builds(Fault, times, st.just("stop"), processes, spans)
outside = st.builds(
    Fault,
    times,
    st.sampled_from(["down", "deaf", "refusing", "new token", "provider", "delete"]),
    nobody,
    st.sampled_from([0.5, 2.0, 10.0]),
)
loops = st.builds(Fault, times, st.just("crash loop"), st.sampled_from(EMBEDDERS), spans)
natures = st.sampled_from(["bad", "invalid", "poison", "gone", "gone", "foreign"])


def scenarios(*faults: st.SearchStrategy[Fault], most: int = 8) -> st.SearchStrategy[Scenario]:
    return st.builds(
        Scenario,
        seed=st.integers(0, 2**32),
        tasks=st.sampled_from([10, 40, 80]),
        window=st.sampled_from([12, 100]),
        cap=st.sampled_from([None, 20]),
        obeys_limit=st.booleans(),
        per_minute=st.sampled_from([0, 0, 60]),
        natures=st.lists(natures, max_size=4),
        faults=st.lists(st.one_of(*faults), max_size=most),
    )


MANY = int(os.environ.get("SCENARIOS", "0"))
"""So many for each promise, and others each time, rather than a few that are always the same."""


def promise(examples: int) -> settings:
    return settings(
        max_examples=MANY or examples,
        deadline=None,
        derandomize=not MANY,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@promise(100)
@given(scenarios(deaths))
def test_whatever_is_killed_at_whatever_moment(scenario: Scenario) -> None:
    happen(scenario)


def about(at: float) -> st.SearchStrategy[list[Fault]]:
    """What may befall the others while a rate limiter dies and the next one learns."""
    moments = st.integers(-10, 25).map(lambda tenths: max(0.0, at + tenths / 10))
    kinds = st.sampled_from(["kill", "kill after commit", "kill after commit", "stop"])
    whose = st.sampled_from(["publisher", "publisher", "fetcher", "rate_limiter", *EMBEDDERS])
    return st.lists(st.builds(Fault, moments, kinds, whose, st.sampled_from([0.3, 1.0, 3.0, 5.0])), max_size=3)


with_others = st.integers(16, 60).flatmap(
    lambda tenths: st.builds(
        lambda others, seconds: [Fault(tenths / 10, "kill", "rate_limiter", seconds), *others],
        about(tenths / 10),
        st.sampled_from([0.1, 0.3, 1.0]),
    )
)


@promise(60)
@given(st.integers(0, 2**32), st.sampled_from([40, 100]), with_others)
def test_whatever_befalls_the_others_when_the_rate_limiter_is_killed(
    seed: int, window: int, faults: list[Fault]
) -> None:
    happen(Scenario(seed, 80, window, None, True, 0, [], faults))


@promise(40)
@given(scenarios(outside))
def test_whatever_the_outside_answers(scenario: Scenario) -> None:
    happen(scenario)


@promise(60)
@given(scenarios(stops))
def test_whatever_stops_for_however_long(scenario: Scenario) -> None:
    happen(scenario)


@promise(120)
@given(scenarios(deaths, stops, outside, loops, most=12))
def test_all_of_it_together(scenario: Scenario) -> None:
    happen(scenario)


def long_loops(begin: float) -> st.SearchStrategy[list[Fault]]:
    """Of one embedder or both; while several tasks wait, for one that is alone would be blamed."""
    loop = st.builds(
        Fault,
        st.just(begin),
        st.just("crash loop"),
        st.sampled_from(EMBEDDERS),
        st.sampled_from([5.0, 20.0, 60.0, 200.0]),
    )
    return st.lists(loop, min_size=1, max_size=2)


crashing = st.one_of(
    st.tuples(st.sampled_from([4, 10, 80]), long_loops(0.0)),
    st.tuples(st.just(80), long_loops(2.0)),
)
others = st.builds(
    Fault,
    times,
    st.sampled_from(["kill", "stop", "terminate"]),
    st.sampled_from(["fetcher", "publisher"]),
    spans,
)


@promise(60)
@given(st.integers(0, 2**32), crashing, st.sampled_from([0, 0, 60]), st.lists(others, max_size=3))
def test_whatever_kills_embedders_for_a_reason_of_their_own_fails_nobody(
    seed: int, crashing: tuple[int, list[Fault]], per_minute: int, faults: list[Fault]
) -> None:
    tasks, loops = crashing
    service = happen(Scenario(seed, tasks, 100, None, True, per_minute, [], [*loops, *faults]))
    assert {task.state for task in service.api.tasks.values()} == {"succeeded"}


@pytest.mark.parametrize("seed", range(3))
def test_with_no_fault_everything_is_paid_for_and_accepted_exactly_once(seed: int) -> None:
    service = happen(Scenario(seed, 80, 100, None, True, 0, ["bad", "invalid"], []))
    assert all(len(task.accepted) == 1 for task in service.api.tasks.values())
    assert set(service.provider.paid.values()) == {1}
    assert len(service.provider.paid) == 79
