"""Texts that are being embedded right now: a second batch that wants one waits for the first, and pays nothing.

Nobody waits while others wait for him: a session first embeds and lands all that it claimed, and only then looks at
what it left to others. So no two can wait for each other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from common.wire.messages import Failure
from stages.embedder.calling.vector_guard import Vector

Key: TypeAlias = tuple[str, str, str]
"""Provider, model, text."""
Landed: TypeAlias = Vector | Failure | None
"""None: it could not be embedded now."""


class Flight:
    """What one session has under way."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._landed: Mapping[Key, Landed] = {}

    def land(self, landed: Mapping[Key, Landed]) -> None:
        """Tell those who wait."""
        self._landed = landed
        self._over.set()

    def wait(self, key: Key) -> Landed:
        """Wait for the end of the session's requests; its outcome for the text."""
        self._over.wait()
        return self._landed.get(key)


class Flights:
    """All texts under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Key, Flight] = {}

    def claim(self, flight: Flight, keys: Iterable[Key]) -> dict[Key, Flight]:
        """Claim the texts for this flight; return those that another one has, and which."""
        with self._lock:
            others = {}
            for key in keys:
                holder = self._under_way.setdefault(key, flight)
                if holder is not flight:
                    others[key] = holder
            return others

    def land(self, flight: Flight, landed: Mapping[Key, Landed]) -> None:
        """End the flight, with the outcome of all that it had claimed."""
        with self._lock:
            for key in landed:
                if self._under_way.get(key) is flight:
                    del self._under_way[key]
        flight.land(landed)
