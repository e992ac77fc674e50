"""Who is at fault when an embedder dies: one of the tasks that it had, or the embedder itself.

A task whose embedder died with it is suspect until a batch with it is finished. From the third attempt on it is tried
alone. One that has outlived `max_dispatches` embedders is given up, but only on evidence that they died of it, and not
of too little memory, a bad library or somebody's kill: one of those that died with it had shown since the first death
that it works, by finishing something else; or it is the only suspect, nothing was finished anywhere, and no others died
in a row before. Without evidence it is tried again, alone, and rather on an embedder that works.

Embedders that die one after the other, and finish nothing in between, are at fault themselves. After more than
`max_dispatches` such deaths their breaker opens: nothing is handed out for 2 s, then 4, up to a minute, and after each
pause a single task, the probe; one that is no suspect, if there is any. Whatever is finished closes it. A few tasks can
explain a short row of deaths. In one twice as long, what was known before speaks against nobody any more.

An embedder may die when the publisher has its results, and before it could say so. For a while the publisher knows such
a task if it comes again; a suspect that waits for longer goes back, to be processed anew if it is still pending then.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from common.failures.breaker import Breaker, State
from common.process.actions import Instant
from common.wire import messages as m
from common.wire.timing import QUARANTINE_TRUSTED_S

ALONE = 3
"""From this attempt on a task is processed alone."""
REASON = "each batch kills its embedder: see the embedder's log"


class Suspicion(msgspec.Struct):
    """What is known of a suspect."""

    since: int
    """How many batches were finished when an embedder first died with it."""
    died_at: float
    """Monotonic seconds of the last time."""
    evident: bool = False
    """Whether an embedder died with it that had finished something since the first one did."""


class Suspects:
    """Judges; `breaker` is that of the embedders."""

    def __init__(self, max_dispatches: int) -> None:
        self.breaker = Breaker("embedder", max_dispatches + 1)
        self._max_dispatches = max_dispatches
        self._finished = 0
        """Batches, by all embedders."""
        self.known: dict[str, Suspicion] = {}
        """By task id."""
        self._works: dict[str, int] = {}
        """Embedder → how many batches all had finished when it last finished one."""
        self._failing: set[str] = set()
        """Embedders that died with what they had and have finished nothing since."""

    @property
    def probing(self) -> bool:
        """Whether what is handed out now is to show if embedders live."""
        return self.breaker.state is State.HALF_OPEN

    def problem(self) -> str:
        """Why nothing is handed out, in words; empty if it is."""
        if not self.breaker.reason:
            return ""
        return f"each of the last {self.breaker.failures} batches killed its embedder: see the embedder's log"

    def is_failing(self, embedder: str) -> bool:
        """Whether it died with what it had, and has finished nothing since."""
        return embedder in self._failing

    def finished(self, embedder: str, ids: Iterable[str]) -> None:
        """Acquit the tasks of a batch: its embedder has outlived it."""
        self._finished += 1
        self._works[embedder] = self._finished
        self._failing.discard(embedder)
        self.breaker.succeeded()
        self.forget(ids)

    def forget(self, ids: Iterable[str]) -> None:
        """Forget tasks that are not waited for here any more."""
        for task_id in ids:
            self.known.pop(task_id, None)

    def outdated(self, now: Instant) -> set[str]:
        """Those of whom nobody knows any more whether they were processed after all."""
        return {
            task_id for task_id, suspicion in self.known.items() if now.mono - suspicion.died_at > QUARANTINE_TRUSTED_S
        }

    def undecided(self, now: Instant) -> None:
        """A batch was lost before an embedder had it. If it was the probe, there will be another."""
        if self.probing:
            self.breaker.failed(now.mono, REASON)

    def died(self, embedder: str, tasks: list[m.Task], now: Instant) -> tuple[list[m.Task], list[str]]:
        """An embedder died with these. Return those to be tried again, as suspects, and the ids of those given up."""
        self._failing.add(embedder)
        self.breaker.failed(now.mono, REASON)
        in_a_row = self.breaker.failures
        for task in tasks:
            suspicion = self.known.setdefault(task.id, Suspicion(self._finished, now.mono))
            suspicion.died_at = now.mono
            suspicion.evident = suspicion.evident or self._works.get(embedder, 0) > suspicion.since
        if in_a_row > 2 * self._max_dispatches:
            for suspicion in self.known.values():
                suspicion.since, suspicion.evident = self._finished, False
            return [_again(task, min(task.attempt + 1, ALONE)) for task in tasks], []
        again: list[m.Task] = []
        given_up: list[str] = []
        for task in tasks:
            if task.attempt < self._max_dispatches:
                again.append(_again(task, task.attempt + 1))
            elif self._is_guilty(self.known[task.id], in_a_row):
                given_up.append(task.id)
            else:
                again.append(_again(task, max(self._max_dispatches, ALONE)))
        self.forget(given_up)
        return again, given_up

    def _is_guilty(self, suspicion: Suspicion, in_a_row: int) -> bool:
        if suspicion.evident:
            self.breaker.succeeded()  # the embedders are not at fault
            return True
        nothing_else = self._finished == suspicion.since and len(self.known) == 1
        return nothing_else and in_a_row <= self._max_dispatches


def _again(task: m.Task, attempt: int) -> m.Task:
    return msgspec.structs.replace(task, attempt=attempt)
