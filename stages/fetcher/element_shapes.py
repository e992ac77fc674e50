"""The shapes in which real APIs write a task's id, age, state and content, each read as what it means.

Mongoose's JSON has `_id` as a string; others write `id`, a number, or MongoDB's extended JSON (`{"$oid": …}`,
`{"$date": …}`). What cannot be read is unknown, never an error: a task of unknown age is taken after the others.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

UNKNOWN_AGE = math.inf
"""Sorts behind every task whose age is known: oldest first, unknown last."""
_LATEST = 4_102_444_800.0
"""2100-01-01: what is later in seconds since the epoch is in milliseconds."""
_LONGEST_ID = 1024


def task_id(element: dict[str, Any]) -> str:
    """The id as the API's path takes it; empty if there is none that can be sent back."""
    for name in ("_id", "id"):
        if found := _id(element.get(name)):
            return found
    return ""


def _id(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("$oid", value.get("$uuid", value.get("$numberLong")))
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else ""
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_ID:
        return ""
    return value if value.isprintable() else ""


def created_at(value: object) -> float:
    """Seconds since the epoch at which a task was created; `UNKNOWN_AGE` for what cannot be read."""
    if isinstance(value, dict):
        value = value.get("$date", value.get("$numberLong"))
        if isinstance(value, dict):
            value = value.get("$numberLong")
    if isinstance(value, bool):
        return UNKNOWN_AGE
    if isinstance(value, str):
        try:
            return _epoch(float(value))
        except ValueError:
            return _date(value)
    return _epoch(float(value)) if isinstance(value, int | float) and abs(value) < 1e18 else UNKNOWN_AGE


def _epoch(number: float) -> float:
    if not math.isfinite(number) or number <= 0:
        return UNKNOWN_AGE
    while number > _LATEST:  # milliseconds, microseconds, nanoseconds
        number /= 1000.0
    return number


def _date(text: str) -> float:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return UNKNOWN_AGE
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return UNKNOWN_AGE
