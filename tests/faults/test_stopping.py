"""A graceful stop under load loses no result that was paid for, and the next start continues with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.process.store import read_only
from common.wire.messages import Result
from sandbox.pipeline import Pipeline
from stages.publisher.outbox import decode_result
from tests.faults.ledger import Ledger

TASKS = 6000


def stop_all(pipeline: Pipeline) -> None:
    pipeline.supervisor("stopAllProcesses")
    assert {told["statename"] for told in pipeline.programs().values()} == {"STOPPED"}


def start_all(pipeline: Pipeline) -> None:
    pipeline.supervisor("startAllProcesses", False)


STOPS = {"stop all": (stop_all, start_all), "shutdown": (Pipeline.stop, Pipeline.start)}


@pytest.mark.parametrize("way", STOPS)
def test_every_paid_result_is_accepted_or_on_disk_after_a_graceful_stop(
    way: str, short_lease: Pipeline, short_ledger: Ledger
) -> None:
    pipeline, ledger = short_lease, short_ledger
    stop, start = STOPS[way]
    programs, before = len(pipeline.programs()), len(pipeline.events("process_stopped"))
    pipeline.sandbox.queue(TASKS)
    ledger.wait_accepted(TASKS // 10)
    try:
        stop(pipeline)
        ledger.mark_fault()
        stopped, stored = len(pipeline.events("process_stopped")) - before, len(outbox(pipeline))
        paid, accepted = ledger.paid(), ledger.accepted()
    finally:
        start(pipeline)
    ledger.wait_done()
    assert paid == accepted + stored < TASKS
    assert stopped == programs  # each process stopped by itself; none was killed
    cost = ledger.cost(f"{way}, then start")
    assert (cost.tasks, cost.lost, cost.failed) == (TASKS, 0, 0)
    assert (cost.accepted_twice, cost.paid_twice, cost.bytes_differ) == (0, 0, 0)


def outbox(pipeline: Pipeline) -> dict[str, Result]:
    return read_only(Path(pipeline.environment["STATE_DIR"]), "publisher", "results", decode_result)
