"""SIGSTOP for longer than a lease, then SIGCONT: the process continues with outdated knowledge."""

from __future__ import annotations

import signal

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.conftest import IN_SLOTS, SHORT_LEASE_S
from tests.faults.ledger import Ledger

TASKS = 3000
MAY_BE_PAID_TWICE = {"fetcher": 0, "rate_limiter": 0, "embedder_00": IN_SLOTS, "publisher": 0}


@pytest.mark.parametrize("program", MAY_BE_PAID_TWICE)
def test_a_process_stopped_for_longer_than_a_lease_loses_no_task(
    program: str, short_lease: Pipeline, short_ledger: Ledger
) -> None:
    pipeline, ledger = short_lease, short_ledger
    pipeline.sandbox.queue(TASKS)
    ledger.wait_accepted(TASKS // 5)
    pipeline.kill(program, signal.SIGSTOP)
    ledger.mark_fault()
    try:
        pipeline.run_for(1.3 * SHORT_LEASE_S)
    finally:
        pipeline.kill(program, signal.SIGCONT)
    ledger.wait_done()
    cost = ledger.cost(f"stop {program} for longer than a lease")
    assert (cost.tasks, cost.lost, cost.failed, cost.accepted_twice, cost.bytes_differ) == (TASKS, 0, 0, 0, 0)
    assert cost.paid_twice <= MAY_BE_PAID_TWICE[program]
