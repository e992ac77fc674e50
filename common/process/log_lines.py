"""Keeps every log line short. An event may name the tasks of a whole batch, and long lines are cut on their way.

A list that is too long shows its first values, and how many more there are (`task_id_more`). With LOG_LEVEL=DEBUG the
others follow in further lines of the same event, so that each id can be found. A long text shows its beginning, a
traceback its end. Nothing in an event stops the process: what JSON does not know is shown as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

LONGEST_LINE_BYTES = 4096
"""The limit of a line, without its end."""
LONGEST_TEXT_BYTES = 1024
"""The limit of one text in a line that is too long; it is halved until the line fits."""

MOST_FIELDS = 40
"""Further fields are counted (`fields_more`), with names cut to `LONGEST_NAME`."""
LONGEST_NAME = 40

Event = dict[str, Any]


def serialize(event: Event) -> bytes:
    """One event as JSON; values that JSON does not know are shown as text."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, an integer above 64 bits, a circular value
        return orjson.dumps({ascii(name).strip("'"): _plain(value) for name, value in event.items()})


def _plain(value: object) -> object:
    """A value that JSON knows: lists of texts stay lists, so that ids can be counted."""
    if isinstance(value, list):
        return [one if isinstance(one, str) and _is_unicode(one) else ascii(one) for one in value]
    if value is None or isinstance(value, bool | float) or (isinstance(value, str) and _is_unicode(value)):
        return value
    return ascii(value).strip("'")


def _is_unicode(text: str) -> bool:
    """Whether a text can be encoded: one with a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bounded(event: Event, leading: tuple[str, ...], *, with_rest: bool) -> Iterator[Event]:
    """The event, so that it fits one line; and, if `with_rest`, events for the rest of its lists.

    The `leading` fields are repeated in each of them.
    """
    if len(serialize(event)) <= LONGEST_LINE_BYTES:
        yield event
        return
    if len(event) > MOST_FIELDS or any(len(serialize({name: 0})) > LONGEST_NAME + 4 for name in event):
        more = len(event) - MOST_FIELDS
        event = {_text(str(name), LONGEST_NAME): value for name, value in list(event.items())[:MOST_FIELDS]}
        if more > 0:
            event["fields_more"] = more
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
        elif name == "exception" and isinstance(value, str):
            cut[name] = _text(value, most_bytes, end=True)
        elif isinstance(value, bool | float | None) or (isinstance(value, int) and abs(value) < 2**63):
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


def _text(text: str, most_bytes: int, *, end: bool = False) -> str:
    """The beginning or the end of a text; JSON may write up to six bytes for one character."""
    if len(serialize({"": text})) <= most_bytes:
        return text
    length = max(0, most_bytes // 6)
    return "…" + text[len(text) - length :] if end else text[:length] + "…"
