"""When a new access token is needed, when the endpoint may be asked for it, and who gets it.

A token is wanted when there is none, when the present one is nearly over, or when the API rejected it. A wanted token
is asked for as soon as no request runs, the back-off is over and the circuit breaker allows it:

wanted ──Ask──► running ──Issued──► sent to all who use it and all who asked
                   └──Refused, or no answer in time──► back-off ──► wanted
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.failures.breaker import Breaker, State
from common.failures.errors import Permanent, Transient
from common.failures.retry import Backoff
from common.process.actions import Actions, Instant, Log, Report, Send
from common.wire.messages import Token, TokenRequest

DEFAULT_LIFE = 300.0
"""Seconds that a token is taken to last when its answer does not say (RFC 6749, 5.1: `expires_in` is optional)."""
LONGEST_LIFE = 30 * 86_400.0
"""Seconds; a token that claims to last longer is renewed all the same."""
MARGIN = 5.0
"""Seconds before the end by which a token is renewed at the latest; half its life if it lasts less than twice that."""
USED_UP = 0.9
"""The part of its life after which a long-lived token is renewed at the latest."""
JITTER = 0.1
"""The part of that time by which a renewal may come sooner, so that many services do not renew together."""
SHORTEST_PAUSE = 1.0
"""Seconds between two requests even if both succeed: whatever `expires_in` says, the endpoint is not flooded."""
REFUSED_PAUSE = 60.0
"""Seconds between requests that a person must mend (a wrong secret): often enough for a secret rotated live."""
REPLACEMENTS = Backoff(first=5.0, factor=2.0, longest=60.0)
"""Between replacements of tokens that the API rejects one after another: it may be rejecting all of them."""
QUIET = 300.0
"""Seconds without a rejection after which the next one is again the first."""


class Ask(NamedTuple):
    """Ask the token endpoint for a token; the answer comes back as `Issued` or `Refused` with the same number."""

    number: int


@dataclass(frozen=True)
class Issued:
    """The endpoint gave a token."""

    number: int
    access_token: str = field(repr=False)
    life: float | None
    """Seconds it lasts from when it was asked for; None if the endpoint does not say."""


@dataclass(frozen=True)
class Refused:
    """The endpoint gave none."""

    number: int
    error: Transient | Permanent


def fingerprint(access_token: str) -> str:
    """Name a token without giving it away."""
    return hashlib.sha256(access_token.encode()).hexdigest()[:16]


class TokenBroker:
    """The broker's decisions."""

    def __init__(
        self,
        clients: Sequence[str],
        breaker: Breaker,
        backoff: Backoff,
        patience: float,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self.breaker = breaker
        self._clients = frozenset(clients)
        """The inboxes that get every new token unasked."""
        self._waiting: set[str] = set()
        """The inboxes that asked and have not been answered."""
        self._backoff = backoff
        self._patience = patience
        """Seconds that a request may take as a whole."""
        self._rand = rand

        self._token: Token | None = None
        self._expires = Instant(0.0, 0.0)
        self._renew_left = 0.0
        """Seconds before its end at which the token is renewed."""
        self._said_default = False

        self._asked: Instant | None = None
        """When the running request began; None when none runs."""
        self._number = 0
        self._retry_at = 0.0
        self._failures = 0
        self._problem = ""

        self._rejected = False
        """Whether the API rejected the present token."""
        self._replacements = 0
        self._replace_at = 0.0

    def on_request(self, request: TokenRequest, now: Instant) -> Actions:
        """Answer with the present token, unless it is over or the very one that was rejected."""
        if self._token and self._left(now) > 0:
            if request.rejected != self._token.fingerprint:
                return [Send(request.reply_to, self._token)]
            self._rejected = True
        self._waiting.add(request.reply_to)
        return self._ask_if_wanted(now)

    def on_issued(self, issued: Issued, now: Instant) -> Iterator[Any]:
        """Hand the new token to all who use one."""
        asked = self._answered(issued.number)
        if asked is None:
            return
        self.breaker.succeeded()
        self._failures, self._problem = 0, ""
        self._retry_at = asked.mono + SHORTEST_PAUSE
        self._count_replacement(now)
        life = min(issued.life or DEFAULT_LIFE, LONGEST_LIFE)
        if issued.life is None and not self._said_default:
            self._said_default = True
            yield Log("token_without_expires_in", {"assumed_seconds": DEFAULT_LIFE}, "warning")
        self._expires = Instant(asked.mono + life, asked.wall + life)
        usable = min(life * USED_UP, life - min(MARGIN, life / 2))
        self._renew_left = life - usable * (1 - JITTER * self._rand())
        token = self._token = Token(issued.access_token, self._expires.wall, fingerprint(issued.access_token))
        yield Log("token_issued", {"fingerprint": token.fingerprint, "expires_in": life})
        for inbox in sorted(self._clients | self._waiting):
            yield Send(inbox, token)
        self._waiting.clear()

    def on_refused(self, refused: Refused, now: Instant) -> Iterator[Any]:
        """Back off, for longer each time; slowly and steadily if only a person can mend it."""
        if self._answered(refused.number) is None:
            return
        error = refused.error
        hopeless = isinstance(error, Permanent)
        self._failures += 1
        self._problem = str(error)
        self.breaker.failed(now.mono, self._problem, error=error, at_once=hopeless)
        delay = REFUSED_PAUSE if hopeless else self._backoff.delay(self._failures, error, self._rand)
        self._retry_at = now.mono + delay
        yield Log("token_request_failed", {"reason": self._problem, "retry_in": round(self._pause(now), 1)}, "warning")

    def tick(self, now: Instant) -> Actions:
        """Give a stalled request up; ask when the time has come."""
        if self._asked and now.mono - self._asked.mono > self._patience:
            stalled = Transient(f"the token endpoint did not answer within {self._patience:g} s (REQUEST_TIMEOUT)")
            return self.on_refused(Refused(self._number, stalled), now)
        return self._ask_if_wanted(now)

    def report(self, now: Instant) -> Report:
        """Without a token that is good now, no task can be fetched or published."""
        left = self._left(now)
        report = Report(facts={"token_expires_in": round(left) if left > 0 else None})
        if self._problem:
            report.facts["token_problem"] = self._problem
        if left <= 0 and self._problem:
            report.blockers = [f"no access token: {self._problem}; next try in {self._pause(now):.0f} s"]
        elif left <= 0:
            report.blockers = ["no access token yet: the token endpoint is being asked for one"]
        return report

    def _ask_if_wanted(self, now: Instant) -> Actions:
        rejected = self._rejected and now.mono >= self._replace_at
        wanted = rejected or self._left(now) <= self._renew_left
        if not wanted or self._asked or now.mono < self._retry_at or not self.breaker.allows(now.mono):
            return []
        self.breaker.began()
        self._asked = now
        self._number += 1
        return [Ask(self._number)]

    def _answered(self, number: int) -> Instant | None:
        """Note that the running request is over and say when it began; None for one that was given up before."""
        if number != self._number:
            return None
        asked, self._asked = self._asked, None
        return asked

    def _count_replacement(self, now: Instant) -> None:
        """If the token that is over now was rejected, keep the next one for longer, even if it is rejected too."""
        if not self._rejected:
            return
        self._rejected = False
        if now.mono > self._replace_at + QUIET:
            self._replacements = 0
        self._replacements += 1
        self._replace_at = now.mono + REPLACEMENTS.delay(self._replacements, rand=self._rand)

    def _left(self, now: Instant) -> float:
        """Seconds until the token ends, by the clock that ends it sooner: one jumps, the other sleeps with the host."""
        return min(self._expires.mono - now.mono, self._expires.wall - now.wall)

    def _pause(self, now: Instant) -> float:
        """Seconds until the endpoint may be asked again."""
        opens_at = self.breaker.cooldown.until if self.breaker.state is State.OPEN else 0.0
        return max(0.0, self._retry_at - now.mono, opens_at - now.mono)
