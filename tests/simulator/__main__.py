"""`make simulate`: many seeds, one after the other, until enough steps are done.

    make simulate                         200,000 steps from seed 0
    make simulate SEEDS=5000:6000         these seeds
    make simulate STEPS=10000000

Prints the steps a second, and how often each kind of fault was injected. A seed that fails is shrunk to its shortest
form, and told as a story: one line for each thing that happened. The exit status is 1 then.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.simulator.generate import scenario
from tests.simulator.scenario import Run, Scenario, run_scenario
from tests.simulator.shrink import shrink

STEPS = 200_000
STORY_LINES = 200
"""How many lines before the end of a story are printed."""
MOST_FAILED = 5
"""After this number of failing seeds no more are tried."""


def problem_of(tried: Scenario, story: list[str] | None = None) -> tuple[str, Run | None]:
    """Run a scenario; returns what is wrong, and the run if nothing is."""
    try:
        return "", run_scenario(tried, story)
    except Exception as error:  # noqa: BLE001  any exception of a state is a finding
        return f"{type(error).__name__}: {error}".splitlines()[0], None


def report(seed: int, problem: str) -> None:
    """Shrink a failing seed, and print its story."""
    sys.stdout.write(f"seed {seed} FAILED: {problem}\n")
    shortest = shrink(scenario(seed), lambda shorter: bool(problem_of(shorter)[0]))
    story: list[str] = []
    problem, _ = problem_of(shortest, story)
    sys.stdout.write(f"its shortest form: {shortest}\n")
    for line in story[-STORY_LINES:]:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"then: {problem}\n")


def simulate(seeds: Iterable[int], steps: int) -> int:
    """Run seeds until there are enough steps; returns how many failed."""
    began, done, failed, injected, last = time.monotonic(), 0, 0, Counter[str](), 0
    for last in seeds:
        problem, run = problem_of(scenario(last))
        if run is None:
            failed += 1
            report(last, problem)
        else:
            done += run.world.steps
            injected += run.world.injected
        if done >= steps or failed >= MOST_FAILED:
            break
    seconds = time.monotonic() - began
    sys.stdout.write(f"{done:,} steps in {seconds:.1f} s ({done / seconds:,.0f} a second), last seed {last}\n")
    for kind, number in sorted(injected.items()):
        sys.stdout.write(f"  {number:>9,}  {kind}\n")
    sys.stdout.write(f"{failed} seeds failed\n")
    return failed


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--steps", type=int, default=None, help="stop after this many steps")
    parser.add_argument("--seeds", default="0:", help="a range of seeds, such as 5000:6000, or one seed")
    options = parser.parse_args()
    first, colon, end = options.seeds.partition(":")
    last = int(end) if end else None if colon else int(first) + 1
    seeds = itertools.count(int(first)) if last is None else range(int(first), last)
    steps = options.steps or (STEPS if last is None else sys.maxsize)
    return 1 if simulate(seeds, steps) else 0


if __name__ == "__main__":
    sys.exit(main())
