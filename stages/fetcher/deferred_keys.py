"""The batch keys of which nothing can be processed for now, as the rate limiter said."""

from __future__ import annotations

ALL = "*"
"""Stands for every batch key."""


class DeferredKeys:
    """Each with the time until which it is deferred (wall seconds)."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def defer(self, key: str, until: float) -> None:
        """Tasks of this key, or of every key, cannot be processed before then."""
        self._until[key] = until

    def has(self, key: str, now_wall: float) -> bool:
        """Whether tasks of this key cannot be processed now."""
        until = self._until
        return bool(until) and max(until.get(key, 0.0), until.get(ALL, 0.0)) > now_wall

    def all_until(self, now_wall: float) -> float | None:
        """Until when nothing of any batch key can be processed."""
        until = self._until.get(ALL, 0.0)
        return until if until > now_wall else None

    def end(self, now_wall: float) -> bool:
        """Forget the keys whose time has come; returns whether there were any."""
        ended = [key for key, until in self._until.items() if until <= now_wall]
        for key in ended:
            del self._until[key]
        return bool(ended)

    def names(self) -> frozenset[str]:
        """The keys."""
        return frozenset(self._until)
