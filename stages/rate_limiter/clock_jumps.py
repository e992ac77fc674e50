"""Whether the wall clock jumped. The quotas follow the wall clock, so its jumps matter to them.

A clock that is set back grants nothing: the windows keep the latest time they saw until the clock has caught up. A
clock that jumps ahead takes the windows with it, as if the time had passed: a wrong clock cannot be told from a
corrected one, or from a machine that slept. So each jump is logged, for an operator to judge (docs/quotas.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.process.actions import Count, Instant, Log

JUMP_S = 2.0
"""Time daemons slew by less than 0.5 ms a second, and step when the clock is further off."""

_AHEAD = "the quota windows moved with it: what was charged before has expired sooner"
_BACK = "the quota windows stand still until it has caught up: nothing that was charged expires before"


class ClockJumps:
    """Compares the wall clock with the monotonic clock, which never jumps."""

    def __init__(self, windows_at: float, now: Instant) -> None:
        """`windows_at`: the time that the windows of an earlier run had reached (seconds since the epoch)."""
        self._behind_s = windows_at - now.wall
        self._last = now

    def look(self, now: Instant) -> Iterator[Any]:
        """Log a jump since the last look, or at the first look a clock that is behind the windows."""
        jumped_s = (now.wall - self._last.wall) - (now.mono - self._last.mono) - max(self._behind_s, 0.0)
        self._last, self._behind_s = now, 0.0
        if jumped_s > JUMP_S:
            yield from self._report("ahead", jumped_s, _AHEAD)
        elif jumped_s < -JUMP_S:
            yield from self._report("back", -jumped_s, _BACK)

    @staticmethod
    def _report(direction: str, seconds: float, reason: str) -> Iterator[Any]:
        yield Count("clock_leaps_total", (direction,))
        fields = {"direction": direction, "seconds": round(seconds, 1), "reason": reason}
        yield Log("clock_jumped", fields, "warning")
