"""A circuit breaker: it stops calls to a service that keeps failing, and lets one probe find out when it works again.

closed ──threshold failures in a row, or one that no retry repairs──► open ──its cooldown is over──► half-open
half-open ──the probe succeeds──► closed          half-open ──the probe fails──► open, for longer

The breaker only decides. The caller asks `allows`, reports `began`, and reports the outcome. The state is not stored: a
new process starts with a closed breaker.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import NamedTuple

from common.failures.cooldown import Cooldown
from common.failures.retry import Backoff


class State(IntEnum):
    """The state of a breaker; the numbers are those of the metric `circuit_breaker_state`."""

    CLOSED = 0
    """Calls are allowed."""
    OPEN = 1
    """No call is allowed before the cooldown is over."""
    HALF_OPEN = 2
    """One call, the probe, is allowed or under way."""


class Change(NamedTuple):
    """A change of a breaker's state; `common.process.breaker_report` reports it."""

    service: str
    """The service that the breaker protects."""
    state: State
    """Its new state."""
    reason: str
    """Why it is not closed; empty when it is."""


class Breaker:
    """The breaker of one service. `now` is in monotonic seconds."""

    def __init__(self, service: str, threshold: int, backoff: Backoff | None = None) -> None:
        self.service = service
        self.state = State.CLOSED
        self.cooldown = Cooldown()
        """When the next probe is allowed, and why the breaker is not closed."""
        self._threshold = threshold
        self._backoff = backoff or Backoff(first=2.0, factor=2.0, longest=60.0)
        self.failures = 0
        """Number of failures in a row."""
        self._openings = 0
        self._probing = False
        self._changes: deque[Change] = deque(maxlen=16)

    @property
    def reason(self) -> str:
        """Why it is not closed, as a text for `/ready`; empty when it is closed."""
        return self.cooldown.reason

    def changes(self) -> list[Change]:
        """The changes since the last call."""
        found = list(self._changes)
        self._changes.clear()
        return found

    def allows(self, now: float) -> bool:
        """Whether a call may be made now."""
        if self.state is State.OPEN and self.cooldown.is_over(now):
            self._become(State.HALF_OPEN, self.cooldown)
            self._probing = False
        if self.state is State.HALF_OPEN:
            return not self._probing
        return self.state is State.CLOSED

    def began(self) -> None:
        """Report that a call is made. In the state half-open it is the probe."""
        if self.state is State.HALF_OPEN:
            self._probing = True

    def succeeded(self) -> None:
        """Report any outcome of a call that shows that the service works."""
        self._become(State.CLOSED, Cooldown())
        self.failures = self._openings = 0
        self._probing = False

    def undecided(self) -> None:
        """Report a call whose outcome says nothing about the service. If it was the probe, another one is allowed."""
        self._probing = False

    def failed(self, now: float, reason: str, *, error: Exception | None = None, at_once: bool = False) -> None:
        """Report that a call failed. `at_once` opens the breaker after this one failure: no retry would repair it."""
        self.failures += 1
        if self.state is State.OPEN:
            return  # this call was made before the breaker opened
        if at_once or self.state is State.HALF_OPEN or self.failures >= self._threshold:
            self._openings += 1
            self._become(State.OPEN, Cooldown(now + self._backoff.delay(self._openings, error), reason))
            self._probing = False

    def _become(self, state: State, cooldown: Cooldown) -> None:
        if state is not self.state:
            self._changes.append(Change(self.service, state, cooldown.reason))
        self.state, self.cooldown = state, cooldown
