"""The pause that a service asks for with `Retry-After`: of everyone, or of one item.

While other items are served, one item that is asked to wait waits alone. As soon as a second one is asked, before
anything is served, the service throttles all. If only one had been asked, and another is served, the pause is over.
"""

from __future__ import annotations

from common.failures.cooldown import Cooldown

THROTTLES = frozenset({429, 503})
"""The statuses whose `Retry-After` may be about the service as a whole (RFC 9110, 15.6.4; RFC 6585, 4)."""


class Throttle:
    """The pause of one service. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.cooldown = Cooldown()
        """Nothing is sent before its end."""
        self._asked: set[str] = set()
        """The items that were asked to wait since one was served last."""

    def asked(self, item: str, until_s: float, reason: str, *, are_others_served: bool) -> bool:
        """Note that an item was asked to wait; returns whether all have to."""
        self._asked.add(item)
        if len(self._asked) == 1 and are_others_served:
            return False
        self.cooldown = self.cooldown.extended(until_s, reason)
        return True

    def served(self, now_s: float) -> None:
        """Note that an item was served."""
        if not self._asked:
            return  # this is called for each task that goes well
        if len(self._asked) == 1:
            self.cooldown = Cooldown()
        if self.cooldown.is_over(now_s):
            self._asked.clear()
