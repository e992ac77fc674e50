"""What follows when the API does not carry a claim out: whose fault it is, and when it is tried again.

As for results (docs/outages.md): a claim that is refused while others are accepted is that task's own. It is tried
again after its own back-off, and nothing else waits for it. While no claim is accepted it is the API: then the circuit
breaker counts, and probes.
"""

from __future__ import annotations

from common.api.patch_queue import MOST_PROBES
from common.api.responses import ApiResponse, in_words
from common.failures.attribution import NEAR_S, Attribution, Blame
from common.failures.breaker import Breaker
from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff
from common.failures.throttle import THROTTLES, Throttle

SCOPE = ("api", "claim")


class ClaimRefusals:
    """The evidence about the claims, their circuit breaker, and the pause that the API asked for."""

    def __init__(self, threshold: int, backoff: Backoff) -> None:
        self.breaker = Breaker("api_claims", threshold, backoff, MOST_PROBES)
        self._throttle = Throttle()
        self._backoff = backoff
        self._evidence = Attribution()

    @property
    def throttle(self) -> Cooldown:
        """The API asked all clients to wait until then, and why (monotonic seconds)."""
        return self._throttle.cooldown

    def on_decided(self, task_id: str, now: float) -> None:
        """The API accepted or refused a claim in its own words, so it works."""
        self.breaker.succeeded()
        self._evidence.served(task_id, SCOPE, now)
        self._throttle.served(now)

    def on_not_decided(self, response: ApiResponse, tries: int, now: float) -> tuple[float, str]:
        """Judge a claim that was not carried out; returns the seconds until the next try, and the reason in words."""
        task_id, wait_s = response.task_id, response.retry_after_s
        are_others_decided = now - self._evidence.last_served_at(SCOPE) <= NEAR_S
        finding = self._evidence.refused(task_id, SCOPE, now)
        is_own = finding.blame is Blame.ITEM
        reason = in_words(response, with_hint=not is_own)
        error = Throttled(reason, wait_s) if wait_s else Transient(reason)
        if is_own:
            self.breaker.undecided()
        else:
            must_all = (
                bool(wait_s)
                and response.status in THROTTLES
                and self._throttle.asked(task_id, now + wait_s, reason, are_others_served=are_others_decided)
            )
            self.breaker.failed(now, reason, error=error if must_all else None)
        return self._backoff.delay(tries, error), reason

    def on_untried(self, now: float) -> None:
        """There is a claim that was never sent: it is a probe at once, if only one task was refused so far."""
        if not self._evidence.is_failing(SCOPE):
            self.breaker.half_open(now)

    def forget(self, task_id: str) -> None:
        """Drop the evidence about a claim that is over."""
        self._evidence.forget(task_id, SCOPE)
