"""A task that kills every embedder that gets it is identified and reported as failed; no other task fails."""

from __future__ import annotations

from functools import partial

from sandbox.pipeline import Pipeline
from tests.faults.ledger import Ledger

TASKS = 1000
MAX_DISPATCHES = 5
POISON = "a text that kills"


def test_a_poison_task_is_the_only_one_that_fails(pipeline: Pipeline, ledger: Ledger) -> None:
    sandbox = pipeline.sandbox
    (poison,) = sandbox.queue(1, text=POISON)
    sandbox.queue(TASKS)
    fault = sandbox.fault(
        "openai", body_contains=POISON, delay=60
    )  # long enough to see which embedder has it, before it is charged
    for death in range(1, MAX_DISPATCHES + 1):
        pipeline.wait_until(partial(applied, pipeline, fault, death), f"dispatch {death} of the poison")
        pipeline.kill(embedder_with(poison, pipeline))
    ledger.wait_done()
    cost = ledger.cost("a text that kills its embedder (5 times)")
    assert (cost.lost, cost.failed, cost.accepted_twice) == (0, 1, 0)
    assert sandbox.task(poison)["patches"][0]["error_code"] == "poison_task"
    assert applied(pipeline, fault, MAX_DISPATCHES)


def applied(pipeline: Pipeline, fault: int, times: int) -> bool:
    (found,) = [one for one in pipeline.sandbox.faults() if one["number"] == fault]
    return bool(found["applied"] == times)


def embedder_with(task_id: str, pipeline: Pipeline) -> str:
    """The embedder that received the task last."""
    events = [e for e in pipeline.events("batch_started") if task_id in (e.get("task_ids") or [e.get("task_id")])]
    return str(events[-1]["stage"])
