"""The tasks that wait, in groups of those that may share a batch, and the order in which the groups are served.

The oldest group is served first. A group that was served goes behind the others, so that each turn begins with a group
that got nothing in the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from common.wire import messages as m
from stages.rate_limiter.poison import ALONE_FROM_ATTEMPT


class Group(NamedTuple):
    """What tasks must have in common to share a batch."""

    type: str
    """The task type."""
    key: str
    """The batch key."""
    attempt: int
    """1, 2, or `ALONE_FROM_ATTEMPT` for all later attempts."""
    at_most: int = 0
    """The largest batch that may be formed, because a larger one was refused; 0: any size."""


class Waiting(dict[Group, deque[m.Task]]):
    """The queues by group: first in, first out, except for tasks that are queued again."""

    def ids(self) -> list[str]:
        """The ids of all tasks that wait."""
        return [task.id for queue in self.values() for task in queue]

    def add(self, tasks: Iterable[m.Task]) -> None:
        """Queue tasks behind the others of their groups."""
        for task in tasks:
            self._queue_of(task, 0).append(task)

    def add_first(self, tasks: list[m.Task], at_most: int = 0) -> None:
        """Queue tasks before the others of their groups, in this order."""
        for task in reversed(tasks):
            self._queue_of(task, at_most).appendleft(task)

    def remove(self, ids: set[str]) -> list[str]:
        """Remove tasks; returns the ids of those that were waiting."""
        found = [task_id for task_id in self.ids() if task_id in ids]
        if found:
            for group, queue in self.items():
                self[group] = deque(task for task in queue if task.id not in ids)
        return found

    def turns(self, *, first_attempts_first: bool) -> list[Group]:
        """The groups in the order in which they are served now."""
        groups = list(self)
        return sorted(groups, key=lambda group: group.attempt) if first_attempts_first else groups

    def end_turn(self, group: Group, *, served: bool) -> None:
        """Put a group that was served behind the others, and drop one that is empty."""
        queue = self[group]
        if served or not queue:
            del self[group]
        if served and queue:
            self[group] = queue

    def _queue_of(self, task: m.Task, at_most: int) -> deque[m.Task]:
        return self.setdefault(Group(task.type, task.key, min(task.attempt, ALONE_FROM_ATTEMPT), at_most), deque())
