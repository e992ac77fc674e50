"""What follows when the API does not carry a claim out: whose fault it is, and when it is tried again.

As for results (docs/outages.md): a claim that is refused while others are accepted is that task's own. It is tried
again after its own back-off, and nothing else waits for it. While no claim is accepted it is the API: then the circuit
breaker counts, and probes.
"""

from __future__ import annotations

from common.api.responses import ApiResponse, in_words
from common.failures.attribution import NEAR_S, Attribution, Blame
from common.failures.breaker import Breaker
from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff

SCOPE = ("api", "claim")
MOST_PROBES = 4
"""Probes of a half-open breaker at a time."""
THROTTLES = frozenset({429, 503})
"""The statuses whose `Retry-After` is about the API as a whole."""


class ClaimRefusals:
    """The evidence about the claims, their circuit breaker, and the pause that the API asked for."""

    def __init__(self, threshold: int, backoff: Backoff) -> None:
        self.breaker = Breaker("api_claims", threshold, backoff, MOST_PROBES)
        self.throttle = Cooldown()
        """The API asked all clients to wait until then (monotonic seconds)."""
        self._throttled_by = ""
        """The only task whose response asked for that pause; empty if there are several."""
        self._backoff = backoff
        self._evidence = Attribution()

    def on_decided(self, task_id: str, now: float) -> None:
        """The API accepted or refused a claim in its own words, so it works."""
        self.breaker.succeeded()
        self._evidence.served(task_id, SCOPE, now)
        if self._throttled_by:
            self.throttle, self._throttled_by = Cooldown(), ""  # only that task was asked to wait

    def on_not_decided(self, response: ApiResponse, tries: int, now: float) -> tuple[float, str]:
        """Judge a claim that was not carried out; returns the seconds until the next try, and the reason in words."""
        task_id, wait_s = response.task_id, response.retry_after_s
        are_others_decided = now - self._evidence.last_served_at(SCOPE) <= NEAR_S
        finding = self._evidence.refused(task_id, SCOPE, now)
        is_own = finding.blame is Blame.ITEM
        reason = in_words(response, with_hint=not is_own)
        error = Throttled(reason, wait_s) if wait_s else Transient(reason)
        is_alone = finding.blame is Blame.UNKNOWN
        if is_own:
            self.breaker.undecided()
        elif wait_s and response.status in THROTTLES and not (is_alone and are_others_decided):
            is_first = self.throttle.is_over(now)
            self.throttle = self.throttle.extended(now + wait_s, reason)
            self._throttled_by = task_id if is_first and is_alone else ""
            self.breaker.failed(now, reason, error=error)
        else:
            self.breaker.failed(now, reason)
        return self._backoff.delay(tries, error), reason

    def on_untried(self, now: float) -> None:
        """There is a claim that was never sent: it is a probe at once, if only one task was refused so far."""
        if not self._evidence.is_failing(SCOPE):
            self.breaker.half_open(now)

    def forget(self, task_id: str) -> None:
        """Drop the evidence about a claim that is over."""
        self._evidence.forget(task_id, SCOPE)
