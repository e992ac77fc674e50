"""SIGKILL of each stage while 10,000 tasks run, and of all stages at random."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.conftest import IN_SLOTS
from tests.faults.ledger import SETTLE_BATCH, Ledger

TASKS = 10_000
KILLS = 40
MAY_COST = {  # program: accepted twice, paid twice
    "fetcher": (0, 0),
    "token_broker": (0, 0),
    "monitor": (0, 0),
    "rate_limiter": (0, 0),
    "embedder_00": (0, IN_SLOTS),
    "publisher": (SETTLE_BATCH, 0),
}


@pytest.mark.parametrize("program", MAY_COST)
def test_a_killed_stage_costs_no_more_than_the_design_allows(program: str, pipeline: Pipeline, ledger: Ledger) -> None:
    pipeline.sandbox.call("POST", "/tasks?ids=false", {"count": TASKS})
    ledger.wait_accepted(TASKS // 5)
    pipeline.kill(program)
    ledger.mark_fault()
    ledger.wait_done()
    cost = ledger.cost(f"kill {program}")
    accepted_twice, paid_twice = MAY_COST[program]
    assert (cost.tasks, cost.lost, cost.failed, cost.bytes_differ) == (TASKS, 0, 0, 0)
    assert cost.accepted_twice <= accepted_twice
    assert cost.paid_twice <= paid_twice
    assert cost.back_at_work < 20


def test_forty_random_kills_in_one_run_lose_no_task(short_lease: Pipeline, short_ledger: Ledger) -> None:
    pipeline, ledger = (
        short_lease,
        short_ledger,
    )  # with long leases, most tasks of a killed rate limiter would be missing at the end
    rng = random.Random(3)
    killed: Counter[str] = Counter()
    ledger.mark_fault()
    while killed.total() < KILLS:
        pipeline.sandbox.call("POST", "/tasks?ids=false", {"count": TASKS // KILLS})
        running = [name for name, info in pipeline.programs().items() if info["statename"] == "RUNNING"]
        if running:
            program = rng.choice(sorted(running))
            pipeline.kill(program)
            killed[program] += 1
        # the sleep waits for nothing: it makes the moments of the kills random
        time.sleep(rng.uniform(0.0, 1.0))
    ledger.wait_done()
    ledger.wait_unleased()
    cost = ledger.cost(f"{KILLS} kills at random")
    embedders = sum(count for program, count in killed.items() if program.startswith("embedder"))
    assert (cost.tasks, cost.lost, cost.failed, cost.bytes_differ) == (TASKS, 0, 0, 0)
    assert cost.accepted_twice <= SETTLE_BATCH * killed["publisher"]
    assert cost.paid_twice <= IN_SLOTS * embedders
