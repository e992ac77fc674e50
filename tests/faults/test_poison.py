"""A text that kills every embedder that gets it is found, reported failed, and nobody else is blamed."""

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
    fault = sandbox.fault("openai", body_contains=POISON, delay=60)  # time to see who has it, before it is paid
    for death in range(1, MAX_DISPATCHES + 1):
        pipeline.wait_until(partial(applied, pipeline, fault, death), f"dispatch {death} of the poison")
        pipeline.kill(worker_with(poison, pipeline))
    ledger.wait_done()
    cost = ledger.cost("a text that kills its embedder (5 times)")
    assert (cost.lost, cost.failed, cost.accepted_twice) == (0, 1, 0)
    assert sandbox.task(poison)["patches"][0]["error_code"] == "poison_task"
    assert applied(pipeline, fault, MAX_DISPATCHES)


def applied(pipeline: Pipeline, fault: int, times: int) -> bool:
    (told,) = [told for told in pipeline.sandbox.faults() if told["number"] == fault]
    return bool(told["applied"] == times)


def worker_with(task_id: str, pipeline: Pipeline) -> str:
    """The embedder that took the task last."""
    said = [e for e in pipeline.events("embedding") if task_id in (e.get("task_ids") or [e.get("task_id")])]
    return str(said[-1]["stage"])
