"""API_REQUESTS_PER_MINUTE: requests spread over the minute, instead of all at once and then 429.

The pace is the "generic cell rate algorithm" (ITU-T I.371, annex A): each request moves the time of the next one by an
interval, and what was not sent in the last `CATCH_UP_S` may be caught up at once. With N a minute, the interval is a
minute and a second, divided by N. So no minute has more than N requests, even if one is on its way for up to 0.75 s
longer than others. Each start of the process may add one.

The API counts the requests of the whole pipeline, and they leave from two processes. Each has a fixed part of the
number. So neither has to ask the other, and together they never exceed it:

    without claims    fetcher 1/20 (polls), at least 1 a minute           publisher the rest (results)
    with claims       fetcher 1/2 (polls first, then claims)              publisher 1/2: a task needs one of each
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

CATCH_UP_S = 0.25
"""What was not sent in this time may be sent at once: a turn of the loop may be late by two ticks."""
ON_THE_WAY_S = 0.75
"""A request may take this much longer to the API than the one before."""
SPREAD_S = 60.0 + CATCH_UP_S + ON_THE_WAY_S
"""The requests of a minute are spread over this time."""
POLLS_SHARE = 20
"""Without claims, one request in this number is kept for polls."""
PACED = "requests to the API wait for their turn: API_REQUESTS_PER_MINUTE limits how fast they leave"
TOLD_FOR_S = 2.0
"""For this long after a request had to wait, the pace counts as what limits: longer than between two heartbeats."""


class PaceParts(NamedTuple):
    """The requests a minute of both processes; 0 for any number."""

    fetcher: int
    publisher: int


def divided(requests_per_minute: int, *, claim_tasks: bool) -> PaceParts:
    """Divide API_REQUESTS_PER_MINUTE (0, or at least 2) between the processes that send requests."""
    if not requests_per_minute:
        return PaceParts(0, 0)
    fetcher = requests_per_minute // 2 if claim_tasks else max(1, requests_per_minute // POLLS_SHARE)
    return PaceParts(fetcher, requests_per_minute - fetcher)


class RequestPace:
    """When the next request may leave. `now` is in monotonic seconds."""

    def __init__(self, per_minute: int) -> None:
        self._interval_s = SPREAD_S / per_minute if per_minute else 0.0
        self._next_at_s = -math.inf
        """When the next request is due, if nothing has to be caught up."""
        self._waited_at_s = -math.inf
        """When a request had to wait last."""

    def allows(self, now: float, *, is_told: bool = True) -> bool:
        """Whether a request may leave now. Ask only if there is one: the answer no is told as a wait (`facts`)."""
        if now >= self._next_at_s - CATCH_UP_S:
            return True
        if is_told:
            self._waited_at_s = now
        return False

    def began(self, now: float) -> None:
        """A request leaves."""
        if self._interval_s:
            # the process before may have used up what may be caught up
            earliest = now + CATCH_UP_S if self._next_at_s == -math.inf else now
            self._next_at_s = max(self._next_at_s, earliest) + self._interval_s

    def is_limiting(self, now: float) -> bool:
        """Whether a request had to wait just now."""
        return now - self._waited_at_s < TOLD_FOR_S

    def facts(self, now: float) -> dict[str, Any]:
        """What the heartbeat says: nothing, unless the pace limits."""
        return {"paced": True, "notices": [PACED]} if self.is_limiting(now) else {}
