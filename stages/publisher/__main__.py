"""Start the publisher."""

from __future__ import annotations

from common.api.request_pace import divided
from common.api.responses import ApiResponses
from common.process import clock, logs, metrics
from common.process.actions import Actions, Instant, Report
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.timing import IDLE_TICK_S
from common.wire.wiring import Wiring
from stages.publisher.actions import ResultsSettled, ResultsStored, SendPatch
from stages.publisher.config import PublisherConfig
from stages.publisher.delivery import Delivery
from stages.publisher.outbox import Outbox
from stages.publisher.state import Publisher


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    logs.set_up("publisher", read.log_level)
    loop = Loop(Wiring(read.sockets_dir, "publisher"))
    outbox = Outbox(read.state_dir)
    config = PublisherConfig(
        read.lease_seconds, read.max_retries, read.circuit_breaker_threshold, read.retry_backoff_factor,
        read.api_connections, divided(read.api_requests_per_minute, claim_tasks=read.claim_tasks).publisher,
    )  # fmt: skip
    state = Publisher(config, loop.wiring.inbox, outbox.entries(), outbox.dead(), clock.now())
    state.settled.restore(outbox.settled())
    delivery = Delivery(read, outbox.result, loop.post, loop.watch)

    def on_tick(now: Instant) -> Actions:
        delivery.tick()
        return state.on_tick(now)

    def report(now: Instant) -> Report:
        metrics.OUTBOX_SIZE.set(len(state.entries))
        metrics.DEAD_LETTERS.set(len(state.dead))
        return metrics.show_connections("publisher", state.report(now))

    handlers: Handlers = {
        messages.Results: state.on_results, messages.Draining: state.on_draining,
        messages.Token: state.on_token, messages.ApiReachable: state.on_api_reachable,
        messages.DeadLetters: state.on_dead_letters, ApiResponses: state.on_responses,
        ResultsStored: state.on_stored, ResultsSettled: state.on_settled,
    }  # fmt: skip
    loop.run(
        Plan(
            handlers, writes=outbox.writes, store=outbox.store, commits_beside=True,
            free_effects={SendPatch: delivery.patch}, breakers=[state.breaker], tick=on_tick, drain=state.on_drain,
            drained=state.is_drained, report=report, idle_tick_s=lambda _: None if state.entries else IDLE_TICK_S,
        )
    )  # fmt: skip
    delivery.close()


main("publisher", start)
