"""How long a header asks to wait, in every form in which servers write it; bounded, and never a riddle.

`Retry-After` is seconds or a date (RFC 9110, 10.2.3). `x-ratelimit-reset` is seconds from now with Ory and most others,
a duration such as `6m0s` or `120ms` with OpenAI, and a time since the epoch, in seconds or milliseconds, with others. A
number is told from a time by its size: nothing waits for 30 years.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 3600.0
"""What is waited at most because a header asks for it: a mistaken header must not stop the service for days."""

_EPOCH_S = 1_000_000_000.0
"""2001-09-09: a larger number of seconds is a time, not a wait."""
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s))", re.IGNORECASE)
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds(value: str, now_wall: float) -> float | None:
    """Seconds that a header's value asks to wait, 0 to `LONGEST_WAIT_S`; None if it cannot be read."""
    text = value.strip()
    found = _number(text, now_wall)
    if found is None:
        found = _duration(text)
    if found is None:
        found = _date(text, now_wall)
    return None if found is None else min(max(found, 0.0), LONGEST_WAIT_S)


def _number(text: str, now_wall: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if number < _EPOCH_S:
        return number
    while number > _EPOCH_S * 10:  # milliseconds, microseconds or nanoseconds since the epoch
        number /= 1000.0
    return number - now_wall


def _duration(text: str) -> float | None:
    """`1m30s`, `120ms`, `30 s`; every part needs its unit."""
    packed = text.replace(" ", "")
    parts = _DURATION.findall(packed)
    if not parts or "".join(number + unit for number, unit in parts) != packed:
        return None
    return sum(float(number) * _UNITS_S[unit.lower()] for number, unit in parts)


def _date(text: str, now_wall: float) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever email.utils makes of what is not a date
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_wall
    except (OverflowError, ValueError):
        return None
