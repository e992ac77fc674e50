"""The simulator itself: 200,000 steps find nothing, a seed is always the same run, and planted defects are found."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from common.failures.attribution import Attribution, Blame, Finding
from common.failures.retry import Backoff
from common.process.actions import AfterCommit, Send
from common.recently_settled import RecentlySettled
from stages.embedder.calling.evidence import Evidence
from stages.embedder.calling.vector_lengths import VectorLengths
from stages.fetcher.lease_expiry import LeaseExpiry
from stages.publisher.actions import SendPatch
from stages.publisher.refusals import GIVE_UP, Refusals
from stages.rate_limiter.charging import Charging
from stages.rate_limiter.quota.quotas import Quotas
from tests.simulator.__main__ import STEPS, problem_of, simulate
from tests.simulator.generate import scenario
from tests.simulator.scenario import EMBEDDERS, Fault, Scenario
from tests.simulator.service import PublisherProcess
from tests.simulator.shrink import shrink

pytestmark = pytest.mark.timeout(600)

PLANTED_SEEDS = 150
"""A planted defect must be found within this many seeds."""


def test_two_hundred_thousand_steps_find_nothing() -> None:
    assert simulate(itertools.count(), STEPS) == 0


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    command = """
import hashlib
from tests.simulator.__main__ import problem_of
from tests.simulator.generate import scenario
story = []
problem_of(scenario(264), story)
print(len(story), hashlib.sha256(chr(10).join(story).encode()).hexdigest())
"""
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found.append(subprocess.check_output([sys.executable, "-c", command], env=environment, text=True))
    assert int(found[0].split()[0]) > 1000
    assert found[0] == found[1]


def first_problem(scenarios: Iterable[Scenario]) -> tuple[Scenario | None, str]:
    for tried in scenarios:
        problem, _ = problem_of(tried)
        if problem:
            return tried, problem
    return None, ""


def any_scenarios() -> list[Scenario]:
    return [scenario(seed) for seed in range(PLANTED_SEEDS)]


def refusing_providers() -> list[Scenario]:
    """A gateway answers 400 for a while."""
    faults = [Fault(0.5, "provider refusing", "token_broker", 30.0)]
    return [Scenario(seed, 40, 100, None, True, 0, [], faults) for seed in range(5)]


def late_requests() -> list[Scenario]:
    """The embedders are stopped while they wait for a connection, go on, and are killed: so no charge is settled."""
    slow = Fault(0.5, "provider slow", "token_broker", 10.0)
    stops = [Fault(3.2, "stop", name, 20.0) for name in EMBEDDERS]
    kills = [Fault(23.25, "kill", name, 1.0) for name in EMBEDDERS]
    return [Scenario(seed, 80, 100, None, True, 60, [], [slow, *stops, *kills]) for seed in range(10)]


def forget_what_is_settled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecentlySettled, "at", lambda *_: None)


def expire_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseExpiry, "_is_expired", lambda *_: False)


def expire_what_is_stored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseExpiry, "_is_expired", lambda self, entry, now: now.mono - entry.heard_at_s > self._lease_s)


def give_up_at_the_first_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Refusals, "on_refused", lambda *_: (GIVE_UP, "planted"))


def admit_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quotas, "admits", lambda _, __, estimates, *___: len(estimates))


def send_at_any_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Charging, "_send_by", lambda *_: 0.0)


def blame_every_refused_text(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Evidence, "served_since", lambda *_: True)
    patch.setattr(Evidence, "refused", lambda *_: 99)


def believe_every_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VectorLengths, "objection", lambda *_: "")


def blame_the_api_for_every_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attribution, "refused", lambda _, __, scope, *___: Finding(Blame.SCOPE, scope, 0))


def send_what_is_not_on_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PublisherProcess, "free_effects", (SendPatch, AfterCommit))


def acknowledge_what_is_not_on_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PublisherProcess, "free_effects", (SendPatch, Send))


def never_try_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "delay", lambda *_, **__: 1e6)


@pytest.mark.parametrize(
    ("plant", "scenarios", "finding"),
    [
        (forget_what_is_settled, any_scenarios, ("accepted twice", "paid", "two different results")),
        (expire_nothing, any_scenarios, ("not finished",)),
        (expire_what_is_stored, any_scenarios, ("paid", "two different results")),
        (give_up_at_the_first_refusal, any_scenarios, ("given up without a refusal of its own",)),
        (admit_everything, any_scenarios, ("reached the provider in a minute", "more than the limit in a minute")),
        (send_at_any_time, late_requests, ("reached the provider in a minute",)),
        (blame_every_refused_text, refusing_providers, ("has failed without evidence",)),
        (believe_every_length, any_scenarios, ("has a vector of a wrong length",)),
        (blame_the_api_for_every_refusal, any_scenarios, ("not finished", "wait for bad ones")),
        (never_try_again, any_scenarios, ("not finished",)),
    ],
)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    scenarios: Callable[[], list[Scenario]],
    finding: tuple[str, ...],
) -> None:
    tried = scenarios()
    plant(monkeypatch)
    _, problem = first_problem(tried)
    assert problem
    assert any(words in problem for words in finding)


def test_a_failing_scenario_is_shrunk_to_the_faults_that_it_needs_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    blame_every_refused_text(monkeypatch)
    (failing, *_) = refusing_providers()
    others = [
        Fault(5.0, "kill", "publisher", 1.0),
        Fault(8.0, "stop", "fetcher", 3.0),
        Fault(9.0, "down", "token_broker", 5.0),
    ]
    failing = replace(failing, natures=["invalid", "gone"], faults=[*failing.faults, *others])
    shortest = shrink(failing, lambda shorter: bool(problem_of(shorter)[0]))
    assert [fault.kind for fault in shortest.faults] == ["provider refusing"]
    assert (shortest.natures, shortest.tasks < failing.tasks) == ([], True)
    story: list[str] = []
    assert "failed without evidence" in problem_of(shortest, story)[0]
    assert any("fault" in line and "provider refusing" in line for line in story)
    assert any("canary" in line or "BadInput" in line for line in story)
