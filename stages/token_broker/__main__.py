"""Start the token broker."""

from __future__ import annotations

from common.failures.breaker import Breaker
from common.failures.retry import Backoff
from common.process import logs
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire.messages import TokenRequest
from common.wire.wiring import Wiring
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.issuer import Issuer
from stages.token_broker.state import TokenBroker


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    logs.set_up("token_broker", read.log_level)
    wiring = Wiring(read.sockets_dir, "token_broker")
    loop = Loop(wiring)
    state = TokenBroker(
        clients=[wiring.endpoint("fetcher"), wiring.endpoint("publisher")],
        breaker=Breaker("oauth2", read.circuit_breaker_threshold),
        backoff=Backoff(first=1.0, factor=read.retry_backoff_factor),
        request_limit_s=read.request_timeout + 1,  # later than the edge's own timeout, which knows what was slow
    )
    issuer = Issuer(read, loop.post)
    handlers: Handlers = {
        TokenRequest: state.on_request,
        TokenIssued: state.on_issued,
        TokenRequestFailed: state.on_request_failed,
    }
    loop.run(
        Plan(
            handlers, effects={RequestToken: issuer.start_request}, tick=state.on_tick, breakers=[state.breaker],
            report=state.report, idle_tick_s=state.idle_tick_s,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main("token_broker", start)
