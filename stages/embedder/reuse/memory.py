"""What was paid for before, or is being paid for by another embedder of this machine: cache.py with claims.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.process import metrics
from stages.embedder.reuse.cache import opened
from stages.embedder.reuse.claims import Claims
from stages.embedder.reuse.flights import Landed

Send = Callable[[list[str]], tuple[dict[str, Landed], float]]
"""Embeds texts: their outcomes, and when those without one may be tried again (monotonic seconds)."""


class Recalled(NamedTuple):
    """What became of texts."""

    outcomes: dict[str, Landed]
    until: float
    cached: int
    """How many cost nothing."""


class Memory:
    """Of one embedder process; `alone` says that there is no other, and spares looking for one."""

    def __init__(self, folder: Path, size: int, stopping: Callable[[float], bool], *, alone: bool) -> None:
        self.cache = opened(folder, size) if size else None
        self._claims = None if self.cache is None or alone else Claims(self.cache, stopping)

    def recall(self, keys: Mapping[str, bytes], length: int | None, send: Send) -> Recalled:
        """Find the vectors of texts (`keys` of the cache, by text; `length` if it is known), and send for the rest."""
        if self.cache is None:
            return Recalled(*send(list(keys)), 0)
        known = self._known(keys, length)
        metrics.CACHE_HITS.inc(len(known))
        metrics.CACHE_MISSES.inc(len(keys) - len(known))
        missing = {text: key for text, key in keys.items() if text not in known}
        if not missing:
            return Recalled(known, 0.0, len(known))
        elsewhere = self._claims.take(missing.values()) if self._claims else set()
        own = {text: key for text, key in missing.items() if key not in elsewhere}
        try:
            fresh, until = self._fresh(own, send) if own else ({}, 0.0)
        finally:
            if self._claims and own:
                self._claims.drop(own.values())
        theirs = {text: key for text, key in missing.items() if key in elsewhere}
        if self._claims and theirs:
            self._claims.wait(elsewhere)
            known |= self._known(theirs, length)
        # what failed there, or is to be tried again, is nobody's by now
        rest = {text: key for text, key in theirs.items() if text not in known}
        late, later = self._fresh(rest, send) if rest else ({}, 0.0)
        return Recalled(known | fresh | late, max(until, later), len(known))

    def close(self) -> None:
        """Close the cache."""
        if self.cache is not None:
            self.cache.close()

    def _known(self, keys: Mapping[str, bytes], length: int | None) -> dict[str, Landed]:
        vectors = self.cache.get(keys.values()) if self.cache else {}
        return {
            text: vectors[key] for text, key in keys.items() if key in vectors and length in {None, len(vectors[key])}
        }

    def _fresh(self, keys: Mapping[str, bytes], send: Send) -> tuple[dict[str, Landed], float]:
        fresh, until = send(list(keys))
        if self.cache is not None:
            self.cache.put({keys[text]: vector for text, vector in fresh.items() if isinstance(vector, np.ndarray)})
        return fresh, until
