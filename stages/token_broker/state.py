"""When a new access token is needed, when the token endpoint may be asked for it, and who gets it.

A token is wanted if there is none, if the current one ends soon, or if the API rejected it. A wanted token is requested
as soon as no request is running, the back-off is over and the circuit breaker allows it:

    wanted ──RequestToken──► running ──TokenIssued──► sent to the clients and to all who asked
                                └──TokenRequestFailed, or no response in time──► back-off ──► wanted
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from common.failures.breaker import Breaker, State
from common.failures.cooldown import Cooldown
from common.failures.errors import Permanent, Transient
from common.failures.retry import Backoff
from common.process.actions import Actions, Instant, Log, Report, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import IDLE_TICK_S
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed

DEFAULT_LIFETIME_S = 300.0
"""The assumed lifetime of a token whose response has no `expires_in` (RFC 6749, 5.1: it is optional)."""
LONGEST_LIFETIME_S = 30 * 86_400.0
"""A longer lifetime is treated as this one."""
RENEWAL_MARGIN_S = 5.0
"""A token is renewed at least this long before its end, or half its lifetime if it lasts less than twice that."""
RENEWAL_SHARE = 0.9
"""A long-lived token is renewed after this share of its lifetime at the latest."""
RENEWAL_JITTER_SHARE = 0.1
"""A renewal may come sooner by up to this share of the time, so that many services do not renew together."""
SHORTEST_INTERVAL_S = 1.0
"""The least time between two requests, even if both succeed: a wrong `expires_in` must not flood the endpoint."""
REFUSED_INTERVAL_S = 60.0
"""The time between requests that only an operator can repair, such as a wrong secret: it may be rotated live."""
REPLACEMENTS = Backoff(first=5.0, factor=2.0, longest=60.0)
"""The wait between replacements if the API rejects one token after another: it may reject every token."""
REPLACEMENTS_FORGOTTEN_S = 300.0
"""After this time without a rejection the next one counts as the first again."""


def fingerprint(access_token: str) -> str:
    """A name for the token that does not reveal it."""
    return hashlib.sha256(access_token.encode()).hexdigest()[:16]


class TokenBroker:
    """The state; its handlers return actions. Times are monotonic seconds unless they say otherwise."""

    def __init__(
        self,
        clients: Sequence[str],
        breaker: Breaker,
        backoff: Backoff,
        request_limit_s: float,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.breaker = breaker
        self._clients = frozenset(clients)
        """The inboxes that get every new token."""
        self._waiting: set[str] = set()
        """The inboxes that asked and have got no token yet."""
        self._backoff = backoff
        self._request_limit_s = request_limit_s
        """How long a request may take as a whole."""
        self._rand = rand

        self._token: Token | None = None
        self._expires = Instant(0.0, 0.0)
        self._renew_left_s = 0.0
        """The token is renewed when it has this many seconds left."""
        self._default_logged = False

        self._requested_at: Instant | None = None
        """When the running request began; None if no request is running."""
        self._number = 0
        """The number of the latest request."""
        self._cooldown = Cooldown()
        """No request before its end, because of the last failure."""
        self._failures = 0
        """Failed requests in a row."""

        self._rejected = False
        """Whether the API rejected the current token."""
        self._replacements = 0
        """Tokens that were replaced in a row because the API rejected them."""
        self._replaced_at = float("-inf")
        """When a rejected token was replaced last (monotonic seconds)."""
        self._replacement_cooldown = Cooldown()
        """No replacement of a rejected token before its end, because the token before it was rejected as well."""

    def on_request(self, request: TokenRequest, now: Instant) -> Actions:
        """Answer with the current token, unless it has ended or is the one that was rejected."""
        if self._token and self._left_s(now) > 0:
            if request.rejected != self._token.fingerprint:
                return [Send(request.reply_to, self._token)]
            self._rejected = True
            if request.has_worked:
                self._end_series()
        self._waiting.add(request.reply_to)
        return self._request_if_wanted(now)

    def on_issued(self, issued: TokenIssued, now: Instant) -> Iterator[Any]:
        """Send the new token to the clients and to all who asked."""
        requested_at = self._finish_request(issued.number)
        if requested_at is None:
            return
        self.breaker.succeeded()
        self._failures = 0
        self._cooldown = Cooldown(requested_at.mono + SHORTEST_INTERVAL_S)
        self._count_replacement(now)
        lifetime_s = min(issued.lifetime_s or DEFAULT_LIFETIME_S, LONGEST_LIFETIME_S)
        if issued.lifetime_s is None and not self._default_logged:
            self._default_logged = True
            yield Log("token_without_expires_in", {"assumed_seconds": DEFAULT_LIFETIME_S}, "warning")
        self._expires = Instant(requested_at.mono + lifetime_s, requested_at.wall + lifetime_s)
        usable_s = min(lifetime_s * RENEWAL_SHARE, lifetime_s - min(RENEWAL_MARGIN_S, lifetime_s / 2))
        self._renew_left_s = lifetime_s - usable_s * (1 - RENEWAL_JITTER_SHARE * self._rand())
        token = self._token = Token(issued.access_token, self._expires.wall, fingerprint(issued.access_token))
        yield Log("token_issued", {"fingerprint": token.fingerprint, "expires_in": lifetime_s})
        for inbox in sorted(self._clients | self._waiting):
            yield Send(inbox, token)
        self._waiting.clear()

    def on_request_failed(self, failed: TokenRequestFailed, now: Instant) -> Iterator[Any]:
        """Back off, for longer each time; at a steady interval if only an operator can repair it."""
        if self._finish_request(failed.number) is None:
            return
        error = failed.error
        needs_operator = isinstance(error, Permanent)
        self._failures += 1
        self.breaker.failed(now.mono, str(error), error=error, at_once=needs_operator)
        delay_s = REFUSED_INTERVAL_S if needs_operator else self._backoff.delay(self._failures, error, self._rand)
        self._cooldown = Cooldown(now.mono + delay_s, str(error))
        yield Log("token_request_failed", {"reason": str(error), "retry_in": round(self._wait_s(now), 1)}, "warning")

    def on_tick(self, now: Instant) -> Actions:
        """Give up a request that takes too long; request a token when it is wanted."""
        if self._requested_at and now.mono - self._requested_at.mono > self._request_limit_s:
            stalled = Transient(
                f"the token endpoint did not answer within {self._request_limit_s:g} s (REQUEST_TIMEOUT)"
            )
            return self.on_request_failed(TokenRequestFailed(self._number, stalled), now)
        return self._request_if_wanted(now)

    def idle_tick_s(self, now: Instant) -> float | None:
        """Tick less often while there is a token and none is wanted."""
        is_busy = self._requested_at or self._rejected or self._waiting or self._left_s(now) <= self._renew_left_s
        return None if is_busy else IDLE_TICK_S

    def report(self, now: Instant) -> Report:
        """The content of the heartbeat: without a valid token no task can be fetched or published."""
        left_s = self._left_s(now)
        report = Report(facts={"token_expires_in": round(left_s) if left_s > 0 else None})
        if self._cooldown.reason:
            report.facts["token_problem"] = self._cooldown.reason
        if left_s <= 0 and self._cooldown.reason:
            report.blockers = [f"no access token: {self._cooldown.reason}; next try in {self._wait_s(now):.0f} s"]
        elif left_s <= 0:
            report.blockers = ["no access token yet: the token endpoint is being asked for one"]
        return report

    def _request_if_wanted(self, now: Instant) -> Actions:
        rejected = self._rejected and self._replacement_cooldown.is_over(now.mono)
        wanted = rejected or self._left_s(now) <= self._renew_left_s
        if (
            not wanted
            or self._requested_at
            or not self._cooldown.is_over(now.mono)
            or not self.breaker.allows(now.mono)
        ):
            return []
        self.breaker.began()
        self._requested_at = now
        self._number += 1
        return [RequestToken(self._number)]

    def _finish_request(self, number: int) -> Instant | None:
        """Note that this request is over; returns when it began, or None if it was given up before."""
        if number != self._number:
            return None
        requested_at, self._requested_at = self._requested_at, None
        return requested_at

    def _count_replacement(self, now: Instant) -> None:
        """If the replaced token was rejected, keep the next one for longer, even if it is rejected too."""
        if not self._rejected:
            return
        self._rejected = False
        if now.mono > self._replacement_cooldown.until + REPLACEMENTS_FORGOTTEN_S:
            self._replacements = 0
        self._replacements += 1
        self._replaced_at = now.mono
        delay_s = REPLACEMENTS.delay(self._replacements, rand=self._rand)
        self._replacement_cooldown = Cooldown(now.mono + delay_s, "the API rejected the access token")

    def _end_series(self) -> None:
        """Count the next replacement as the first: the API does not reject every token."""
        self._replacements = 0
        until = min(self._replacement_cooldown.until, self._replaced_at + REPLACEMENTS.first)
        self._replacement_cooldown = Cooldown(until, self._replacement_cooldown.reason)

    def _left_s(self, now: Instant) -> float:
        """Seconds until the token ends, by the clock that ends it sooner: one may jump, one stops with the host."""
        return min(self._expires.mono - now.mono, self._expires.wall - now.wall)

    def _wait_s(self, now: Instant) -> float:
        """Seconds until the endpoint may be asked again."""
        opens_at = self.breaker.cooldown.until if self.breaker.state is State.OPEN else 0.0
        return max(self._cooldown.remaining_s(now.mono), opens_at - now.mono)
