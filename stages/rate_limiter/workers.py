"""The embedders as the rate limiter knows them: what each has, and what it could take."""

from __future__ import annotations

import msgspec

from common import messages as m


class Sent(msgspec.Struct):
    """A batch that an embedder has, or should have."""

    ids: list[str]
    sent_at: float
    """Monotonic seconds."""
    tasks: dict[str, m.Task] = {}
    """Empty for a batch that was learnt from `Ready` after a restart: its contents are not known here."""
    key: str = ""
    charge: m.Charge | None = None
    confirmed: bool = False
    missed_at: float | None = None
    """Monotonic seconds of the first `Ready` that did not name it; none has named it yet."""


class Worker(msgspec.Struct):
    """One embedder."""

    name: str
    boot_id: str
    inbox: str
    heard: float
    """Monotonic seconds of its last `Ready`."""
    free: int = 0
    batches: dict[str, Sent] = {}
    paused: dict[str, float] = {}
    busy_until: float = 0.0
    """Monotonic seconds until which it may have batches that it does not know of yet."""

    def takes(self, key: str, wall: float) -> bool:
        """Whether it has a slot for this batch key now."""
        return self.free > 0 and self.paused_until(key) <= wall

    def paused_until(self, key: str) -> float:
        """When its provider can serve this batch key; in the past if it can."""
        return max(self.paused.get(key, 0.0), self.paused.get("*", 0.0))
