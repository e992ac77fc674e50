"""Whether the API refuses a second claim of a task: only then is it safe that several pipelines claim tasks.

An API that accepts every claim gives one task to two pipelines, and neither of them can see it: both claims are
accepted, and both results too. So the pipeline tries it out. Now and then it claims a task a second time, just after
its first claim was accepted and before it works on it. An API that keeps claims apart refuses that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.api.status import Meaning
from common.process.actions import Count, Instant, Log

CHECK_INTERVAL_S = 600.0
"""How often a claim is checked; the first one after each start is."""
NOTICE = (
    "the API accepted a second claim of a task that was claimed already: two pipelines with CLAIM_TASKS would process "
    "the same tasks (docs/several-pipelines.md)"
)


class SecondClaims:
    """When to check, and what the last check found."""

    def __init__(self) -> None:
        self._next_check_at_s = float("-inf")
        """Monotonic seconds."""
        self._are_accepted = False

    def is_check_due(self, now: Instant) -> bool:
        """Whether to claim a task a second time now; the next check follows after `CHECK_INTERVAL_S`."""
        if now.mono < self._next_check_at_s:
            return False
        self._next_check_at_s = now.mono + CHECK_INTERVAL_S
        return True

    def on_response(self, means: Meaning) -> Iterator[Any]:
        """Note what the API said about a second claim. An error of the server is neither yes nor no."""
        if means is Meaning.UNAVAILABLE:
            return
        self._are_accepted = means is Meaning.OK
        yield Count("api_second_claims_total", ("accepted" if self._are_accepted else "refused",))
        if self._are_accepted:
            yield Log("second_claim_accepted", {"reason": NOTICE}, "warning")

    def notices(self) -> list[str]:
        """What an operator must know."""
        return [NOTICE] if self._are_accepted else []
