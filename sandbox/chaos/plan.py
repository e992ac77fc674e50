"""What happens when. The same seed and duration always give the same plan.

Kinds are dealt like cards from a shuffled deck, so that a short run has each of the frequent ones. A program that is
stopped or being restarted is not hit again before it continues, so that long stops stay long. Faults begin in storms
with calms between them: on a slow machine a program needs seconds to start, and without calms little else would happen.
"""

import math
import random
from dataclasses import dataclass

from sandbox.chaos.kinds import KINDS

GAP_S = 0.8
"""Mean time between two faults in a storm."""
STORM_S = 20.0
CALM_S = 20.0
FIRST_AT_S = 1.0
LONG_STOPS_FROM_S = 180.0
"""Shorter runs have no stops that take most of their time."""
BURST_GAP_S = 1.0
"""Mean time between two bursts of tasks."""
LARGEST_BURST = 270


@dataclass(frozen=True)
class PlannedFault:
    """One fault; times in seconds after the start of the run."""

    at_s: float
    kind: str
    target: str
    lasts_s: float


@dataclass(frozen=True)
class PlannedBurst:
    """Tasks that are queued together."""

    at_s: float
    tasks: int


@dataclass(frozen=True)
class ChaosPlan:
    """Everything that happens in one run."""

    seed: int
    seconds: float
    faults: tuple[PlannedFault, ...]
    bursts: tuple[PlannedBurst, ...]


def plan(seed: int, seconds: float) -> ChaosPlan:
    """The plan of one run."""
    rng = random.Random(seed)
    return ChaosPlan(seed, seconds, tuple(_faults(rng, seconds)), tuple(_bursts(rng, seconds)))


def _faults(rng: random.Random, seconds: float) -> list[PlannedFault]:
    found: list[PlannedFault] = []
    deck: list[str] = []
    free_at: dict[str, float] = {}
    at_s = FIRST_AT_S
    while at_s < seconds:
        deck = deck or _deck(rng, seconds)
        kind = deck.pop()
        targets = [target for target in KINDS[kind].targets if free_at.get(_hit(target), 0.0) <= at_s]
        if targets:
            target = rng.choice(targets)
            lasts_s = min(_between(rng, KINDS[kind].shortest_s, KINDS[kind].longest_s), seconds - at_s)
            free_at[_hit(target)] = at_s + lasts_s
            found.append(PlannedFault(at_s, kind, target, lasts_s))
        at_s = round(at_s + rng.expovariate(1 / GAP_S), 3)
        if at_s % (STORM_S + CALM_S) >= STORM_S:
            at_s = (at_s // (STORM_S + CALM_S) + 1) * (STORM_S + CALM_S)
    return found


def _hit(target: str) -> str:
    """The program or service that a target hits: two faults of one service do not overlap."""
    return target.partition(" ")[0]


def _deck(rng: random.Random, seconds: float) -> list[str]:
    deck = [kind for kind, about in KINDS.items() for _ in range(about.share)]
    if seconds < LONG_STOPS_FROM_S:
        deck = [kind for kind in deck if kind != "long stop"]
    rng.shuffle(deck)
    return deck


def _between(rng: random.Random, shortest_s: float, longest_s: float) -> float:
    """A time from the range, of any order of magnitude."""
    if not longest_s:
        return 0.0
    return round(math.exp(rng.uniform(math.log(shortest_s), math.log(longest_s))), 3)


def _bursts(rng: random.Random, seconds: float) -> list[PlannedBurst]:
    found, at_s = [], 0.0
    while at_s < seconds:
        found.append(PlannedBurst(at_s, rng.randint(1, LARGEST_BURST)))
        at_s = round(at_s + rng.expovariate(1 / BURST_GAP_S), 3)
    return found
