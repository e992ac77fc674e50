"""A short run of `make chaos`: every promise is kept under random faults of all frequent kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.chaos.judge import judge
from sandbox.chaos.kinds import KINDS
from sandbox.chaos.plan import plan
from sandbox.chaos.run import run

SEED = 11
SECONDS = 20.0


@pytest.mark.timeout(400)  # on a busy machine, starting and catching up take minutes
def test_random_faults_break_no_promise(tmp_path: Path) -> None:
    evidence = run(plan(SEED, SECONDS), tmp_path, print)
    assert len(evidence.tasks) > 500
    assert {fault.kind for fault in evidence.inflicted} >= KINDS.keys() - {"long stop"}
    assert sum(not fault.skipped for fault in evidence.inflicted) > 10
    broken = {verdict.promise: verdict.violations[:5] for verdict in judge(evidence) if verdict.violations}
    assert broken == {}
