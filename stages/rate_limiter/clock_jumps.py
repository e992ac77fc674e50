"""Whether the wall clock went as time does. The quotas follow the wall clock, so its leaps matter to them.

Set back, it grants nothing: the windows keep the latest time they saw until the clock has caught up. Leaping ahead, it
takes the windows along, as if the time had passed: nobody can tell a wrong clock from a corrected one, or from a
machine that slept. So it is said aloud, for a person to judge. What to do about it is in docs/quotas.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.process.actions import Count, Instant, Log

LEAP = 2.0
"""Seconds: daemons that keep time slew less than 0.5 ms a second, and step when they are further off."""

_AHEAD = "the quotas' windows moved with it: what was charged before has expired sooner"
_BACK = "the quotas' windows stand still until it has caught up: nothing that was charged expires before"


class ClockWatch:
    """Compares the wall clock with the monotonic one, which never leaps."""

    def __init__(self, windows_at: float, now: Instant) -> None:
        """`windows_at`: the time, in Unix seconds, that the windows of an earlier run had reached."""
        self._behind = windows_at - now.wall
        self._last = now

    def look(self, now: Instant) -> Iterator[Any]:
        """Say it if the clock has leapt since the last look, or is behind the windows at the first."""
        leapt = (now.wall - self._last.wall) - (now.mono - self._last.mono) - max(self._behind, 0.0)
        self._last, self._behind = now, 0.0
        if leapt > LEAP:
            yield from self._said("ahead", leapt, _AHEAD)
        elif leapt < -LEAP:
            yield from self._said("back", -leapt, _BACK)

    @staticmethod
    def _said(direction: str, seconds: float, reason: str) -> Iterator[Any]:
        yield Count("clock_leaps_total", (direction,))
        fields = {"direction": direction, "seconds": round(seconds, 1), "reason": reason}
        yield Log("clock_leapt", fields, "warning")
