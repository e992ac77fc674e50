"""The promises hold whatever is killed, suspended, late or silent: each task ends once and costs no more than allowed.

Hypothesis generates scenarios, and shrinks the list of faults if one fails.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.generate import scenario
from tests.simulator.scenario import EMBEDDERS, FAULTS_END_S, STAGES, Fault, Scenario, run_scenario

pytestmark = pytest.mark.timeout(600)

times = st.integers(0, int(FAULTS_END_S * 10)).map(lambda tenths: tenths / 10)
spans = st.sampled_from([0.3, 1.0, 3.0, 8.0, 20.0])
processes = st.sampled_from(STAGES)
external = st.just("token_broker")
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
    st.sampled_from(["down", "lossy", "refusing", "new token", "provider down", "provider lossy", "delete"]),
    external,
    st.sampled_from([0.5, 2.0, 10.0]),
)
loops = st.builds(Fault, times, st.just("crash loop"), st.sampled_from(EMBEDDERS), spans)
natures = st.sampled_from(["bad", "invalid", "poison", "gone", "gone", "foreign"])


def scenarios(*faults: st.SearchStrategy[Fault], most: int = 8) -> st.SearchStrategy[Scenario]:
    return st.builds(
        Scenario,
        seed=st.integers(0, 2**32),
        tasks=st.sampled_from([10, 40, 80]),
        max_in_flight=st.sampled_from([12, 100]),
        cap=st.sampled_from([None, 20]),
        obeys_limit=st.booleans(),
        per_minute=st.sampled_from([0, 0, 60]),
        natures=st.lists(natures, max_size=4),
        faults=st.lists(st.one_of(*faults), max_size=most),
    )


EXAMPLES = int(os.environ.get("SCENARIOS", "0"))
"""If set: this many random scenarios for each promise, instead of a few fixed ones."""


def promise(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or max(5, examples // 8),  # `make simulate` runs many more
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@promise(100)
@given(scenarios(deaths))
def test_the_promises_hold_if_processes_are_killed_at_any_moment(scenario: Scenario) -> None:
    run_scenario(scenario)


def faults_around(at: float) -> st.SearchStrategy[list[Fault]]:
    """Faults of other processes while a rate limiter dies and the next one learns its inventory."""
    moments = st.integers(-10, 25).map(lambda tenths: max(0.0, at + tenths / 10))
    kinds = st.sampled_from(["kill", "kill after commit", "kill after commit", "stop"])
    targets = st.sampled_from(["publisher", "publisher", "fetcher", "rate_limiter", *EMBEDDERS])
    return st.lists(st.builds(Fault, moments, kinds, targets, st.sampled_from([0.3, 1.0, 3.0, 5.0])), max_size=3)


with_others = st.integers(16, 60).flatmap(
    lambda tenths: st.builds(
        lambda others, seconds: [Fault(tenths / 10, "kill", "rate_limiter", seconds), *others],
        faults_around(tenths / 10),
        st.sampled_from([0.1, 0.3, 1.0]),
    )
)


@promise(60)
@given(st.integers(0, 2**32), st.sampled_from([40, 100]), with_others)
def test_the_promises_hold_if_other_processes_fail_while_a_rate_limiter_restarts(
    seed: int, max_in_flight: int, faults: list[Fault]
) -> None:
    run_scenario(Scenario(seed, 80, max_in_flight, None, True, 0, [], faults))


@promise(40)
@given(scenarios(outside))
def test_the_promises_hold_if_external_services_fail(scenario: Scenario) -> None:
    run_scenario(scenario)


@promise(60)
@given(scenarios(stops))
def test_the_promises_hold_if_processes_are_suspended(scenario: Scenario) -> None:
    run_scenario(scenario)


@promise(120)
@given(scenarios(deaths, stops, outside, loops, most=12))
def test_the_promises_hold_if_all_faults_are_combined(scenario: Scenario) -> None:
    run_scenario(scenario)


def long_loops(begin: float) -> st.SearchStrategy[list[Fault]]:
    """Crash loops of one or both embedders. They begin while several tasks wait: a single task would be quarantined."""
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
def test_no_task_fails_because_embedders_crash_by_themselves(
    seed: int, crashing: tuple[int, list[Fault]], per_minute: int, faults: list[Fault]
) -> None:
    tasks, loops = crashing
    run = run_scenario(Scenario(seed, tasks, 100, None, True, per_minute, [], [*loops, *faults]))
    assert {task.state for task in run.api.tasks.values()} == {"succeeded"}


@pytest.mark.parametrize("seed", range(3))
def test_without_faults_every_task_is_paid_and_accepted_exactly_once(seed: int) -> None:
    run = run_scenario(Scenario(seed, 80, 100, None, True, 0, ["bad", "invalid"], []))
    assert all(len(task.accepted) == 1 for task in run.api.tasks.values())
    charged = {task: paid - run.provider.excused.get(task, 0) for task, paid in run.provider.paid.items()}
    assert set(charged.values()) <= {0, 1}  # 0: its vector was never usable, and it was asked for again
    assert set(run.provider.paid) == {task.id for task in run.api.tasks.values() if task.nature != "invalid"}


def test_a_canary_in_the_middle_of_a_batch_takes_the_place_of_a_text() -> None:
    run_scenario(scenario(400019))  # found by `make simulate`: 61 tasks reached the provider in a minute instead of 60
