"""What leaves the fetcher for other stages: dispatched tasks, and failed results of tasks that cannot be processed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from common.process.actions import Instant, Log, Send, task_fields
from common.wire import messages as m
from stages.fetcher.actions import PutLease
from stages.fetcher.lease_table import Event, LeaseTable

TASKS_A_MESSAGE = 256
"""Tasks in one message: enough to make the message's own cost small, few enough to be handled between heartbeats."""


def dispatch(tasks: list[m.Task]) -> Iterator[Any]:
    """Send leased tasks to the rate limiter."""
    for start in range(0, len(tasks), TASKS_A_MESSAGE):
        part = tasks[start : start + TASKS_A_MESSAGE]
        yield Send("rate_limiter", m.Tasks(part))
        yield Log("tasks_leased", task_fields([task.id for task in part]))


def fail_invalid(task: m.Task, failure: m.Failure) -> Iterator[Any]:
    """Report a task failed whose content cannot be processed."""
    yield _failed(task.id, task.type, task.leased_at, failure)
    yield Log("task_invalid", {"task_id": task.id, "reason": failure.message}, "warning")


def give_up(table: LeaseTable, task_id: str, max_dispatches: int, now: Instant) -> Iterator[Any]:
    """Report a task failed because it kills its embedders."""
    if not table.move(task_id, Event.GIVEN_UP, now):
        return  # it is stored or over, or it was given up already
    entry = table.entry(task_id)
    # stored beyond the last attempt, so that the decision stands even if this result is lost on its way
    lease = msgspec.structs.replace(entry.lease, attempt=max(entry.lease.attempt, max_dispatches + 1))
    entry.lease = lease
    yield PutLease(task_id, lease)
    message = f"given up after {max_dispatches} dispatches that each lost their embedder"
    yield _failed(task_id, lease.type, lease.leased_at, m.Failure("poison_task", message))
    yield Log("task_poison", {"task_id": task_id, "dispatches": max_dispatches}, "error")


def _failed(task_id: str, task_type: str, leased_at: float, failure: m.Failure) -> Send:
    return Send("publisher", m.Results("", "", [m.Result(task_id, task_type, leased_at, failure=failure)]))
