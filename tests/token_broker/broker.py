"""A token broker for the tests of its state, which need no socket, request or clock."""

from __future__ import annotations

from typing import Any

from common.failures.breaker import Breaker
from common.failures.errors import Permanent, Transient
from common.failures.retry import Backoff
from common.process.actions import Instant, Log, Send
from common.wire.messages import Token, TokenRequest
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.state import TokenBroker

REQUEST_LIMIT_S = 31.0
"""REQUEST_TIMEOUT and one second."""


class Broker:
    """A token broker whose clock the test sets. `rand` is its random number; 1.0 gives the full back-off."""

    def __init__(self, rand: float = 1.0, threshold: int = 100) -> None:
        self.state = TokenBroker(
            clients=["fetcher", "publisher"],
            breaker=Breaker("oauth2", threshold, Backoff(first=7.0, factor=1.0, longest=7.0)),
            backoff=Backoff(first=1.0, factor=2.0),
            request_limit_s=REQUEST_LIMIT_S,
            rand=lambda: rand,
        )
        self.now = Instant(1000.0, 5_000_000.0)

    def after(self, seconds: float) -> Broker:
        self.now = Instant(self.now.mono + seconds, self.now.wall + seconds)
        return self

    def tick(self) -> list[Any]:
        return list(self.state.on_tick(self.now))

    def request(self, reply_to: str = "asker", rejected: str = "", *, has_worked: bool = False) -> list[Any]:
        return list(self.state.on_request(TokenRequest(reply_to, rejected, has_worked), self.now))

    def issue(self, token: str, lifetime_s: float | None, number: int) -> list[Any]:
        return list(self.state.on_issued(TokenIssued(number, token, lifetime_s), self.now))

    def fail(self, error: Transient | Permanent, number: int) -> list[Any]:
        return list(self.state.on_request_failed(TokenRequestFailed(number, error), self.now))

    def holding(self, life: float | None = 3600.0) -> Broker:
        """Get the first token, which is `first`."""
        assert self.tick() == [RequestToken(1)]
        self.issue("first", life, 1)
        return self

    def seconds_to(self, actions: list[Any], at_most: float, step: float = 0.1) -> float:
        """The seconds until a tick returns these actions."""
        began = self.now.mono
        while (found := self.tick()) != actions:
            assert found == [], found
            assert self.now.mono - began <= at_most, f"not within {at_most} s"
            self.after(step)
        return self.now.mono - began


def sent(actions: list[Any]) -> dict[str, str]:
    """Inbox → access token."""
    return {a.to: a.message.access_token for a in actions if isinstance(a, Send) and isinstance(a.message, Token)}


def logged(actions: list[Any]) -> list[Log]:
    return [action for action in actions if isinstance(action, Log)]
