"""The simulator itself: 200,000 steps find nothing, a seed is always the same run, and planted defects are found."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from common.failures.attribution import Attribution, Blame, Finding
from common.failures.retry import Backoff
from common.recently_settled import RecentlySettled
from stages.embedder.calling.evidence import Evidence
from stages.embedder.calling.vector_lengths import VectorLengths
from stages.fetcher.lease_expiry import LeaseExpiry
from stages.publisher.refusals import GIVE_UP, Refusals
from stages.rate_limiter.charging import Charging
from stages.rate_limiter.quota.quotas import Quotas
from tests.simulator.__main__ import STEPS, problem_of, simulate
from tests.simulator.generate import scenario
from tests.simulator.shrink import shrink

PLANTED_SEEDS = 60
"""A planted defect must be found within this many seeds."""


def test_two_hundred_thousand_steps_find_nothing() -> None:
    assert simulate(itertools.count(), STEPS) == 0


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    command = """
import hashlib
from tests.simulator.__main__ import problem_of
from tests.simulator.generate import scenario
story = []
problem_of(scenario(17), story)
print(len(story), hashlib.sha256(chr(10).join(story).encode()).hexdigest())
"""
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found.append(subprocess.check_output([sys.executable, "-c", command], env=environment, text=True))
    assert int(found[0].split()[0]) > 1000
    assert found[0] == found[1]


def first_problem() -> tuple[int, str]:
    for seed in range(PLANTED_SEEDS):
        problem, _ = problem_of(scenario(seed))
        if problem:
            return seed, problem
    return -1, ""


def forget_what_is_settled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecentlySettled, "at", lambda *_: None)


def expire_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseExpiry, "_is_expired", lambda *_: False)


def expire_what_is_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseExpiry, "_is_expired", lambda self, entry, now: now.mono - entry.heard_at_s > self._lease_s)


def give_up_at_the_first_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Refusals, "on_refused", lambda *_: (GIVE_UP, "planted"))


def admit_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quotas, "admits", lambda *_: 10**9)


def send_at_any_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Charging, "_send_by", lambda *_: 0.0)


def blame_every_refused_text(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Evidence, "served_since", lambda *_: True)
    patch.setattr(Evidence, "refused", lambda *_: 99)


def believe_every_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VectorLengths, "objection", lambda *_: "")


def blame_the_api_for_every_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attribution, "refused", lambda _, __, scope, *___: Finding(Blame.SCOPE, scope, 0))


def never_try_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "delay", lambda *_, **__: 1e6)


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (forget_what_is_settled, ("accepted twice", "paid", "two different results")),
        (expire_nothing, ("not finished",)),
        (expire_what_is_stored, ("paid", "two different results")),
        (give_up_at_the_first_refusal, ("given up without a refusal of its own",)),
        (admit_everything, ("reached the provider in a minute", "more than the limit in a minute")),
        (send_at_any_time, ("reached the provider in a minute",)),
        (blame_every_refused_text, ("has failed without evidence",)),
        (believe_every_length, ("has a vector of a wrong length",)),
        (blame_the_api_for_every_refusal, ("not finished", "wait for bad ones")),
        (never_try_again, ("not finished",)),
    ],
)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], finding: tuple[str, ...]
) -> None:
    plant(monkeypatch)
    _, problem = first_problem()
    assert problem
    assert any(words in problem for words in finding)


def test_a_failing_seed_is_shrunk_to_a_shorter_scenario_that_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    expire_nothing(monkeypatch)
    seed, _ = first_problem()
    shortest = shrink(scenario(seed), lambda shorter: bool(problem_of(shorter)[0]))
    assert len(shortest.faults) <= max(1, len(scenario(seed).faults) // 2)
    story: list[str] = []
    assert problem_of(shortest, story)[0]
    assert any("dies" in line or "fault" in line for line in story)
