"""The tasks of the last page for which there was no room: they are leased as soon as there is.

A buffered task may be changed or cancelled in the API meanwhile, so the buffer is dropped after a polling interval.
Where tasks end too slowly to use a buffer in that time, a page is read only as far as there is room: otherwise the same
tasks would be read again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from common.process.actions import Instant
from stages.fetcher.page import Candidate, PendingPage


class Buffer:
    """At most `capacity` candidates, oldest first."""

    def __init__(self, capacity: int, keep_s: float) -> None:
        self.candidates: deque[Candidate] = deque()
        self.are_claimed = False
        """Whether these are in progress, and so claimed already."""
        self.requested_at = 0.0
        """When their page was asked for (wall seconds)."""
        self._capacity = capacity
        self._keep_s = keep_s
        self._came_at_s = float("-inf")
        """Monotonic seconds."""

    def __bool__(self) -> bool:
        """Whether there are candidates."""
        return bool(self.candidates)

    def wanted(self, room: int, now: Instant) -> int:
        """How many candidates to read from the next page, if there is room for `room` tasks now."""
        was_used_in_time = now.mono - self._came_at_s <= self._keep_s
        return room + self._capacity if was_used_in_time else room

    def fill(self, page: PendingPage, candidates: Iterable[Candidate], now: Instant) -> None:
        """Replace the candidates with those of a page."""
        self.candidates = deque(candidates)
        self.are_claimed = page.in_progress
        self.requested_at = page.requested_at
        self._came_at_s = now.mono

    def drop_if_stale(self, now: Instant) -> None:
        """Drop candidates that may not be pending any more."""
        if self.candidates and now.mono - self._came_at_s > self._keep_s:
            self.candidates.clear()
