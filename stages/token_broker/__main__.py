"""Run the token broker: `python -m stages.token_broker`."""

from __future__ import annotations

from common.failures.breaker import Breaker
from common.failures.retry import Backoff
from common.process import logs, loop
from common.process.loop import Loop, Plan
from common.settings.settings import read_or_exit
from common.wire.messages import TokenRequest
from common.wire.wiring import Wiring
from stages.token_broker.issuer import Issuer
from stages.token_broker.state import Ask, Issued, Refused, TokenBroker

INSTANCE = "token_broker"


def start() -> None:
    """Put the stage together and run it."""
    settings = read_or_exit()
    logs.set_up(INSTANCE, settings.log_level)
    wiring = Wiring(settings.sockets_dir, INSTANCE)
    main = Loop(wiring)
    state = TokenBroker(
        clients=[wiring.endpoint("fetcher"), wiring.endpoint("publisher")],
        breaker=Breaker("oauth2", settings.circuit_breaker_threshold),
        backoff=Backoff(first=1.0, factor=settings.retry_backoff_factor),
        patience=settings.request_timeout + 1,  # the edge's own timeout says better what was slow
    )
    issuer = Issuer(settings, main.post)

    main.run(
        Plan(
            handlers={TokenRequest: state.on_request, Issued: state.on_issued, Refused: state.on_refused},
            effects={Ask: issuer.ask},
            tick=state.tick,
            breaker=state.breaker,
            report=state.report,
        )
    )


if __name__ == "__main__":
    loop.main(INSTANCE, start)
