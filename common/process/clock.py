"""The clocks. Only the loop and the edges read them; states are given an `Instant`."""

from __future__ import annotations

import time

from common.process.actions import Instant


def now() -> Instant:
    """Read the monotonic and the wall clock."""
    return Instant(time.monotonic(), time.time())
