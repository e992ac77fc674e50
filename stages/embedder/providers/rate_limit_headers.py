"""Read from response headers when to send again: `retry-after`, `retry-after-ms`, `x-ratelimit-*`.

OpenAI sends, for requests and for tokens, `limit`, `remaining` and `reset`: the duration (`12ms`, `1m30.5s`, `6m0s`) in
which the bucket is *full* again, which refills evenly. Compatible servers leave them out, send -1, or send the time
since the epoch (https://platform.openai.com/docs/guides/rate-limits). The headers only ever slow requests down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.failures import wait_hints
from common.failures.retry import retry_after
from common.failures.wait_hints import LONGEST_WAIT_S

_UNITS = ("requests", "tokens")


def delay(headers: Mapping[str, str], now_wall: float) -> float:
    """Return the seconds to wait after a response with status 429 or 503; 0 if the headers do not tell."""
    milliseconds = headers.get("retry-after-ms", "").strip()
    if re.fullmatch(r"\d{1,18}(\.\d{1,18})?", milliseconds, re.ASCII):
        return min(float(milliseconds) / 1000, LONGEST_WAIT_S)
    seconds = retry_after(headers, now_wall)
    if seconds is not None:
        return seconds
    resets = {unit: _reset(headers, unit, now_wall) for unit in _UNITS}
    used_up = [wait for unit, wait in resets.items() if wait is not None and _number(headers, "remaining", unit) == 0]
    waits = used_up or [wait for wait in resets.values() if wait is not None]
    return min(max(waits, default=0.0), LONGEST_WAIT_S)


def pause(headers: Mapping[str, str], tokens: int, now_wall: float) -> float:
    """Return the seconds until the quota allows one more request of `tokens` tokens, after a success."""
    waits = []
    for unit, needed in zip(_UNITS, (1, tokens), strict=True):
        remaining, limit = _number(headers, "remaining", unit), _number(headers, "limit", unit)
        full = _reset(headers, unit, now_wall)
        if remaining is None or remaining < 0 or full is None or remaining >= needed:
            continue
        share = 1.0
        if limit is not None and limit > remaining:
            share = min(1.0, (needed - remaining) / (limit - remaining))
        waits.append(full * share)
    return min(max(waits, default=0.0), LONGEST_WAIT_S)


def _reset(headers: Mapping[str, str], unit: str, now_wall: float) -> float | None:
    """Seconds until the bucket is full again, from a duration, a number of seconds or a time; None if it is unknown."""
    return wait_hints.seconds(headers.get(f"x-ratelimit-reset-{unit}", ""), now_wall)


def _number(headers: Mapping[str, str], field: str, unit: str) -> int | None:
    value = headers.get(f"x-ratelimit-{field}-{unit}", "").strip()
    return int(value) if re.fullmatch(r"-?\d{1,18}", value, re.ASCII) else None
