"""`make chaos MINUTES=10 SEED=1`: run the pipeline under random faults, print the verdicts.

The exit status is 1 if a promise was broken; then the log of the pipeline and the PATCHes are kept.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandbox.chaos.judge import NAMED, ChaosEvidence, Verdict, judge
from sandbox.chaos.kinds import KINDS
from sandbox.chaos.plan import plan
from sandbox.chaos.run import run


def show_evidence(console: Console, evidence: ChaosEvidence) -> None:
    """Print how many tasks and faults there were, by kind."""
    own = Counter(task.own_fault or "good" for task in evidence.tasks)
    tasks = Table("tasks", "count", title="Tasks")
    for name, count in own.items():
        tasks.add_row(name, str(count))
    console.print(tasks)
    faults = Table("fault", "count", "skipped", "seconds in all", "targets", title="Faults")
    for kind in [*KINDS, "killed by supervisord"]:
        mine = [fault for fault in evidence.inflicted if fault.kind == kind]
        done = [fault for fault in mine if not fault.skipped]
        targets = Counter(fault.target for fault in done)
        seconds = sum(fault.ended - fault.began for fault in done)
        named = ", ".join(f"{target} {count}" for target, count in sorted(targets.items()))
        if mine:
            faults.add_row(kind, str(len(done)), str(len(mine) - len(done)), f"{seconds:.0f}", named)
    console.print(faults)


def show_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """Print each promise, and the violations of it."""
    table = Table("promise", "seen", "verdict", title="Verdicts")
    for verdict in verdicts:
        table.add_row(verdict.promise, verdict.seen, f"{len(verdict.violations)} violations"
                      if verdict.violations else "kept")  # fmt: skip
    console.print(table)
    for verdict in verdicts:
        for violation in verdict.violations[:NAMED]:
            console.print(f"{verdict.promise}: {violation}")
        if len(verdict.violations) > NAMED:
            console.print(f"{verdict.promise}: and {len(verdict.violations) - NAMED} more")


def keep(folder: Path, evidence: ChaosEvidence) -> None:
    """Write the evidence beside the log."""
    (folder / "record.json").write_text(json.dumps(evidence.record))
    (folder / "charges.json").write_text(json.dumps(evidence.charges))
    (folder / "faults.json").write_text(json.dumps([vars(fault) for fault in evidence.inflicted]))


def main() -> int:
    """Run the chaos; returns 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=None, help="default: any; it is printed")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, soft_wrap=True)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    planned = plan(seed, options.minutes * 60)
    console.print(f"Seed {seed}: {len(planned.faults)} faults in {planned.seconds:.0f} s.")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    started = time.time()
    console.print(f"The log and the state of the pipeline are in {folder} meanwhile.")
    evidence = run(planned, folder, console.print)
    verdicts = judge(evidence)
    show_evidence(console, evidence)
    show_verdicts(console, verdicts)
    console.print(f"Seed {seed}, {time.time() - started:.0f} s.")
    if any(verdict.violations for verdict in verdicts):
        keep(folder, evidence)
        console.print(f"Promises were broken. The log and the records are in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
