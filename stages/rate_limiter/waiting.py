"""What waits, in groups of those that may share a batch, and in which order the groups are served.

The oldest group is first. One that was served goes behind the others, so that each turn begins with a group that got
nothing in the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from common.wire import messages as m
from stages.rate_limiter.poison import ALONE


class Group(NamedTuple):
    """What may share a batch."""

    type: str
    key: str
    attempt: int
    """1, 2, or `ALONE` for all later ones."""
    at_most: int = 0
    """The largest batch that may be formed of them, because a larger one was refused; 0: any."""


class Waiting(dict[Group, deque[m.Task]]):
    """The queues; first in, first out, but for what was lost on its way or comes again."""

    def ids(self) -> list[str]:
        """Whatever waits."""
        return [task.id for queue in self.values() for task in queue]

    def add(self, tasks: Iterable[m.Task]) -> None:
        """Queue behind the others of their groups."""
        for task in tasks:
            self._queue_of(task, 0).append(task)

    def add_first(self, tasks: list[m.Task], at_most: int = 0) -> None:
        """Queue before the others of their groups, in this order."""
        for task in reversed(tasks):
            self._queue_of(task, at_most).appendleft(task)

    def remove(self, ids: set[str]) -> list[str]:
        """Take these out; returns those that waited."""
        found = [task_id for task_id in self.ids() if task_id in ids]
        if found:
            for group, queue in self.items():
                self[group] = deque(task for task in queue if task.id not in ids)
        return found

    def turns(self, *, innocent_first: bool) -> list[Group]:
        """The groups in the order in which they are served now."""
        groups = list(self)
        return sorted(groups, key=lambda group: group.attempt) if innocent_first else groups

    def had_its_turn(self, group: Group, *, served: bool) -> None:
        """Put a group behind the others if it got anything, and away if it is empty."""
        queue = self[group]
        if served or not queue:
            del self[group]
        if served and queue:
            self[group] = queue

    def _queue_of(self, task: m.Task, at_most: int) -> deque[m.Task]:
        return self.setdefault(Group(task.type, task.key, min(task.attempt, ALONE), at_most), deque())
