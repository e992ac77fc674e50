"""What providers ask for: to be left alone until some time (`retry-after`, `x-ratelimit-*`). One hears it, all obey.

An embedder says so in its next `Ready`, within a tenth of a second, and the rate limiter tells all the others, also
those that start later. What an embedder concludes by itself, such as an open breaker, is not shared: it may be its own
network or its own key that is broken, and then the others can go on.

A provider that asks for patience counts requests. So, while it does and for a while after, no batch leaves smaller than
it could be: many small requests would only be refused again.
"""

from __future__ import annotations

from collections.abc import Mapping

SAME = 0.1
"""Seconds by which two embedders may differ about one and the same time; what differs by more is news."""
SCARCE = 60.0
"""Seconds for which requests are saved afterwards: providers count them by the minute."""


class Patience:
    """Providers by name, and until when they are to be left alone (seconds since the epoch)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def heard(self, told: Mapping[str, float]) -> dict[str, float]:
        """Take in what an embedder says; return what is new of it, which the others must be told."""
        news = {name: until for name, until in told.items() if until > self._until.get(name, 0.0) + SAME}
        self._until.update(news)
        return news

    def in_force(self, wall: float) -> dict[str, float]:
        """Return what an embedder that starts now must know."""
        return {name: until for name, until in self._until.items() if until > wall}

    def scarce(self, wall: float) -> bool:
        """Tell whether requests should be few."""
        return any(wall < until + SCARCE for until in self._until.values())
