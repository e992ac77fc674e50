"""Selects messages, log events and counts from the actions that a handler returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from common.process.actions import Count, Instant, Log, Send

T = TypeVar("T")

START = Instant(1_000.0, 1_750_000_000.0)


def after(seconds: float, start: Instant = START) -> Instant:
    """The instant this many seconds later."""
    return Instant(start.mono + seconds, start.wall + seconds)


def of_type(kind: type[T], actions: Iterable[Any]) -> list[T]:
    """The actions of one type, and the sent messages of that type."""
    found = [action.message if isinstance(action, Send) else action for action in actions]
    return [one for one in found if isinstance(one, kind)]


def sent_to(name: str, actions: Iterable[Any]) -> list[Any]:
    """The messages sent to this address."""
    return [action.message for action in actions if isinstance(action, Send) and action.to == name]


def events(actions: Iterable[Any]) -> list[str]:
    """The names of the log events."""
    return [action.event for action in actions if isinstance(action, Log)]


def log_fields(event: str, actions: Iterable[Any]) -> dict[str, Any]:
    """The fields and the level of the only log event with this name."""
    (found,) = [action for action in actions if isinstance(action, Log) and action.event == event]
    return {**found.fields, "level": found.level}


def counted(metric: str, actions: Iterable[Any]) -> list[tuple[tuple[str, ...], float]]:
    """The labels and amounts that were added to a metric."""
    return [(a.labels, a.amount) for a in actions if isinstance(a, Count) and a.metric == metric]


def kinds(actions: Iterable[Any]) -> list[str]:
    """The names of the actions and messages in their order, without log events and metrics."""
    return [type(a.message if isinstance(a, Send) else a).__name__ for a in actions if not isinstance(a, Log | Count)]
