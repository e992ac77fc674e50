"""A cooldown: not before a time, for a reason. One value for everything that has to wait."""

from __future__ import annotations

from typing import NamedTuple


class Cooldown(NamedTuple):
    """Not before `until`, because of `reason`; whose clock counts (monotonic or wall) is up to the owner."""

    until: float = 0.0
    """Seconds; in the past when there is nothing to wait for."""
    reason: str = ""
    """In words, for `/ready` and the log; empty when there is none to give."""

    def is_over(self, now: float) -> bool:
        """Whether the time has come."""
        return now >= self.until

    def remaining_s(self, now: float) -> float:
        """How many seconds are left; 0 when it is over."""
        return max(0.0, self.until - now)

    def extended(self, until: float, reason: str = "") -> Cooldown:
        """The later of this one and the one given: a cooldown never ends sooner because another one begins."""
        return Cooldown(until, reason) if until > self.until else self
