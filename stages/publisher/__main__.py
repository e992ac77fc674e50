"""Start the publisher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.api.responses import ApiResponses
from common.process import clock, logs, metrics
from common.process.actions import Instant, Report
from common.process.loop import Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.publisher.actions import Patch
from stages.publisher.delivery import Delivery
from stages.publisher.outbox import Outbox
from stages.publisher.state import Limits, Publisher


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    config = settings.read_or_exit()
    logs.set_up("publisher", config.log_level)
    loop = Loop(Wiring(config.sockets_dir, "publisher"))
    outbox = Outbox(config.state_dir)
    limits = Limits(
        config.lease_seconds, config.max_retries, config.circuit_breaker_threshold, config.retry_backoff_factor
    )
    state = Publisher(limits, loop.wiring.inbox, outbox.entries(), outbox.dead(), clock.now())
    for record in outbox.settled():
        state.settled.add(record)
    delivery = Delivery(config, outbox.result, loop.post, loop.watch)

    def tick(now: Instant) -> Iterable[Any]:
        delivery.tick()
        return state.tick(now)

    def report(now: Instant) -> Report:
        metrics.OUTBOX_SIZE.set(len(state.entries))
        metrics.DEAD_LETTERS.set(len(state.dead))
        return state.report(now)

    loop.run(
        Plan(
            handlers={
                messages.Results: state.results,
                messages.Token: state.token,
                messages.DeadLetters: state.dead_letters,
                ApiResponses: state.answers,
            },
            writes=outbox.writes,
            effects={Patch: delivery.patch},
            store=outbox.store,
            breaker=state.breaker,
            tick=tick,
            drain=state.drain,
            drained=lambda now: state.drained(now) and not loop.sockets.others_draining("embedder"),
            report=report,
        )
    )
    delivery.close()


main("publisher", start)
