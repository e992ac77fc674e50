"""SIGKILL at the moments when one side has acted and the other side has not stored it yet."""

from __future__ import annotations

import signal

from sandbox.pipeline import Pipeline
from tests.faults.conftest import IN_SLOTS
from tests.faults.ledger import Ledger

TASKS = 1000
CONNECTIONS = 16
SLOTS = 5


def test_a_publisher_killed_between_an_accepted_patch_and_its_commit_loses_no_task(
    pipeline: Pipeline, ledger: Ledger
) -> None:
    sandbox = pipeline.sandbox
    sandbox.fault("api", method="PATCH", skip=100, times=CONNECTIONS, hold=True)  # accepted without a response
    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: summary["api"]["held"] == CONNECTIONS)
    pipeline.kill("publisher")
    ledger.mark_fault()
    ledger.wait_done()
    cost = ledger.cost("kill publisher between accepted PATCHes and their commit")
    assert (cost.lost, cost.failed, cost.paid_twice) == (0, 0, 0)
    assert cost.accepted_twice >= CONNECTIONS
    assert cost.bytes_differ == 0


def test_an_embedder_killed_before_it_reads_a_paid_response_loses_no_task(pipeline: Pipeline, ledger: Ledger) -> None:
    sandbox = pipeline.sandbox
    sandbox.fault("openai", times=8, hold=True)
    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: summary["openai"]["held"] == 8)
    pipeline.kill("embedder_00")
    ledger.mark_fault()
    sandbox.release("openai")
    ledger.wait_done()
    cost = ledger.cost("kill embedder between the provider's charge and its answer")
    assert (cost.lost, cost.failed, cost.accepted_twice) == (0, 0, 0)
    assert 0 < cost.paid_twice <= IN_SLOTS


def test_an_embedder_killed_between_response_and_stored_loses_no_task(pipeline: Pipeline, ledger: Ledger) -> None:
    sandbox = pipeline.sandbox
    pipeline.kill("publisher", signal.SIGSTOP)  # no `Stored` is sent
    try:
        sandbox.queue(TASKS)
        pipeline.wait_until(lambda: unstored(pipeline) == SLOTS, "an embedder with every slot full of results")
        pipeline.kill("embedder_00")
        ledger.mark_fault()
    finally:
        pipeline.kill("publisher", signal.SIGCONT)
    ledger.wait_done()
    cost = ledger.cost("kill embedder between the answer and Stored")
    assert (cost.lost, cost.failed, cost.accepted_twice, cost.bytes_differ) == (0, 0, 0, 0)
    assert cost.paid_twice <= IN_SLOTS


def unstored(pipeline: Pipeline) -> int:
    """Batches that the embedder has finished, and the publisher has not stored."""
    _, health = pipeline.get("/health")
    return int(health["processes"]["embedder_00"].get("unstored", 0))
