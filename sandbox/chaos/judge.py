"""The verdicts on one run, from what the outside recorded. Without I/O, so that doctored records can test the judge."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sandbox.chaos.feeding import DIMENSIONS, MODEL, FedTask
from sandbox.chaos.kinds import Cost, Inflicted, allowed
from sandbox.vectors import embed, text_key

MINUTE_S = 60.0
BEFORE_S = 1.0
"""What happened this long before a fault may already be its effect: clocks of two processes, and requests under way."""
AFTER_S = 5.0
"""Effects of a fault may last this much longer: requests that were under way, messages in sockets."""
PRECISION = 1e-5
"""Two components of a vector that differ by less are the same number."""
NAMED = 5
"""How many violations of one kind are named."""


@dataclass
class ChaosEvidence:
    """What is known after a run."""

    tasks: list[FedTask]
    record: list[dict[str, Any]]
    """Every id with its PATCHes, as the API recorded them."""
    results: dict[str, Any]
    """The results that the API accepted last, by task id."""
    charges: list[dict[str, Any]]
    """The requests that the provider charged, with the keys of their texts."""
    inflicted: list[Inflicted]
    limits: dict[str, int]
    """The quotas for each minute: inputs, tokens."""
    crashes: list[str] = field(default_factory=list)
    """Processes that ended by themselves, as supervisord and the log tell it."""
    left_running: list[str] = field(default_factory=list)
    """Processes that were still there after the end."""


class Verdict(NamedTuple):
    """One promise, and how it was kept."""

    promise: str
    seen: str
    """What was counted."""
    violations: list[str]


class Twice(NamedTuple):
    """One thing that happened a second time."""

    name: str
    first: float
    again: float


def judge(evidence: ChaosEvidence) -> list[Verdict]:
    """One verdict for each promise of the design."""
    checks: list[Callable[[ChaosEvidence], Verdict]] = [
        _lost, _changed, _wrong_vector, _failed, _accepted_twice, _paid_twice, _quota, _crashed, _left,
    ]  # fmt: skip
    return [check(evidence) for check in checks]


def _final_patches(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The PATCHes with a result; a refused one has no state."""
    return [patch for patch in entry["patches"] if patch.get("state") != "in_progress"]


def _accepted(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [patch for patch in _final_patches(entry) if patch["accepted"]]


def _by_id(evidence: ChaosEvidence) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in evidence.record}


def _lost(evidence: ChaosEvidence) -> Verdict:
    """Every task ends, except for those whose result the API refuses."""
    entries = _by_id(evidence)
    lost = [
        f"{task.id} has no accepted result"
        for task in evidence.tasks
        if task.own_fault != "refused result" and not _accepted(entries.get(task.id, {"patches": []}))
    ]
    known = {task.id for task in evidence.tasks}
    unknown = [f"{entry['id']} was never queued" for entry in evidence.record if entry["id"] not in known]
    return Verdict("nothing is lost", f"{len(lost)} of {len(evidence.tasks)} tasks", lost + unknown)


def _changed(evidence: ChaosEvidence) -> Verdict:
    """All PATCHes of one task have the same body, byte for byte."""
    changed = [
        f"{entry['id']} was sent with {len(digests)} bodies"
        for entry in evidence.record
        if len(digests := {patch["digest"] for patch in _final_patches(entry)}) > 1
    ]
    sent = sum(len(_final_patches(entry)) for entry in evidence.record)
    return Verdict("no body changes", f"{len(changed)} tasks, {sent} PATCHes", changed)


def _wrong_vector(evidence: ChaosEvidence) -> Verdict:
    """Each result is the vector of the task's own text."""
    texts = {task.id: task.text for task in evidence.tasks}
    mine = [(task_id, result) for task_id, result in evidence.results.items() if isinstance(result, list)]
    wrong = [
        f"{task_id} has a vector of {len(result)} numbers" for task_id, result in mine if len(result) != DIMENSIONS
    ]
    right = [(task_id, result) for task_id, result in mine if len(result) == DIMENSIONS and task_id in texts]
    if right:
        keys = [text_key(MODEL, texts[task_id]) for task_id, _ in right]
        found = np.array([result for _, result in right], np.float32)
        same = np.abs(found - embed(keys, DIMENSIONS)).max(axis=1) < PRECISION
        wrong += [f"{right[row][0]} has the vector of another text" for row in np.flatnonzero(~same)]
    return Verdict("each vector is its text's", f"{len(wrong)} of {len(mine)} vectors", wrong)


def _failed(evidence: ChaosEvidence) -> Verdict:
    """Tasks fail if the fault is their own, and only then."""
    entries = _by_id(evidence)
    expected = {"": "succeeded", "empty text": "failed", "poisoned text": "failed"}
    wrong = []
    for task in evidence.tasks:
        for patch in _accepted(entries.get(task.id, {"patches": []})):
            if patch["state"] != expected.get(task.own_fault):
                why = f", {patch['error_code']}" if patch.get("error_code") else ""
                wrong.append(f"{task.id} ({task.own_fault or 'a good task'}) was reported {patch['state']}{why}")
    own = sum(bool(task.own_fault) for task in evidence.tasks)
    return Verdict("a task fails only by its own fault", f"{len(wrong)} others than the {own} bad tasks", wrong)


def _accepted_twice(evidence: ChaosEvidence) -> Verdict:
    again = [
        Twice(entry["id"], first["time"], second["time"])
        for entry in evidence.record
        for first, second in itertools.pairwise(_accepted(entry))
    ]
    violations = [
        f"{twice.name} was accepted at {twice.first:.3f} and again at {twice.again:.3f}"
        for twice in unexplained(again, evidence.inflicted, lambda cost: cost.accepted_again)
    ]
    return Verdict("accepted twice only as a fault allows", f"{len(again)} times", violations)


def _paid_twice(evidence: ChaosEvidence) -> Verdict:
    paid: dict[int, list[float]] = {}
    for charge in evidence.charges:
        for key in charge["keys"]:
            paid.setdefault(key, []).append(charge["time"])
    ids = {text_key(MODEL, task.text): task.id for task in evidence.tasks}
    again = [
        Twice(ids.get(key, "a text of no task"), first, second)
        for key, times in paid.items()
        for first, second in itertools.pairwise(times)
        if key in ids  # a canary has a text of its own
    ]
    violations = [
        f"the text of {twice.name} was paid for at {twice.first:.3f} and again at {twice.again:.3f}"
        for twice in unexplained(again, evidence.inflicted, lambda cost: cost.paid_again)
    ]
    return Verdict("paid twice only as a fault allows", f"{len(again)} times", violations)


def unexplained(again: Iterable[Twice], faults: Iterable[Inflicted], cost: Callable[[Cost], int]) -> list[Twice]:
    """What happened twice without a fault in between that may still cost one more."""
    left = [[fault, cost(allowed(fault))] for fault in sorted(faults, key=lambda fault: fault.ended)]
    capacities: list[list[Any]] = [entry for entry in left if entry[1]]
    found = []
    for twice in sorted(again, key=lambda twice: twice.again):
        for entry in capacities:
            fault, capacity = entry
            if capacity and fault.began - BEFORE_S <= twice.again and twice.first <= fault.ended + AFTER_S:
                entry[1] -= 1
                break
        else:
            found.append(twice)
    return found


def _quota(evidence: ChaosEvidence) -> Verdict:
    """No interval of a minute, wherever it begins, has more than the limit at the provider."""
    worst, violations = [], []
    for unit, limit in evidence.limits.items():
        most, at = _most_in_a_minute(evidence.charges, unit)
        worst.append(f"{most} of {limit} {unit}")
        if most > limit:
            violations.append(f"{most} {unit} reached the provider in the minute before {at:.3f}, {limit} are allowed")
    return Verdict("no minute exceeds the quota", ", ".join(worst), violations)


def _most_in_a_minute(charges: list[dict[str, Any]], unit: str) -> tuple[int, float]:
    """The most in any interval of one minute, and when it ended."""
    most, most_at, total = 0, 0.0, 0
    ordered = sorted(charges, key=lambda charge: charge["received_at"])
    oldest: Iterator[dict[str, Any]] = iter(ordered)
    first = next(oldest, None)
    for charge in ordered:
        total += charge[unit]
        while first is not None and first["received_at"] <= charge["received_at"] - MINUTE_S:
            total -= first[unit]
            first = next(oldest, None)
        if total > most:
            most, most_at = total, charge["received_at"]
    return most, most_at


def _crashed(evidence: ChaosEvidence) -> Verdict:
    return Verdict("no process ends by itself", f"{len(evidence.crashes)} ends", list(evidence.crashes))


def _left(evidence: ChaosEvidence) -> Verdict:
    return Verdict("no process is left at the end", f"{len(evidence.left_running)} processes", evidence.left_running)
