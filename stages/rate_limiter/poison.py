"""Which tasks kill their embedder, and when the embedders themselves are at fault.

A task whose embedder died while it had the task is quarantined until a batch that contains it is finished. From attempt
`ALONE_FROM_ATTEMPT` on it is processed alone. After `max_dispatches` dead embedders it is a poison task and is reported
failed, but only on evidence that the embedders died of it, and not of too little memory, a bad library or a kill from
outside. Evidence is one of two things:

- One of the embedders that died with it had finished another batch since the first death, so it worked.
- It is the only task in quarantine, nothing was finished anywhere since, and no other embedders died in a row before.

Without evidence the task is tried again, alone, on an embedder that works if there is one.

Embedders that die one after another and finish nothing in between are at fault themselves. After more than
`max_dispatches` such deaths their circuit breaker opens: no batch leaves for 2 s, then 4 s, up to a minute. After each
pause a single task is the probe, one that is not in quarantine if there is one. Any finished batch closes the breaker.
A few poison tasks can explain a short row of deaths. In a row twice as long, earlier evidence no longer counts.

An embedder may die after the publisher has its results and before it could report `Finished`. The publisher recognises
such a task for a while. A task that waits in quarantine for longer goes back to the fetcher: if it is still pending in
the API, it is processed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from common.failures.breaker import Breaker, State
from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import QUARANTINE_TRUSTED_S

ALONE_FROM_ATTEMPT = 3
"""From this attempt on a task is processed alone."""
REASON = "each batch kills its embedder: see the embedder's log"


class Case(msgspec.Struct):
    """What is known of a task in quarantine."""

    finished_before: int
    """Number of batches that all embedders had finished when an embedder first died with the task."""
    died_at: float
    """When an embedder died with it last (monotonic seconds)."""
    has_evidence: bool = False
    """Whether an embedder died with it that had finished a batch since the first death."""


class AfterDeath(NamedTuple):
    """What happens to the tasks that an embedder had when it died."""

    retried: list[m.Task]
    """Tried again, in quarantine, with one more attempt."""
    poison_ids: list[str]
    """Reported failed."""


class Quarantine:
    """The tasks in quarantine; `breaker` is the circuit breaker of the embedders."""

    def __init__(self, max_dispatches: int) -> None:
        self.breaker = Breaker("embedder", max_dispatches + 1)
        self.cases: dict[str, Case] = {}
        """By task id."""
        self._max_dispatches = max_dispatches
        self._finished_count = 0
        """Batches, by all embedders."""
        self._last_finish: dict[str, int] = {}
        """Embedder → value of `_finished_count` when it last finished a batch."""
        self._failing: set[str] = set()
        """Embedders that died with a batch and have finished nothing since."""

    @property
    def is_probing(self) -> bool:
        """Whether the next batch is the probe that shows whether embedders survive."""
        return self.breaker.state is State.HALF_OPEN

    def problem(self) -> str:
        """Why no batch leaves, for `/ready`; empty if batches do."""
        if not self.breaker.reason:
            return ""
        return f"each of the last {self.breaker.failures} batches killed its embedder: see the embedder's log"

    def is_failing(self, embedder: str) -> bool:
        """Whether the embedder died with a batch and has finished nothing since."""
        return embedder in self._failing

    def on_finished(self, embedder: str, ids: Iterable[str]) -> None:
        """Release the tasks of a batch: its embedder has survived it."""
        self._finished_count += 1
        self._last_finish[embedder] = self._finished_count
        self._failing.discard(embedder)
        self.breaker.succeeded()
        self.forget(ids)

    def forget(self, ids: Iterable[str]) -> None:
        """Drop the cases of tasks that are not here any more."""
        for task_id in ids:
            self.cases.pop(task_id, None)

    def outdated(self, now: Instant) -> set[str]:
        """Tasks that have waited so long that the publisher may not recognise an earlier result any more."""
        return {i for i, case in self.cases.items() if now.mono - case.died_at > QUARANTINE_TRUSTED_S}

    def on_undecided(self, now: Instant) -> None:
        """A batch was lost before an embedder had it. If it was the probe, another probe follows."""
        if self.is_probing:
            self.breaker.failed(now.mono, REASON)

    def on_death(self, embedder: str, tasks: list[m.Task], now: Instant) -> AfterDeath:
        """An embedder died while it had these tasks."""
        self._failing.add(embedder)
        self.breaker.failed(now.mono, REASON)
        deaths_in_a_row = self.breaker.failures
        for task in tasks:
            case = self.cases.setdefault(task.id, Case(self._finished_count, now.mono))
            case.died_at = now.mono
            case.has_evidence = case.has_evidence or self._last_finish.get(embedder, 0) > case.finished_before
        if deaths_in_a_row > 2 * self._max_dispatches:
            for case in self.cases.values():
                case.finished_before, case.has_evidence = self._finished_count, False
            return AfterDeath([_at(task, min(task.attempt + 1, ALONE_FROM_ATTEMPT)) for task in tasks], [])
        outcome = AfterDeath([], [])
        for task in tasks:
            if task.attempt < self._max_dispatches:
                outcome.retried.append(_at(task, task.attempt + 1))
            elif self._is_poison(self.cases[task.id], deaths_in_a_row):
                outcome.poison_ids.append(task.id)
            else:
                outcome.retried.append(_at(task, max(self._max_dispatches, ALONE_FROM_ATTEMPT)))
        self.forget(outcome.poison_ids)
        return outcome

    def _is_poison(self, case: Case, deaths_in_a_row: int) -> bool:
        if case.has_evidence:
            self.breaker.succeeded()  # the embedders are not at fault
            return True
        only_one = self._finished_count == case.finished_before and len(self.cases) == 1
        return only_one and deaths_in_a_row <= self._max_dispatches


def _at(task: m.Task, attempt: int) -> m.Task:
    return msgspec.structs.replace(task, attempt=attempt)
