"""What follows when the API does not accept a PATCH: try again, wait, or give the result up.

A status alone does not say whether one task or the whole API is at fault. What other tasks received meanwhile does
(`common.failures.attribution`):

    others are accepted    → this task alone: the circuit breaker hears nothing of it, the task is tried again with
                             back-off, and it becomes a dead letter after MAX_RETRIES such refusals, whatever the status
    nothing is accepted    → the API: back-off and circuit breaker; no result is given up, however long it lasts

A redirect is about the address, which polls share. So if one task alone is redirected and polls succeed meanwhile, it
is that task's own, even if there is no other task.

If the API itself says that it will not take a result (400 several times, 409, 422, …), no evidence is needed.
"""

from __future__ import annotations

import math

from common.api.patch_queue import MOST_PROBES
from common.api.responses import ApiResponse, in_words
from common.api.status import Meaning
from common.failures.attribution import NEAR_S, Attribution, Blame
from common.failures.breaker import Breaker
from common.failures.cooldown import Cooldown
from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff
from common.failures.throttle import THROTTLES, Throttle
from common.failures.wait_hints import LONGEST_WAIT_S
from stages.publisher.actions import OutboxEntry

SCOPE = ("api", "PATCH")
GIVE_UP = math.inf
"""Instead of a delay: no further try."""
RECOVERIES_FACTOR = 3
"""The allowed tries are multiplied by this while refused results of other tasks recover: refusals come and go then."""


class Refusals:
    """The evidence about the tasks and the API, the circuit breaker, and the pauses that the API asks for."""

    def __init__(self, max_retries: int, breaker_threshold: int, backoff_factor: float) -> None:
        self.breaker = Breaker("api", breaker_threshold, Backoff(1.0, backoff_factor, 60.0), MOST_PROBES)
        self._throttle = Throttle()
        self._max_retries = max_retries
        self._backoff = Backoff(0.5, backoff_factor, 60.0)
        self._evidence = Attribution()
        self._polled_at = -math.inf
        """When a poll succeeded last (monotonic seconds)."""
        self._new_refused_at = -math.inf
        """When a result that was never refused before was refused last (monotonic seconds)."""
        self._redirected: dict[str, tuple[float, int]] = {}
        """Tasks whose PATCH was redirected → when last, and how often although a poll had succeeded since."""
        self._recovered_at = -math.inf
        """When a result that had been refused was accepted last (monotonic seconds)."""

    @property
    def throttle(self) -> Cooldown:
        """The API asked all clients to wait until then, and why."""
        return self._throttle.cooldown

    def on_served(self, task_id: str, entry: OutboxEntry, now: float) -> None:
        """Note that the API accepted a result, or has no such task any more."""
        self.breaker.succeeded()
        self._evidence.served(task_id, SCOPE, now)
        self._redirected.pop(task_id, None)
        if entry.unavailable_tries:
            self._recovered_at = now
        self._throttle.served(now)

    def forget(self, task_id: str) -> None:
        """Drop the evidence about a result that is no longer sent."""
        self._evidence.forget(task_id, SCOPE)
        self._redirected.pop(task_id, None)

    def on_poll_succeeded(self, now: float) -> None:
        """Note that the API answers: a PATCH may be tried before the cooldown of the breaker is over."""
        self._polled_at = now
        self.breaker.half_open(now)

    def on_untried(self, now: float) -> None:
        """There is a result that was never sent: it is a probe at once, if no other new one showed that the API fails.

        That is so if only one task was refused so far, or if the breaker opened because of tries after the first.
        """
        if not self._evidence.is_failing(SCOPE) or self.breaker.opened_at_s > self._new_refused_at:
            self.breaker.half_open(now)

    def on_refused(self, response: ApiResponse, entry: OutboxEntry, found: Meaning, now: float) -> tuple[float, str]:
        """Judge a refusal; returns the seconds until the next try (or `GIVE_UP`), and the reason in words."""
        entry.tries += 1
        if found in {Meaning.UNAVAILABLE, Meaning.TOKEN_REFUSED}:
            return self._on_unavailable(response, entry, now)
        reason = in_words(response)
        wait_s = min(response.retry_after_s, LONGEST_WAIT_S)
        self.breaker.succeeded()  # the API answers
        entry.doubtful_tries += found is Meaning.DOUBTFUL
        if found is not Meaning.DOUBTFUL or entry.doubtful_tries > self._max_retries:
            return GIVE_UP, reason
        return self._delay(entry, wait_s, reason), reason

    def _on_unavailable(self, response: ApiResponse, entry: OutboxEntry, now: float) -> tuple[float, str]:
        task_id, wait_s = response.task_id, min(response.retry_after_s, LONGEST_WAIT_S)
        entry.unavailable_tries += 1
        are_others_served = now - self._evidence.last_served_at(SCOPE) <= NEAR_S
        finding = self._evidence.refused(task_id, SCOPE, now)
        entry.is_blamed = finding.counted > 0
        counted = finding.counted + self._count_redirect(response, finding.blame, now)
        is_proven = finding.blame is Blame.ITEM or counted > finding.counted
        if is_proven or (finding.counted and are_others_served):  # or it was proven before
            reason = in_words(response, with_hint=False)
            self.breaker.undecided()
            is_over = is_proven and counted >= self._allowed(now)
            return (GIVE_UP if is_over else self._delay(entry, wait_s, reason)), reason
        if entry.unavailable_tries == 1:
            self._new_refused_at = now
        reason = in_words(response, with_hint=now - self._polled_at > NEAR_S)
        error = None
        if wait_s and response.status in THROTTLES:
            must_all = self._throttle.asked(task_id, now + wait_s, reason, are_others_served=are_others_served)
            error = Throttled(reason, wait_s) if must_all else None
        self.breaker.failed(now, reason, error=error)
        return self._delay(entry, wait_s, reason), reason

    def _count_redirect(self, response: ApiResponse, blame: Blame, now: float) -> int:
        """How often this task was redirected although polls succeeded since its redirect before."""
        if not 300 <= response.status < 400:
            return 0
        redirected_at, counted = self._redirected.get(response.task_id, (math.inf, 0))
        is_own = blame is Blame.UNKNOWN and self._polled_at > redirected_at
        counted += is_own
        self._redirected[response.task_id] = (now, counted)
        return counted if is_own else 0

    def _allowed(self, now: float) -> int:
        """How many refusals with evidence a result may have."""
        do_others_recover = now - self._recovered_at <= NEAR_S
        return self._max_retries * (RECOVERIES_FACTOR if do_others_recover else 1)

    def _delay(self, entry: OutboxEntry, wait_s: float, reason: str) -> float:
        error = Throttled(reason, wait_s) if wait_s else Transient(reason)
        return self._backoff.delay(entry.tries, error)
