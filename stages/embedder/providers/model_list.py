"""Which models a server has: asked once in a while, and what it said last holds while it does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

AGE = 30.0
"""Seconds that a list is good for."""


class ModelList:
    """One server's list; `ask` returns it, or None if the server does not say."""

    def __init__(self, ask: Callable[[], frozenset[str] | None]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._listed: frozenset[str] | None = None

    def has(self, model: str) -> bool | None:
        """Whether the model is listed; None if the server has never said."""
        with self._lock:
            if time.monotonic() - self._asked_at >= AGE:
                self._asked_at = time.monotonic()
                listed = self._ask()
                self._listed = self._listed if listed is None else listed
            return None if self._listed is None else model in self._listed
