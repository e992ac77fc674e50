"""Whether and when to try again, as a value: no sleeping here, so its tests take no time."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from common.errors import Throttled


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
