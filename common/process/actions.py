"""What every state may ask of the loop. Each stage adds actions of its own, which its edges perform."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.wire.messages import Message, QuotaWindow

Actions = Iterable[Any]
"""What a handler returns; performed in this order, those that write before the commit and the others after it."""


class Instant(NamedTuple):
    """One moment, read from both clocks at once."""

    mono: float
    """Seconds of the monotonic clock: for durations and deadlines inside one process."""
    wall: float
    """Seconds since the epoch: for what is stored, or shown, or agreed with others; it may jump."""


class Send(NamedTuple):
    """Push a message to an instance, or to the inbox that a message named in `reply_to`."""

    to: str
    message: Message


class Log(NamedTuple):
    """Log an event."""

    event: str
    fields: dict[str, Any] = {}  # noqa: RUF012  never written to
    level: str = "info"


class Count(NamedTuple):
    """Add to a counter of `common.process.metrics`, by its name there."""

    metric: str
    labels: tuple[str, ...] = ()
    amount: float = 1


class Observe(NamedTuple):
    """Add values to a histogram of `common.process.metrics`, by its name there."""

    metric: str
    labels: tuple[str, ...]
    values: list[float]


@dataclass
class Report:
    """What a heartbeat says of the stage; see `messages.Heartbeat`."""

    blockers: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    windows: list[QuotaWindow] = field(default_factory=list)


def task_fields(ids: Sequence[str]) -> dict[str, Any]:
    """Name the tasks that an event is about: `task_id` for one, `task_ids` for more."""
    return {"task_id": ids[0]} if len(ids) == 1 else {"task_ids": list(ids)}
