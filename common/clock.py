"""Time as the stages see it: decisions get an `Instant` from outside, so their tests need no clock."""

from __future__ import annotations

import time
from typing import NamedTuple


class Instant(NamedTuple):
    """One moment, read from both clocks at once."""

    mono: float
    """Seconds of the monotonic clock: for durations and deadlines inside one process."""
    wall: float
    """Seconds since the epoch: for what is stored, or shown, or agreed with others; it may jump."""


def now() -> Instant:
    """Read both clocks."""
    return Instant(time.monotonic(), time.time())
