"""Keeps log lines short: systemd's journal, Docker and log collectors cut or drop lines of many kilobytes.

The shortest fields are kept whole. Those that do not fit are cut to equal shares of what is left: a list keeps its
first elements, a text its beginning, a traceback its end as well. Each says how much was left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

LONGEST_LINE_BYTES = 4000
"""In the JSON form, without the line break. A pipe takes lines up to 4,096 bytes in one piece (POSIX's PIPE_BUF)."""
MOST_FIELDS = 40
"""Further fields are left out and counted."""
_SMALLEST_SHARE_BYTES = 60
"""Enough for the words that count what was left out."""


def encode(value: Any) -> bytes:
    """A value as JSON. Never raises: what JSON does not know is shown as text."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, an integer above 64 bits, a circular value
        if isinstance(value, Mapping):
            return b"{" + b",".join(encode(str(key)) + b":" + encode(value[key]) for key in value) + b"}"
        return orjson.dumps(ascii(value))


def shorten(event: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The event in a line of at most `LONGEST_LINE_BYTES`, and the elements of `task_ids` that it leaves out."""
    kept = dict(list(event.items())[:MOST_FIELDS])
    if left_out := len(event) - len(kept):
        kept["fields_left_out"] = left_out
    kept = {str(name)[:60]: value for name, value in kept.items()}
    sizes = {name: len(encode(value)) for name, value in kept.items()}
    room = LONGEST_LINE_BYTES - 2 - sum(len(encode(name)) + 2 for name in kept)
    for place, name in enumerate(sorted(sizes, key=sizes.__getitem__)):
        share = max(_SMALLEST_SHARE_BYTES, room // (len(sizes) - place))
        if sizes[name] > share:
            kept[name] = _cut(kept[name], share, ends=name == "exception")
        room -= len(encode(kept[name]))
    ids = event.get("task_ids")
    is_cut = isinstance(ids, list) and kept.get("task_ids") != ids
    return kept, ids[len(kept["task_ids"]) - 1 :] if is_cut and isinstance(ids, list) else []


def in_lines(leading: Mapping[str, Any], name: str, values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """All values in as few lines as they need; each line begins with the leading fields."""
    room = LONGEST_LINE_BYTES - len(encode({**leading, name: []}))
    line: list[Any] = []
    used = 0
    for value in values:
        size = len(encode(value)) + 1
        if line and used + size > room:
            yield {**leading, name: line}
            line, used = [], 0
        line.append(value if size <= room else _cut(value, room - 1))
        used += size
    yield {**leading, name: line}


def _cut(value: Any, share: int, *, ends: bool = False) -> Any:
    """The beginning of a value in at most `share` bytes of JSON, with a count of what is left out."""
    if isinstance(value, list | tuple) and not ends:
        return _cut_list(value, share)
    text = value if isinstance(value, str) else encode(value).decode()
    length = _most(len(text), lambda kept: len(encode(_cut_text(text, kept, ends=ends))) <= share)
    return _cut_text(text, length, ends=ends)


def _cut_list(values: Sequence[Any], share: int) -> list[Any]:
    kept: list[Any] = []
    used = len(encode([f"and {len(values)} more"]))
    for value in values:
        used += len(encode(value)) + 1
        if used > share:
            break
        kept.append(value)
    return [*kept, f"and {len(values) - len(kept)} more"]


def _cut_text(text: str, length: int, *, ends: bool) -> str:
    last = length * 3 // 4 if ends else 0
    first = length - last
    words = (
        f" … and {len(text) - length} more characters … " if last else f" … and {len(text) - length} more characters"
    )
    return text[:first] + words + text[len(text) - last :]


def _most(limit: int, fits: Any) -> int:
    """The largest number below `limit` that fits, by halving; 0 if none does."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
