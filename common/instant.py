"""A moment, as decisions get it from outside: they have no clock of their own, and their tests need none."""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """One moment, read from both clocks at once."""

    mono: float
    """Seconds of the monotonic clock: for durations and deadlines inside one process."""
    wall: float
    """Seconds since the epoch: for what is stored, or shown, or agreed with others; it may jump."""
