"""What leaves the fetcher for other stages: dispatched tasks, and failed results of tasks that cannot be processed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.process.actions import Log, Send, task_fields
from common.wire import messages as m
from stages.fetcher.actions import Lease

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


def fail_poison(task_id: str, lease: Lease, max_dispatches: int) -> Iterator[Any]:
    """Report a task failed because it kills its embedders."""
    message = f"given up after {max_dispatches} dispatches that each lost their embedder"
    yield _failed(task_id, lease.type, lease.leased_at, m.Failure("poison_task", message))
    yield Log("task_poison", {"task_id": task_id, "dispatches": max_dispatches}, "error")


def _failed(task_id: str, task_type: str, leased_at: float, failure: m.Failure) -> Send:
    return Send("publisher", m.Results("", "", [m.Result(task_id, task_type, leased_at, failure=failure)]))
