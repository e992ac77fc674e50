"""Keeps every log line short. An event may name the tasks of a whole batch, and long lines are cut on their way.

A list that is too long shows its first values, and how many more there are (`task_id_more`). With LOG_LEVEL=DEBUG the
others follow in further lines of the same event, so that each id can be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

LONGEST_LINE_BYTES = 4096
"""The limit of a line, without its end."""
LONGEST_TEXT_BYTES = 1024
"""The limit of one text in a line that is too long; it is halved until the line fits."""

Event = dict[str, Any]


def serialize(event: Event) -> bytes:
    """One event as JSON; values that JSON does not know are shown as text."""
    return orjson.dumps(event, default=str)


def bounded(event: Event, leading: tuple[str, ...], *, with_rest: bool) -> Iterator[Event]:
    """The event, so that it fits one line; and, if `with_rest`, events for the rest of its lists.

    The `leading` fields are repeated in each of them.
    """
    if len(serialize(event)) <= LONGEST_LINE_BYTES:
        yield event
        return
    most_bytes = LONGEST_TEXT_BYTES
    cut = _cut(event, most_bytes)
    while len(serialize(cut)) > LONGEST_LINE_BYTES and most_bytes > 1:
        most_bytes //= 2
        cut = _cut(event, most_bytes)
    yield cut
    if with_rest:
        head = {name: cut[name] for name in leading if name in cut}
        for name, value in event.items():
            if isinstance(value, list) and len(value) > len(cut[name]):
                yield from bounded({**head, name: value[len(cut[name]) :]}, leading, with_rest=len(cut[name]) > 0)


def _cut(event: Event, most_bytes: int) -> Event:
    """The event with no text longer than this, and each list as long as two such texts."""
    cut: Event = {}
    for name, value in event.items():
        if isinstance(value, list):
            cut[name] = _first(value, 2 * most_bytes)
            if len(cut[name]) < len(value):
                cut[f"{name}_more"] = len(value) - len(cut[name])
        elif isinstance(value, bool | int | float | None):
            cut[name] = value
        else:
            cut[name] = _text(value if isinstance(value, str) else serialize({"": value}).decode()[4:-1], most_bytes)
    return cut


def _first(values: list[Any], most_bytes: int) -> list[Any]:
    """As many of the first values as fit."""
    left = most_bytes
    for number, value in enumerate(values):
        left -= len(serialize({"": value})) - 4
        if left < 0:
            return values[:number]
    return values


def _text(text: str, most_bytes: int) -> str:
    """The beginning of a text; JSON may write up to six bytes for one character."""
    if len(serialize({"": text})) <= most_bytes:
        return text
    return text[: max(0, most_bytes // 6)] + "…"
