"""What a batch has cost, and what it may.

The rate limiter has charged a batch before it came here. Where a quota is in force, the batch keeps to that charge: it
makes no more requests than it was charged with, and sends no text again that may have been paid for. What is left then
goes back, is charged anew and comes again, in smaller batches where a larger one was refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ON_THE_WAY = 0.5
"""Seconds that a request needs at most to reach its provider, over a new connection. The time until its answer is a
bound too, but what a provider takes to think must not keep a quota from admitting more."""


class Tally:
    """Of one batch; `most_requests` is None where no quota is in force: then it takes what it takes."""

    def __init__(self, most_requests: int | None = None) -> None:
        self.limited = most_requests is not None
        self.most_requests = math.inf if most_requests is None else most_requests
        self.requests = 0
        self.tokens = 0
        self.reached_at = 0.0
        """Monotonic seconds by which the last request had reached its provider."""
        self.reached: set[str] = set()
        """Texts that may have been paid for."""
        self.left: dict[str, int] = {}
        """What may not be sent any more → the largest request that it should be part of."""

    def made(self, began: float, ended: float) -> None:
        """Note when a request was made (monotonic seconds): it reached its provider somewhere in between."""
        self.reached_at = max(self.reached_at, min(began + ON_THE_WAY, ended))

    @property
    def spent(self) -> bool:
        """Whether no request is left."""
        return self.requests >= self.most_requests

    def allows(self, texts: Sequence[str]) -> bool:
        """Whether a request with these may be made."""
        return not self.spent and not (self.limited and any(text in self.reached for text in texts))
