"""The actions that every state may return to the loop. Each stage adds its own in `actions.py`, for its edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.wire.messages import Message
from common.wire.parts import QuotaWindow

Actions = Iterable[Any]
"""What a handler returns. The loop performs writes before the commit and the others after it, each in this order."""


class Instant(NamedTuple):
    """One moment on both clocks."""

    mono: float
    """Seconds of the monotonic clock, for durations and deadlines inside one process."""
    wall: float
    """Seconds since the epoch, for times that are stored, shown or sent to others. This clock may jump."""


class Send(NamedTuple):
    """Send a message to an instance, or to the inbox that a message named in `reply_to`."""

    to: str
    """An instance name, or an endpoint."""
    message: Message


class AfterCommit(NamedTuple):
    """Give this event to the state when all writes so far are on disk."""

    event: Any


class Log(NamedTuple):
    """Log an event."""

    event: str
    """A searchable name, `noun_verb` in the past: `batch_requeued`."""
    fields: dict[str, Any] = {}  # noqa: RUF012  never changed
    """What the line says besides; for tasks see `task_fields`."""
    level: str = "info"
    """`debug`, `info`, `warning` or `error`."""


class Count(NamedTuple):
    """Add to a counter of `common.process.metrics`."""

    metric: str
    """The metric's full name."""
    labels: tuple[str, ...] = ()
    """The values of its labels, in their order."""
    amount: float = 1
    """How much to add."""


class Observe(NamedTuple):
    """Add values to a histogram of `common.process.metrics`."""

    metric: str
    """The metric's full name."""
    labels: tuple[str, ...]
    """The values of its labels, in their order."""
    values: list[float]
    """The observed values."""


@dataclass
class Report:
    """What a stage puts into its heartbeat; the fields are explained at `messages.Heartbeat`."""

    blockers: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    windows: list[QuotaWindow] = field(default_factory=list)


def task_fields(ids: Sequence[str]) -> dict[str, Any]:
    """The log fields that name the tasks of an event: `task_id` for one task, `task_ids` for several."""
    return {"task_id": ids[0]} if len(ids) == 1 else {"task_ids": list(ids)}
