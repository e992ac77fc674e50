"""Makes a scenario that fails as short as possible: without the faults and natures that the failure does not need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulator.scenario import Scenario

MOST_RUNS = 300


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return the shortest scenario found that still fails."""
    runs, is_shorter = 0, True
    while is_shorter and runs < MOST_RUNS:
        is_shorter = False
        for shorter in candidates(scenario):
            runs += 1
            if fails(shorter):
                scenario, is_shorter = shorter, True
                break
            if runs >= MOST_RUNS:
                break
    return scenario


def candidates(scenario: Scenario) -> Iterator[Scenario]:
    """Scenarios that are a little shorter, those that leave out most first."""
    faults, natures = scenario.faults, scenario.natures
    half = len(faults) // 2
    if half:
        yield replace(scenario, faults=faults[:half])
        yield replace(scenario, faults=faults[half:])
    for number in range(len(faults)):
        yield replace(scenario, faults=faults[:number] + faults[number + 1 :])
    for number in range(len(natures)):
        yield replace(scenario, natures=natures[:number] + natures[number + 1 :])
    for fewer in (4, 10, 40):
        if fewer < scenario.tasks:
            yield replace(scenario, tasks=fewer)
    if scenario.per_minute:
        yield replace(scenario, per_minute=0)
    if scenario.cap is not None:
        yield replace(scenario, cap=None)
    for number, fault in enumerate(faults):
        if fault.seconds > 1.0:
            shorter = fault._replace(seconds=fault.seconds / 2)
            yield replace(scenario, faults=[*faults[:number], shorter, *faults[number + 1 :]])
