"""A graceful stop under load throws nothing away that was paid for, and the next start carries on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.messages import Result
from common.store import read_only
from sandbox.pipeline import Pipeline
from stages.publisher.outbox import decode_result
from tests.faults.ledger import Ledger

TASKS = 3000


def stop_all(pipeline: Pipeline) -> None:
    pipeline.supervisor("stopAllProcesses")
    assert {told["statename"] for told in pipeline.programs().values()} == {"STOPPED"}


def start_all(pipeline: Pipeline) -> None:
    pipeline.supervisor("startAllProcesses", False)


STOPS = {"stop all": (stop_all, start_all), "shutdown": (Pipeline.stop, Pipeline.start)}


@pytest.mark.parametrize("way", STOPS)
def test_what_is_paid_for_is_accepted_or_on_disk_when_all_is_stopped(way: str, short_lease: Pipeline) -> None:
    pipeline = short_lease
    ledger = Ledger(pipeline.sandbox, pipeline)
    stop, start = STOPS[way]
    pipeline.sandbox.queue(TASKS)
    ledger.wait_accepted(TASKS // 5)
    killed = len(pipeline.events("started"))
    stop(pipeline)
    stored = outbox(pipeline)
    paid, accepted = ledger.paid(), ledger.accepted()
    assert paid == accepted + len(stored) < TASKS
    ledger.struck()
    start(pipeline)
    ledger.wait_done()
    assert len(pipeline.events("stopped")) == killed  # each that was started had come to its end, and none was killed
    cost = ledger.cost(f"{way}, then start")
    assert (cost.tasks, cost.lost, cost.failed) == (TASKS, 0, 0)
    assert (cost.accepted_twice, cost.paid_twice, cost.bytes_differ) == (0, 0, 0)


def outbox(pipeline: Pipeline) -> dict[str, Result]:
    return read_only(Path(pipeline.environment["STATE_DIR"]), "publisher", "results", decode_result)
