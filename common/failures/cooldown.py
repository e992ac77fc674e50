"""A cooldown: do nothing before a time, for a reason. The only type for this in the service."""

from __future__ import annotations

from typing import NamedTuple


class Cooldown(NamedTuple):
    """Not before `until`, because of `reason`. The owner decides which clock it is on: monotonic or wall."""

    until: float = 0.0
    """Seconds; a time in the past if there is nothing to wait for."""
    reason: str = ""
    """A text for `/ready` and the log; may be empty."""

    def is_over(self, now: float) -> bool:
        """Whether there is nothing to wait for any more."""
        return now >= self.until

    def remaining_s(self, now: float) -> float:
        """The seconds that are left; 0 when it is over."""
        return max(0.0, self.until - now)

    def extended(self, until: float, reason: str = "") -> Cooldown:
        """The later of this cooldown and the given one: a new cooldown never shortens the current one."""
        return Cooldown(until, reason) if until > self.until else self
