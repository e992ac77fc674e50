"""What the rate limiter asks of its edge."""

from __future__ import annotations

from typing import NamedTuple


class PutQuota(NamedTuple):
    """Store the quota windows as they are now, in this turn's transaction."""
