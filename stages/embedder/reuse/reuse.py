"""Single-flight: of several batches that want the same text at the same time, one embeds it and the others wait for it.

Between the threads of this process a dictionary says which texts are in flight. Between processes it is the claims in
the cache (vector_cache.py). Without a cache only the threads of this process share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from common.process import metrics
from common.wire.messages import Failure
from stages.embedder.calling.vector_guard import Vector
from stages.embedder.reuse.vector_cache import open_cache

POLL_INTERVAL_S = 0.02
"""Seconds between two looks whether the others have finished."""

Outcome: TypeAlias = Vector | Failure
"""A final failure is shared between threads, but never stored."""


class InFlight:
    """One text that a batch of this process embeds now."""

    __slots__ = ("finished", "outcome")

    def __init__(self) -> None:
        self.finished = False
        self.outcome: Outcome | None = None
        """None: not embedded, or not yet."""


class Recall(NamedTuple):
    """Who has, or gets, the vectors of the keys that a batch asked for. Each key is in exactly one of the three."""

    vectors: dict[bytes, Vector]
    """From the cache."""
    mine: dict[bytes, InFlight]
    """For the caller to embed. It must publish or release each of them, also after an error."""
    others: dict[bytes, InFlight | None]
    """Embedded by another thread of this process, or by another process (None). For `await_others`."""


class Reuse:
    """One embedder process's view of the cache and of the texts in flight; used by all its threads."""

    def __init__(self, folder: Path, size: int, *, alone: bool) -> None:
        """Open the cache of at most `size` bytes; 0 means no cache. `alone`: no other embedder runs on this machine."""
        self.cache = open_cache(folder, size) if size else None
        self._shared = self.cache is not None and not alone
        self._lock = threading.Lock()
        self._in_flight: dict[bytes, InFlight] = {}

    def recall(self, keys: Iterable[bytes], length: int | None = None) -> Recall:
        """Look the keys up and claim the rest. Vectors of another length than `length` count as missing."""
        others: dict[bytes, InFlight | None] = {}
        mine: dict[bytes, InFlight] = {}
        with self._lock:
            for key in keys:
                holder = self._in_flight.get(key)
                if holder is None:
                    mine[key] = self._in_flight[key] = InFlight()
                elif key not in mine:
                    others[key] = holder
        if self.cache is None or not mine:
            return Recall({}, mine, others)
        try:
            vectors = self.cache.get(mine, length)
            missing = [key for key in mine if key not in vectors]
            claimed = self.cache.claim(missing, length) if self._shared and missing else set()
        except BaseException:
            self.release(mine)
            raise
        metrics.CACHE_HITS.inc(len(vectors))
        metrics.CACHE_MISSES.inc(len(missing))
        self._finish({key: (mine.pop(key), vector) for key, vector in vectors.items()})
        self._finish({key: (mine.pop(key), None) for key in claimed})
        return Recall(vectors, mine, others | dict.fromkeys(claimed))

    def publish(self, outcomes: Mapping[bytes, Outcome]) -> None:
        """Store the vectors of keys that were `mine`, and give all outcomes to those who wait for them."""
        with self._lock:
            holders = {key: self._in_flight[key] for key in outcomes if key in self._in_flight}
        if self.cache is not None and outcomes:
            vectors = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, np.ndarray)}
            self.cache.put(vectors, unclaim=outcomes if self._shared else ())
        self._finish({key: (holder, outcomes[key]) for key, holder in holders.items()})

    def release(self, mine: Mapping[bytes, InFlight]) -> None:
        """Let others embed those keys of `mine` that were not published. Harmless for keys that were."""
        open_keys = [key for key, holder in mine.items() if not holder.finished]
        if self.cache is not None and self._shared and open_keys:
            self.cache.unclaim(open_keys)
        self._finish({key: (mine[key], None) for key in open_keys})

    def await_others(
        self, others: Mapping[bytes, InFlight | None], stopping: Callable[[float], bool], length: int | None = None
    ) -> dict[bytes, Outcome]:
        """Wait until no one else embeds these keys; what is not in the result was not embedded.

        `stopping` waits for a number of seconds; it returns True, and at once, when the embedder is told to stop.
        """
        while self._is_pending(others) and not stopping(POLL_INTERVAL_S):
            pass
        outcomes = {key: holder.outcome for key, holder in others.items() if holder and holder.outcome is not None}
        rest = [key for key in others if key not in outcomes]
        found = self.cache.get(rest, length) if self.cache is not None and rest else {}
        return outcomes | found

    def close(self) -> None:
        """Close the cache, after the last batch."""
        if self.cache is not None:
            self.cache.close()

    def _is_pending(self, others: Mapping[bytes, InFlight | None]) -> bool:
        if any(holder is not None and not holder.finished for holder in others.values()):
            return True
        unknown = [key for key, holder in others.items() if holder is None or holder.outcome is None]
        return bool(self._shared and self.cache is not None and unknown and self.cache.is_claimed(unknown))

    def _finish(self, outcomes: Mapping[bytes, tuple[InFlight, Outcome | None]]) -> None:
        with self._lock:
            for key, (holder, outcome) in outcomes.items():
                if self._in_flight.get(key) is holder:
                    del self._in_flight[key]
                holder.outcome = outcome
                holder.finished = True
