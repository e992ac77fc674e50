"""A circuit breaker: it stops calls to a service that keeps failing, and lets probes find out when it works again.

closed ──threshold failures in a row, or one that no retry repairs──► open ──its cooldown is over──► half-open
half-open ──a probe succeeds──► closed          half-open ──a probe fails──► open, for longer

A probe may fail although the service works: because of what the probe itself asks for. So the first time one call is
the probe, then two at once, then four, at most `most_probes`; and a probe that hangs does not keep the others waiting.
A sign of life from elsewhere (`half_open`) ends the cooldown early, but only a probe that succeeds closes the breaker.

The breaker only decides. The caller asks `allows`, reports `began`, and reports the outcome. The state is not stored: a
new process starts with a closed breaker.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import NamedTuple

from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled
from common.failures.retry import Backoff

EARLY_INTERVAL_S = 5.0
"""A sign of life ends a cooldown early at most this often: it may come all the time, and the service still fail."""
PROBE_HANGS_S = 2.0
"""While the last probe has been under way for this long, one more is allowed."""


class State(IntEnum):
    """The state of a breaker; the numbers are those of the metric `circuit_breaker_state`."""

    CLOSED = 0
    """Calls are allowed."""
    OPEN = 1
    """No call is allowed before the cooldown is over."""
    HALF_OPEN = 2
    """A few calls, the probes, are allowed or under way."""


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

    def __init__(self, service: str, threshold: int, backoff: Backoff | None = None, most_probes: int = 1) -> None:
        self.service = service
        self.state = State.CLOSED
        self.cooldown = Cooldown()
        """When the next probe is allowed, and why the breaker is not closed."""
        self._threshold = threshold
        self._backoff = backoff or Backoff(first=2.0, factor=2.0, longest=60.0)
        self.failures = 0
        """Number of failures in a row."""
        self.opened_at_s = float("-inf")
        """When it opened last (monotonic seconds)."""
        self._most_probes = most_probes
        self._openings = 0
        """How often it has opened since it was closed last."""
        self._probes = 0
        """Probes under way."""
        self._allowed_at = 0.0
        """When a call was allowed last."""
        self._is_throttled = False
        """Whether it is open because the service asked to wait."""
        self._early_from = float("-inf")
        """From then on a sign of life counts."""
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
        if self.state is not State.HALF_OPEN:
            return self.state is State.CLOSED
        width = min(1 << min(self._openings - 1, 30), self._most_probes)
        if now - self._allowed_at >= PROBE_HANGS_S:
            width = min(max(width, self._probes + 1), self._most_probes)
        if self._probes >= width:
            return False
        self._allowed_at = now
        return True

    def half_open(self, now: float) -> None:
        """Report a sign of life from elsewhere: a probe may be made before the cooldown is over, or while others hang.

        It does not count while the service asks to wait.
        """
        if self.state is State.OPEN and not self._is_throttled and now >= self._early_from:
            self._early_from = now + EARLY_INTERVAL_S
            self._become(State.HALF_OPEN, self.cooldown)
        elif self.state is State.HALF_OPEN and now - self._allowed_at >= PROBE_HANGS_S:
            self._probes = 0

    def began(self) -> None:
        """Report that a call is made. In the state half-open it is a probe."""
        if self.state is State.HALF_OPEN:
            self._probes += 1

    def succeeded(self) -> None:
        """Report any outcome of a call that shows that the service works."""
        self._become(State.CLOSED, Cooldown())
        self.failures = self._openings = 0

    def undecided(self) -> None:
        """Report a call whose outcome says nothing about the service. If it was a probe, another one is allowed."""
        self._probes = max(0, self._probes - 1)

    def failed(self, now: float, reason: str, *, error: Exception | None = None, at_once: bool = False) -> None:
        """Report that a call failed. `at_once` opens the breaker after this one failure: no retry would repair it."""
        self.failures += 1
        if self.state is State.OPEN:
            return  # this call was made before the breaker opened
        if at_once or self.state is State.HALF_OPEN or self.failures >= self._threshold:
            self._openings += 1
            self.opened_at_s = now
            self._is_throttled = isinstance(error, Throttled)
            self._become(State.OPEN, Cooldown(now + self._backoff.delay(self._openings, error), reason))

    def _become(self, state: State, cooldown: Cooldown) -> None:
        if state is not self.state:
            self._changes.append(Change(self.service, state, cooldown.reason))
            self._probes = 0
        self.state, self.cooldown = state, cooldown
