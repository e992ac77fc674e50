"""A circuit breaker: stop calling what keeps failing, and find out with a single probe when it is back.

closed ──threshold failures in a row, or one that no retry mends──► open ──delay over──► half-open
half-open ──the probe succeeds──► closed          half-open ──the probe fails──► open, for longer

It decides only: who calls asks `allows`, says `began`, and tells the outcome. Nothing is kept over a restart: a fresh
process simply tries.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import NamedTuple

from common.failures.retry import Backoff


class State(IntEnum):
    """As the metric `circuit_breaker_state` shows it."""

    CLOSED = 0
    """Calls pass."""
    OPEN = 1
    """No call passes before `retry_at`."""
    HALF_OPEN = 2
    """One call, the probe, is on its way or may go."""


class Change(NamedTuple):
    """What a breaker has become; `common.process.breaker_report` tells it."""

    service: str
    state: State
    reason: str
    """Empty when closed."""


class Breaker:
    """The breaker of one service; `now` is monotonic seconds."""

    def __init__(self, service: str, threshold: int, backoff: Backoff | None = None) -> None:
        self.service = service
        self.state = State.CLOSED
        self.reason = ""
        """Why it is not closed, in words for `/ready`."""
        self.retry_at = 0.0
        self._threshold = threshold
        self._backoff = backoff or Backoff(first=2.0, factor=2.0, longest=60.0)
        self.failures = 0
        """In a row."""
        self._openings = 0
        self._probing = False
        self._changes: deque[Change] = deque(maxlen=16)

    def changes(self) -> list[Change]:
        """What has changed since this was asked last."""
        found = list(self._changes)
        self._changes.clear()
        return found

    def allows(self, now: float) -> bool:
        """Whether a call may be made now."""
        if self.state is State.OPEN and now >= self.retry_at:
            self._become(State.HALF_OPEN, self.reason)
            self._probing = False
        if self.state is State.HALF_OPEN:
            return not self._probing
        return self.state is State.CLOSED

    def began(self) -> None:
        """Say that a call is made; when half-open, it is the probe."""
        if self.state is State.HALF_OPEN:
            self._probing = True

    def succeeded(self) -> None:
        """Tell that a call came back with any answer that shows the service works."""
        self._become(State.CLOSED, "")
        self.failures = self._openings = 0
        self._probing = False

    def failed(self, now: float, reason: str, *, error: Exception | None = None, at_once: bool = False) -> None:
        """Tell that a call failed; `at_once` opens without waiting for more (no retry would mend it)."""
        self.failures += 1
        if self.state is State.OPEN:
            return  # a call from before it opened
        if at_once or self.state is State.HALF_OPEN or self.failures >= self._threshold:
            self._openings += 1
            self._become(State.OPEN, reason)
            self.retry_at = now + self._backoff.delay(self._openings, error)
            self._probing = False

    def _become(self, state: State, reason: str) -> None:
        if state is not self.state:
            self._changes.append(Change(self.service, state, reason))
        self.state, self.reason = state, reason
