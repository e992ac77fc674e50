"""When to try again, as a number of seconds. This module never sleeps, so its tests take no time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import msgspec

from common.failures import wait_hints
from common.failures.errors import Throttled


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

    Without a readable `Retry-After`, `x-ratelimit-reset` is used if no request remains.
    """
    found = {name.lower(): value.strip() for name, value in headers.items()}
    wait_s = wait_hints.seconds(found.get("retry-after", ""), now_wall)
    if wait_s is None and found.get("x-ratelimit-remaining", "0") == "0":
        wait_s = wait_hints.seconds(found.get("x-ratelimit-reset", ""), now_wall)
    return wait_s
