"""The time after the start of a rate limiter in which it only listens: it must know what embedders have.

It is over when every embedder that was alive at the start has sent a `Ready`, at the latest after `LEARNING_S`. An
embedder that started later has nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.process.actions import Instant
from common.wire.timing import LEARNING_S


class Learning:
    """What is still to be heard."""

    def __init__(self, now: Instant) -> None:
        self._to_hear: set[str] | None = None
        """Embedders that were alive at the start; None while that is not known."""
        self._ends_at_s = now.mono + LEARNING_S
        self.is_told = False
        """Whether the fetcher has got the complete inventory that follows."""

    def expect(self, living: Iterable[str]) -> None:
        """These embedders are alive, and no others. Call it before the first `Ready` is handled."""
        self._to_hear = set(living)

    def heard(self, embedder: str) -> None:
        """An embedder has sent a `Ready`."""
        if self._to_hear:
            self._to_hear.discard(embedder)

    def is_over(self, now: Instant) -> bool:
        """Whether all is known."""
        return now.mono >= self._ends_at_s or (self._to_hear is not None and not self._to_hear)
