"""Writes of LMDB fail: the stage logs the reason and stops, and nothing that was committed is lost."""

from __future__ import annotations

import subprocess

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.ledger import SETTLE_BATCH, Ledger
from tests.needs import require

TASKS = 6000
FULL = "inject=pwrite64,pwritev:error=ENOSPC"
BROKEN = "inject=fdatasync:error=EIO"
ERRORS = {FULL: "No space left on device", BROKEN: "Input/output error"}


@pytest.mark.parametrize("program", ["fetcher", "rate_limiter", "publisher"])
@pytest.mark.parametrize("fault", ERRORS, ids=["full", "broken"])
def test_a_stage_that_cannot_write_stops_without_losing_tasks(
    program: str, fault: str, short_lease: Pipeline, short_ledger: Ledger
) -> None:
    pipeline, ledger = short_lease, short_ledger
    strace = require("strace")
    pipeline.sandbox.queue(TASKS)
    ledger.wait_accepted(TASKS // 10)
    fatal_before = len(pipeline.events("fatal_error"))
    pid = int(pipeline.programs()[program]["pid"])
    ledger.mark_fault()
    # strace ends with the process, which supervisord then starts again without it
    subprocess.run([strace, "-f", "-qq", "-o", "/dev/null", "-e", fault, "-p", str(pid)], check=False, timeout=30)
    ledger.wait_done()
    (fatal,) = pipeline.events("fatal_error")[fatal_before:]
    assert fatal["stage"] == program
    assert "STATE_DIR" in fatal["reason"]
    assert ERRORS[fault] in fatal["reason"]
    cost = ledger.cost(f"{ERRORS[fault].lower()} under {program}")
    assert (cost.lost, cost.failed, cost.paid_twice, cost.bytes_differ) == (0, 0, 0, 0)
    assert cost.accepted_twice <= (SETTLE_BATCH if program == "publisher" else 0)
