"""The clocks. Only the loop and the edges read them; what decides is given an `Instant`."""

from __future__ import annotations

import time

from common.process.actions import Instant


def now() -> Instant:
    """Read both clocks."""
    return Instant(time.monotonic(), time.time())
