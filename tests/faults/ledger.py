"""What a fault has cost, by the record of those outside: what the API accepted, and what the provider was paid for.

A row for each fault is written to `bench/results/faults.json`; `python -m tests.faults.table` shows them.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, Pipeline

ROWS = ROOT / "bench" / "results" / "faults.json"
SETTLE_BATCH = 512 + 16
"""The publisher's window: acceptances that it settles together, and its connections."""


@dataclass
class Cost:
    """One fault's row."""

    fault: str
    tasks: int
    lost: int
    failed: int
    accepted_twice: int
    paid_twice: int
    bytes_differ: int
    """Results of which another version was sent after the first."""
    back_at_work: float
    """Seconds: the longest time after the fault in which the API received nothing."""


class Ledger:
    """Counts from where it is made; one for each test, so that tests can share a pipeline."""

    def __init__(self, sandbox: Sandbox, pipeline: Pipeline) -> None:
        self._sandbox = sandbox
        self._pipeline = pipeline
        self._before = sandbox.summary()
        self._offset = sum(self._before["api"]["tasks"].values())
        self.fault_at = time.time()

    def accepted(self) -> int:
        """Results that the API has accepted since."""
        return int(self._sandbox.summary()["api"]["accepted"] - self._before["api"]["accepted"])

    def paid(self) -> int:
        """Inputs that the provider has charged since."""
        return int(self._sandbox.summary()["openai"]["inputs"] - self._before["openai"]["inputs"])

    def wait_accepted(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many results are accepted."""
        self._pipeline.wait_until(lambda: self.accepted() >= count, f"{count} accepted results", seconds)

    def mark_fault(self) -> None:
        """Say that the fault is now: the time back to work counts from here."""
        self.fault_at = time.time()

    def wait_done(self, seconds: float = 90.0) -> None:
        """Wait until no task is pending and nobody in the pipeline has anything left to do."""
        self._sandbox.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0, seconds)
        self._wait_without("waiting", "working", "outbox", "running", "unstored", seconds=seconds)

    def wait_unleased(self, seconds: float = 60.0) -> None:
        """Wait until no lease is left either: one whose end was told to a process that died ends by itself."""
        self._wait_without("leased", "lost", seconds=seconds)

    def cost(self, fault: str) -> Cost:
        """Judge what was queued since, and note it for the table."""
        told, record = self._sandbox.summary(), self._sandbox.record(self._offset)
        accepted = [[patch for patch in task["patches"] if patch["accepted"]] for task in record]
        cost = Cost(
            fault,
            tasks=len(record),
            lost=sum(not patches for patches in accepted),
            failed=sum(task["state"] == "failed" for task in record),
            accepted_twice=sum(len(patches) > 1 for patches in accepted),
            paid_twice=told["openai"]["paid_again"] - self._before["openai"]["paid_again"],
            bytes_differ=told["api"]["digests_differ"] - self._before["api"]["digests_differ"],
            back_at_work=self._longest_pause([patch["time"] for patches in accepted for patch in patches]),
        )
        note(cost)
        return cost

    def _wait_without(self, *facts: str, seconds: float) -> None:
        """Wait until none of these facts of any process is anything but zero."""

        def at_rest() -> bool:
            _, health = self._pipeline.get("/health")
            processes: dict[str, dict[str, Any]] = (health or {}).get("processes", {})
            return bool(processes) and not any(told.get(fact) for told in processes.values() for fact in facts)

        self._pipeline.wait_until(at_rest, f"nothing to be {', '.join(facts)}", seconds)

    def _longest_pause(self, times: list[float]) -> float:
        after = sorted([self.fault_at, *(at for at in times if at >= self.fault_at)])
        return round(max((b - a for a, b in itertools.pairwise(after)), default=0.0), 2)


def note(cost: Cost) -> None:
    """Put the row into the file, in place of an earlier one of the same fault; tests in other processes do so too."""
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {row["fault"]: row for row in json.loads(ROWS.read_text())} if ROWS.exists() else {}
        rows[cost.fault] = asdict(cost)
        ROWS.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
