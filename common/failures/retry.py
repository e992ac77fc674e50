"""Whether and when to try again, as a value: no sleeping here, so its tests take no time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from common.failures.errors import Throttled

LONGEST_WAIT_S = 3600.0
"""Seconds; what is waited at most because a header asks for it: a mistaken one must not stop the service for days."""


class Backoff(msgspec.Struct, frozen=True):
    """Exponential back-off with jitter: `first * factor ** n` seconds, at most `longest`, half of it random.

    The random half keeps many clients that failed together from coming back together.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 60.0

    def delay(self, failures: int, error: Exception | None = None, rand: Callable[[], float] = random.random) -> float:
        """Seconds to wait after this many failures in a row (1, 2, …); what a `Throttled` asks for is the least."""
        # the exponent is capped so that a month of failures cannot overflow a float
        whole = min(self.first * self.factor ** min(failures - 1, 64), self.longest)
        wait = whole * (0.5 + rand() / 2)
        if isinstance(error, Throttled):
            return max(wait, error.delay)
        return wait


def retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Seconds that an answer asks to wait, 0 to `LONGEST_WAIT_S`; None if it does not say.

    `Retry-After` is seconds or a date (RFC 9110, 10.2.3). Without it, `x-ratelimit-reset` counts where nothing remains:
    seconds from now with Ory and most others, a time since the epoch with some.
    """
    found = {name.lower(): value.strip() for name, value in headers.items()}
    wait = _seconds_until(found.get("retry-after", ""), now_wall)
    if wait is None and found.get("x-ratelimit-remaining", "0") == "0":
        wait = _seconds_until(found.get("x-ratelimit-reset", ""), now_wall)
    return None if wait is None else min(max(wait, 0.0), LONGEST_WAIT_S)


def _seconds_until(value: str, now_wall: float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        pass
    else:
        if not math.isfinite(number):
            return None
        return number - now_wall if number > 10**9 else number  # a wait of 30 years is a date: it was 2001-09-09
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_wall
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever email.utils makes of a header that is no date
        return None
