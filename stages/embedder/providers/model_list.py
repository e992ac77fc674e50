"""The list of a server's models: refreshed at most every 30 seconds; the last one counts while the server is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MAX_AGE_S = 30.0
"""Seconds after which the list is asked for again."""


class ModelList:
    """One server's list. `ask` returns the models, or None if the server does not tell."""

    def __init__(self, ask: Callable[[], frozenset[str] | None]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._listed: frozenset[str] | None = None

    def has(self, model: str) -> bool | None:
        """Whether the model is listed; None if the server has never sent a list."""
        with self._lock:
            if time.monotonic() - self._asked_at >= MAX_AGE_S:
                self._asked_at = time.monotonic()
                listed = self._ask()
                self._listed = self._listed if listed is None else listed
            return None if self._listed is None else model in self._listed
