"""The cost of a fault according to the external services: what the API accepted, and what the provider charged.

One row per fault is written to `bench/results/faults.json`; `python -m tests.faults.table` shows them.
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
"""Acceptances that the publisher may lose when it is killed: those it settles together, and one per connection."""


@dataclass
class Cost:
    """The row of one fault."""

    fault: str
    tasks: int
    lost: int
    failed: int
    accepted_twice: int
    paid_twice: int
    bytes_differ: int
    """Results that were sent again with other bytes."""
    back_at_work: float
    """Seconds: the longest time after the fault in which the API accepted nothing."""


class Ledger:
    """Counts from the moment when it is created; each test has its own, so that tests can share a pipeline."""

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
        """Wait until this number of results is accepted."""
        self._pipeline.wait_until(lambda: self.accepted() >= count, f"{count} accepted results", seconds)

    def mark_fault(self) -> None:
        """Record that the fault begins now: `back_at_work` counts from here."""
        self.fault_at = time.time()

    def wait_done(self, seconds: float = 90.0) -> None:
        """Wait until no task is pending and no process of the pipeline has work left."""
        self._sandbox.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, seconds)
        self._wait_without("waiting", "embedding", "outbox", "running", "unstored", seconds=seconds)

    def wait_unleased(self, seconds: float = 60.0) -> None:
        """Wait until no lease is left: if the message that ends a lease is lost with a process, the lease expires."""
        self._wait_without("leased", "lost", seconds=seconds)

    def cost(self, fault: str) -> Cost:
        """Compute the cost for the tasks queued since, and write it to the table."""
        summary, record = self._sandbox.summary(), self._sandbox.record(self._offset)
        accepted = [[patch for patch in task["patches"] if patch["accepted"]] for task in record]
        cost = Cost(
            fault,
            tasks=len(record),
            lost=sum(not patches for patches in accepted),
            failed=sum(task["state"] == "failed" for task in record),
            accepted_twice=sum(len(patches) > 1 for patches in accepted),
            paid_twice=summary["openai"]["paid_again"] - self._before["openai"]["paid_again"],
            bytes_differ=summary["api"]["digests_differ"] - self._before["api"]["digests_differ"],
            back_at_work=self._longest_pause([patch["time"] for patches in accepted for patch in patches]),
        )
        write_row(cost)
        return cost

    def _wait_without(self, *facts: str, seconds: float) -> None:
        """Wait until these facts are zero in every process."""

        def at_rest() -> bool:
            _, health = self._pipeline.get("/health")
            processes: dict[str, dict[str, Any]] = (health or {}).get("processes", {})
            return bool(processes) and not any(facts_of.get(fact) for facts_of in processes.values() for fact in facts)

        self._pipeline.wait_until(at_rest, f"the facts {', '.join(facts)} to be zero", seconds)

    def _longest_pause(self, times: list[float]) -> float:
        after = sorted([self.fault_at, *(at for at in times if at >= self.fault_at)])
        return round(max((b - a for a, b in itertools.pairwise(after)), default=0.0), 2)


def write_row(cost: Cost) -> None:
    """Write the row to the file, replacing an earlier row of the same fault; locks the file against other processes."""
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {row["fault"]: row for row in json.loads(ROWS.read_text())} if ROWS.exists() else {}
        rows[cost.fault] = asdict(cost)
        ROWS.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
