"""The clocks. Only the loop and the edges read them; states are given an `Instant`."""

from __future__ import annotations

import time

from common.process.actions import Instant


def monotonic() -> float:
    """Seconds since the machine booted, the same in all processes, also while the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now() -> Instant:
    """Read the monotonic and the wall clock."""
    return Instant(monotonic(), time.time())
