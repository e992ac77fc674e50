"""What came of a decision, picked out of the actions that a handler returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from common.process.actions import Count, Instant, Log, Send

T = TypeVar("T")

START = Instant(1_000.0, 1_750_000_000.0)


def after(seconds: float, start: Instant = START) -> Instant:
    return Instant(start.mono + seconds, start.wall + seconds)


def of(kind: type[T], actions: Iterable[Any]) -> list[T]:
    """The actions of one kind, or the messages of one kind that are sent."""
    found = [action.message if isinstance(action, Send) else action for action in actions]
    return [one for one in found if isinstance(one, kind)]


def sent_to(name: str, actions: Iterable[Any]) -> list[Any]:
    return [action.message for action in actions if isinstance(action, Send) and action.to == name]


def events(actions: Iterable[Any]) -> list[str]:
    return [action.event for action in actions if isinstance(action, Log)]


def said(event: str, actions: Iterable[Any]) -> dict[str, Any]:
    """What was logged with the only such event."""
    (found,) = [action for action in actions if isinstance(action, Log) and action.event == event]
    return {**found.fields, "level": found.level}


def counted(metric: str, actions: Iterable[Any]) -> list[tuple[tuple[str, ...], float]]:
    return [(a.labels, a.amount) for a in actions if isinstance(a, Count) and a.metric == metric]


def kinds(actions: Iterable[Any]) -> list[str]:
    """The order of what is done, with messages by their name."""
    return [type(a.message if isinstance(a, Send) else a).__name__ for a in actions if not isinstance(a, Log)]
