"""The token broker on the simulated machine, and the token endpoint that it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from common.failures.breaker import Breaker
from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.wire import messages as m
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.state import TokenBroker
from tests.simulator.process import Process
from tests.simulator.world import World

CLIENTS = ("ipc://fetcher", "ipc://publisher")
REQUEST_LIMIT_S = 31.0


class TokenEndpoint:
    """Issues tokens; `mode` says how it responds now: normal, down, throttled, refusing or hanging."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.mode = "normal"
        self._ends: dict[str, float] = {}
        """Token → when it ends, in simulated seconds."""

    def issue(self, number: int) -> TokenIssued | TokenRequestFailed:
        """Respond to a request."""
        match self.mode:
            case "down":
                return TokenRequestFailed(number, Transient("the token endpoint answered 503"))
            case "throttled":
                return TokenRequestFailed(number, Throttled("the token endpoint answered 429", 5.0))
            case "refusing":
                return TokenRequestFailed(number, Permanent("the token endpoint answered invalid_client"))
        token, lifetime_s = f"secret {len(self._ends)}", self.world.random.choice((20.0, 60.0, 600.0, None))
        self._ends[token] = self.world.now + (lifetime_s or 600.0)
        return TokenIssued(number, token, lifetime_s)

    def accepts(self, token: m.Token) -> bool:
        """Whether the API accepts the token."""
        return self._ends.get(token.access_token, 0.0) > self.world.now

    def revoke(self) -> None:
        """End every token that was issued."""
        self._ends = dict.fromkeys(self._ends, 0.0)


class BrokerProcess(Process):
    """Nothing is on disk."""

    def __init__(self, world: World, endpoint: TokenEndpoint) -> None:
        super().__init__(world, "token_broker")
        self.endpoint = endpoint

    def begin(self) -> None:
        self.state = TokenBroker(CLIENTS, Breaker("oauth2", 5), Backoff(first=1.0, factor=2.0), REQUEST_LIMIT_S)

    def handle(self, message: Any) -> Iterable[Any]:
        handlers: dict[type, Callable[..., Iterable[Any]]] = {
            m.TokenRequest: self.state.on_request,
            TokenIssued: self.state.on_issued,
            TokenRequestFailed: self.state.on_request_failed,
        }
        return handlers[type(message)](message, self.world.instant)

    def tick(self) -> Iterable[Any]:
        return self.state.on_tick(self.world.instant)

    def drain(self) -> Iterable[Any]:
        return ()

    def effect(self, action: Any) -> None:
        if not isinstance(action, RequestToken) or self.endpoint.mode == "hanging":
            return
        life = self.life

        def answer() -> None:
            outcome = self.endpoint.issue(action.number)
            self.world.tell("endpoint", f"answers token request {action.number}: {type(outcome).__name__}")
            self.world.later(self.world.random.choice((0.01, 0.3)), lambda: self.receive(outcome, life))

        self.world.later(self.world.random.choice((0.01, 0.1)), answer)
