"""Guards the cost of a task by counts, which a busy machine hardly changes: pages, commits, system calls.

The bounds are about twice what was counted when they were set. A change that needs a higher one needs a reason.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import pages
from bench.figures import Report
from bench.machine import ROOT
from bench.processes import pipeline_pids
from bench.running import TIMEOUT_S, pipeline_on, queue, stand_ins
from tests.bench import instructions
from tests.needs import require

TASKS = 3_000
IN_FLIGHT = 400
"""The in-flight limit, so that a few thousand tasks take many pages."""
WHOLE_PAGES, _, CAPPED_PAGES, _ = pages.CASES
STAGES = ("fetcher", "rate_limiter", "embedder_00", "publisher")
Calls = dict[str, int]
"""The number of system calls by name."""
_ROW = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)


@pytest.mark.parametrize(
    ("case", "bound"), [(WHOLE_PAGES, 1.5), (CAPPED_PAGES, 3.0)], ids=["whole_pages", "pages_of_at_most_100"]
)
def test_a_pending_task_is_read_from_the_api_about_once(case: pages.Case, bound: float) -> None:
    assert pages.listed(Report("pages"), case, TASKS, MAX_IN_FLIGHT=IN_FLIGHT) <= bound


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Calls]:
    """The system calls of each stage while the pipeline processed `TASKS` tasks."""
    folder = tmp_path_factory.mktemp("strace")
    with stand_ins() as sandbox, pipeline_on(sandbox) as pipeline:
        pids = pipeline_pids(pipeline)
        with contextlib.ExitStack() as stack:
            for stage in STAGES:
                stack.enter_context(traced(pids[stage], folder / stage))
            queue(sandbox, TASKS)
            sandbox.wait_until(lambda summary: summary["api"]["accepted"] >= TASKS, TIMEOUT_S)
    return {stage: counted((folder / stage).read_text()) for stage in STAGES}


@contextlib.contextmanager
def traced(pid: int, output: Path) -> Iterator[None]:
    """Count the system calls of a process and its threads; strace writes its table to `output` at the end."""
    command = [require("strace"), "-f", "-c", "-o", str(output), "-p", str(pid)]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    try:
        if "attached" not in (line := strace.stderr.readline()):
            pytest.skip(f"strace cannot attach to a process here: {line.strip()}")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=30)


def counted(table: str) -> Calls:
    """The rows of the table that `strace -c` writes."""
    return {name: int(number) for number, name in _ROW.findall(table) if name != "total"}


def test_many_results_are_committed_together(calls: dict[str, Calls]) -> None:
    commits = {stage: calls[stage].get("fdatasync", 0) for stage in STAGES}
    assert 0 < sum(commits.values()) <= TASKS / 8, commits


def test_a_task_takes_few_system_calls(calls: dict[str, Calls]) -> None:
    totals = {stage: sum(calls[stage].values()) / TASKS for stage in STAGES}
    assert sum(totals.values()) <= 12, totals


def test_the_publisher_decides_with_few_instructions_a_task() -> None:
    if not (shutil.which("valgrind") and shutil.which("callgrind_control")):
        pytest.skip("valgrind is missing")
    valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, sys.executable, "-m", "tests.bench.instructions"],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    (collected,) = re.findall(r"Collected : (\d+)", done.stderr)
    assert 0 < int(collected) / instructions.TASKS <= 110_000


def test_the_table_of_strace_is_read() -> None:
    table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.006000           3      2000           fdatasync
 40.00    0.004000           1      4000        12 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.010000           1      6000        12 total
"""
    assert counted(table) == {"fdatasync": 2000, "recvfrom": 4000}
