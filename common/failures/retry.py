"""When to try again, as a number of seconds. This module never sleeps, so its tests take no time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from common.failures.errors import Throttled

LONGEST_WAIT_S = 3600.0
"""The longest wait that a header may ask for. A wrong header must not stop the service for days."""


class Backoff(msgspec.Struct, frozen=True):
    """Exponential back-off with jitter: `first * factor ** n` seconds, at most `longest`; half of it is random.

    The random half prevents many clients that failed together from trying again together.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 60.0

    def delay(self, failures: int, error: Exception | None = None, rand: Callable[[], float] = random.random) -> float:
        """The seconds to wait after the n-th failure in a row (1, 2, …); at least what a `Throttled` error asks for."""
        # the exponent is limited, so that a month of failures cannot overflow a float
        whole = min(self.first * self.factor ** min(failures - 1, 64), self.longest)
        wait = whole * (0.5 + rand() / 2)
        if isinstance(error, Throttled):
            return max(wait, error.delay)
        return wait


def retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """The seconds that a response asks the client to wait, 0 to `LONGEST_WAIT_S`; None if it does not ask.

    `Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3). Without it, `x-ratelimit-reset` is used if no
    request remains: seconds from now with Ory and most others, seconds since the epoch with some.
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
        return (
            number - now_wall if number > 10**9 else number
        )  # 10**9 is a date in 2001; as a wait it would be 30 years
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_wall
    except (ValueError, TypeError, IndexError, OverflowError):  # email.utils raises any of these for an invalid date
        return None
