"""The judge of a chaos run finds every broken promise in a doctored record, and none in a true one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.chaos.feeding import DIMENSIONS, MODEL, FedTask
from sandbox.chaos.judge import AFTER_S, BEFORE_S, ChaosEvidence, judge
from sandbox.chaos.kinds import IN_SLOTS, SETTLE_BATCH, Inflicted
from sandbox.chaos.run import crashes
from sandbox.vectors import embed, text_key

LIMIT = 20


def patch(at: float, state: str | None = "succeeded", digest: int = 1) -> dict[str, Any]:
    accepted = {"accepted": True, "status": 200, "state": state} if state else {"accepted": False, "status": 500}
    return {"time": at, "digest": digest, **accepted}


def charge(at: float, *texts: str) -> dict[str, Any]:
    keys = [text_key(MODEL, text) for text in texts]
    return {"time": at, "received_at": at, "inputs": len(keys), "tokens": 2 * len(keys), "keys": keys}


def vector(text: str) -> list[float]:
    numbers: list[float] = embed([text_key(MODEL, text)], DIMENSIONS)[0].tolist()
    return numbers


class Doctored(ChaosEvidence):
    """A run of five tasks without a violation; the tests change it."""

    def __init__(self) -> None:
        tasks = [FedTask(name, f"text {name}") for name in ("a", "b")]
        tasks += [FedTask("e", "", "empty text"), FedTask("p", "POISON", "poisoned text")]
        tasks += [FedTask("r", "text r", "refused result")]
        patches = {
            "a": [patch(10.0)],
            "b": [patch(10.0, None), patch(11.0)],
            "e": [{**patch(9.0, "failed"), "error_code": "invalid_content"}],
            "p": [{**patch(9.0, "failed"), "error_code": "refused"}],
            "r": [patch(12.0, None)],
        }
        super().__init__(
            tasks,
            record=[{"id": name, "state": None, "patches": found} for name, found in patches.items()],
            results={"a": vector("text a"), "b": vector("text b"), "e": {"error": {}}, "p": {"error": {}}},
            charges=[charge(8.0, "text a", "text b", "a canary"), charge(8.5, "text r", "a canary")],
            inflicted=[],
            limits={"inputs": LIMIT, "tokens": 2 * LIMIT},
        )

    def patches(self, task_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]]
        (found,) = [entry["patches"] for entry in self.record if entry["id"] == task_id]
        return found


def broken(evidence: ChaosEvidence) -> dict[str, int]:
    """The promises that were broken, and how often."""
    return {verdict.promise: len(verdict.violations) for verdict in judge(evidence) if verdict.violations}


def test_a_run_without_violations_keeps_all_promises() -> None:
    assert len(judge(Doctored())) == 9
    assert broken(Doctored()) == {}


DOCTORED: dict[str, tuple[Callable[[Doctored], object], str]] = {
    "a result that was refused and never accepted": (lambda run: run.patches("b").pop(), "nothing is lost"),
    "a task that is not in the record": (lambda run: run.record.pop(0), "nothing is lost"),
    "a bad task without an end": (lambda run: run.patches("e").clear(), "nothing is lost"),
    "a PATCH for a task that does not exist": (
        lambda run: run.record.append({"id": "x", "state": None, "patches": [patch(1.0)]}), "nothing is lost",
    ),
    "other bytes after a refusal": (lambda run: run.patches("b")[1].update(digest=2), "no body changes"),
    "the vector of another text": (
        lambda run: run.results.update(a=vector("text b")), "each vector is its text's",
    ),
    "a vector with one changed number": (
        lambda run: run.results["a"].__setitem__(3, run.results["a"][3] + 0.001), "each vector is its text's",
    ),
    "a vector that is too short": (lambda run: run.results["a"].pop(), "each vector is its text's"),
    "a good task that fails": (
        lambda run: run.patches("a")[0].update(state="failed"), "a task fails only by its own fault",
    ),
    "a poisoned task that succeeds": (
        lambda run: run.patches("p")[0].update(state="succeeded"), "a task fails only by its own fault",
    ),
    "a refused result that is accepted": (
        lambda run: run.patches("r").append(patch(13.0)), "a task fails only by its own fault",
    ),
    "a result that is accepted twice without a fault": (
        lambda run: run.patches("a").append(patch(12.0)), "accepted twice only as a fault allows",
    ),
    "a text that is paid for twice without a fault": (
        lambda run: run.charges.append(charge(9.0, "text a")), "paid twice only as a fault allows",
    ),
    "more inputs in a minute than the quota has": (
        lambda run: run.charges.append(charge(60.0, *(f"other {n}" for n in range(LIMIT)))),
        "no minute exceeds the quota",
    ),
    "a process that ended by itself": (
        lambda run: run.crashes.append("fetcher ended by itself"), "no process ends by itself",
    ),
    "a process that is still there": (
        lambda run: run.left_running.append("17 stages.fetcher"), "no process is left at the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCTORED)
def test_the_judge_finds(name: str) -> None:
    run = Doctored()
    doctor, promise = DOCTORED[name]
    doctor(run)
    assert promise in broken(run)
    assert broken(run).keys() <= {promise, "no minute exceeds the quota"}


def accepted_again(at: float, *faults: Inflicted) -> bool:
    """Whether it is a violation that a result of 10 s is accepted again at this time."""
    run = Doctored()
    run.patches("a").append(patch(at))
    run.inflicted += faults
    return bool(broken(run))


def test_a_fault_explains_only_what_happened_twice_around_it() -> None:
    def killed(at: float) -> Inflicted:
        return Inflicted("kill", "publisher", at, at)

    assert not accepted_again(14.0, killed(12.0))
    assert not accepted_again(14.0, killed(14.0 + BEFORE_S))
    assert not accepted_again(14.0, killed(10.0 - AFTER_S))
    assert accepted_again(14.0, killed(14.1 + BEFORE_S))
    assert accepted_again(14.0, killed(9.9 - AFTER_S))
    assert accepted_again(14.0, Inflicted("kill", "embedder_00", 12.0, 12.0))
    assert accepted_again(14.0, Inflicted("kill", "publisher", 12.0, 12.0, skipped=True))


@pytest.mark.parametrize(
    ("target", "capacity", "promise"),
    [
        ("publisher", SETTLE_BATCH, "accepted twice only as a fault allows"),
        ("embedder_01", IN_SLOTS, "paid twice only as a fault allows"),
    ],
)
def test_a_fault_explains_no_more_than_it_may_cost(target: str, capacity: int, promise: str) -> None:
    run = Doctored()
    names = [f"t{number}" for number in range(capacity + 3)]
    run.tasks += [FedTask(name, name) for name in names]
    run.limits = {}
    is_publisher = target == "publisher"
    run.record += [{"id": n, "patches": [patch(20.0), *([patch(22.0)] if is_publisher else [])]} for n in names]
    run.charges += [charge(18.0, *names), *([] if is_publisher else [charge(22.0, *names)])]
    run.inflicted.append(Inflicted("kill", target, 21.0, 21.0))
    assert broken(run) == {promise: 3}


def test_a_quota_is_judged_in_every_interval_of_a_minute() -> None:
    run = Doctored()
    run.charges = [charge(0.0, *map(str, range(12))), charge(59.9, *map(str, range(20, 28)))]
    assert "no minute exceeds the quota" not in broken(run)
    run.charges.append(charge(59.99, "one more"))
    assert broken(run)["no minute exceeds the quota"] == 2, "inputs and tokens"
    run.charges[-1] = charge(60.0, *map(str, range(30, 42)))
    assert "no minute exceeds the quota" not in broken(run), "the first ones are a whole minute ago"


def test_only_ends_that_no_fault_explains_are_crashes() -> None:
    log = """
    2026-11-25 11:00:00,000 WARN exited: fetcher (terminated by SIGKILL; not expected)
    2026-11-25 11:00:01,000 WARN exited: embedder_00 (exit status 1; not expected)
    2026-11-25 11:00:02,000 WARN exited: publisher (terminated by SIGSEGV (core dumped); not expected)
    Traceback (most recent call last):
    """
    found = crashes(log)
    assert found == [
        "embedder_00 ended by itself (exit status 1)",
        "publisher ended by itself (terminated by SIGSEGV (core dumped))",
        "a traceback is in the log",
    ]
    assert crashes("all is well") == []
