"""The plan of a chaos run: made by its seed alone, and with every kind of fault."""

from __future__ import annotations

import itertools

import pytest

from sandbox.chaos.inflict import fault_fields
from sandbox.chaos.kinds import COSTS, KINDS, LOST_RESPONSES, WRONG_RESPONSES, Inflicted, allowed
from sandbox.chaos.plan import CALM_S, STORM_S, PlannedFault, plan
from sandbox.faults import FaultSpec

TEN_MINUTES_S = 600.0


def test_a_seed_gives_the_same_plan_again_and_another_seed_another_one() -> None:
    assert plan(1, 60.0) == plan(1, 60.0)
    assert plan(1, 60.0).faults != plan(2, 60.0).faults


def test_ten_minutes_have_every_kind_and_stops_of_more_than_a_minute() -> None:
    for seed in range(5):
        faults = plan(seed, TEN_MINUTES_S).faults
        assert {fault.kind for fault in faults} == set(KINDS)
        assert len(faults) > 250
        assert any(fault.lasts_s > 60 for fault in faults if fault.kind == "long stop")


@pytest.mark.parametrize("seconds", [20.0, TEN_MINUTES_S])
def test_all_faults_are_over_at_the_end_and_each_has_a_target_of_its_kind(seconds: float) -> None:
    for fault in plan(7, seconds).faults:
        assert fault.at_s + fault.lasts_s <= seconds
        assert fault.target in KINDS[fault.kind].targets
        assert fault.lasts_s <= max(KINDS[fault.kind].longest_s, 0.0)


def test_a_program_is_not_hit_while_it_is_stopped() -> None:
    free_at: dict[str, float] = {}
    for fault in plan(3, TEN_MINUTES_S).faults:
        hit = fault.target.partition(" ")[0]
        assert fault.at_s >= free_at.get(hit, 0.0)
        free_at[hit] = fault.at_s + fault.lasts_s


def test_no_fault_begins_in_a_calm() -> None:
    faults = plan(3, TEN_MINUTES_S).faults
    assert all(fault.at_s % (STORM_S + CALM_S) < STORM_S for fault in faults)
    assert max(fault.at_s for fault in faults) > TEN_MINUTES_S - STORM_S - CALM_S


def test_tasks_come_during_the_whole_run() -> None:
    bursts = plan(3, TEN_MINUTES_S).bursts
    assert bursts[0].at_s == 0.0
    assert max(later.at_s - burst.at_s for burst, later in itertools.pairwise(bursts)) < 15


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *(("throttle", target) for target in KINDS["throttle"].targets),
        *(("wrong response", target) for target in WRONG_RESPONSES),
        *(("lost response", target) for target in LOST_RESPONSES),
    ],
)
def test_the_sandbox_can_make_every_response(kind: str, target: str) -> None:
    FaultSpec(**fault_fields(PlannedFault(0.0, kind, target, 1.0)))


def test_only_faults_that_were_carried_out_may_cost_something() -> None:
    for kind, part in COSTS:
        target = f"{part}_00" if part == "embedder" else part
        assert allowed(Inflicted(kind, target, 0.0, 1.0)) == COSTS[kind, part]
        assert allowed(Inflicted(kind, target, 0.0, 1.0, skipped=True)) == allowed(Inflicted("throttle", "api", 0, 1))
    for kind, target in (
        ("kill", "fetcher"),
        ("stop", "rate_limiter"),
        ("restart", "embedder_00"),
        ("stop", "monitor"),
    ):
        assert not any(vars(allowed(Inflicted(kind, target, 0.0, 1.0))).values())


def test_a_lost_response_costs_one_result_or_one_batch() -> None:
    lost = [allowed(Inflicted("lost response", target, 0.0, 1.0, responses=3)) for target in ("api lost", "openai cut")]
    assert [(cost.accepted_again, cost.paid_again) for cost in lost] == [(3, 0), (0, 3 * 64)]
