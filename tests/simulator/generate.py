"""The scenario of a seed: how many tasks of which natures, and which faults at which times. One seed, one scenario."""

from __future__ import annotations

import random

from tests.simulator.scenario import EMBEDDERS, FAULTS_END_S, STAGES, Fault, Scenario

NATURES = ("bad", "unreadable", "crashing", "invalid", "poison", "gone", "foreign", "refused", "refused")
DEATHS = ("kill", "kill", "kill before commit", "kill after commit", "terminate")
OUTSIDE = ("down", "lossy", "refusing", "new token", "delete", "tokens refused")
PROVIDER = ("down", "unreachable", "slow", "throttled", "refusing", "closed", "lossy", "long")
ENDPOINT = ("down", "throttled", "refusing", "hanging")
NETWORK = ("lose", "repeat", "reorder", "delay")
CLOCK = ("clock ahead", "clock back")
MOST_FAULTS = 12


def scenario(seed: int) -> Scenario:
    """Make the scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    return Scenario(
        seed=seed,
        tasks=rng.choice((10, 40, 80)),
        max_in_flight=rng.choice((12, 100)),
        cap=rng.choice((None, 20)),
        obeys_limit=rng.random() < 0.5,
        per_minute=rng.choice((0, 0, 60)),
        natures=[rng.choice(NATURES) for _ in range(rng.randrange(6))],
        requests_per_minute=rng.choice((0, 0, 0, 30)),
        connections=(16, 16, 4, 1)[seed % 4],
        faults=sorted(fault(rng) for _ in range(rng.randrange(MOST_FAULTS + 1))),
    )


def fault(rng: random.Random) -> Fault:  # noqa: PLR0911  one for each
    """Make one fault: its kind first, then what suits it."""
    at, of_process = round(rng.uniform(0.0, FAULTS_END_S), 1), rng.choice((0.3, 1.0, 3.0, 8.0, 20.0))
    match rng.randrange(13):
        case 0 | 1 | 2:
            return Fault(at, rng.choice(DEATHS), rng.choice(STAGES), of_process)
        case 3 | 4:
            return Fault(at, "stop", rng.choice(STAGES), of_process)
        case 5:
            return Fault(at, "crash loop", rng.choice(EMBEDDERS), of_process)
        case 6 | 7:
            return Fault(at, rng.choice(OUTSIDE), "token_broker", rng.choice((0.5, 2.0, 10.0)))
        case 8:
            return Fault(at, rng.choice(NETWORK), "token_broker", rng.choice((0.5, 2.0, 10.0)))
        case 9:
            return Fault(at, "model refused", "token_broker", rng.choice((0.5, 2.0, 10.0)))
        case 10:
            return Fault(at, f"provider {rng.choice(PROVIDER)}", "token_broker", rng.choice((0.5, 2.0, 10.0, 30.0)))
        case 11:
            return Fault(at, f"token endpoint {rng.choice(ENDPOINT)}", "token_broker", rng.choice((0.5, 2.0, 10.0)))
        case _:
            return Fault(at, rng.choice(CLOCK), "token_broker", rng.choice((0.5, 5.0, 120.0)))
