"""Start the fetcher."""

from __future__ import annotations

from common import task_types
from common.api.responses import ApiResponses
from common.process import clock, logs, metrics, zero_series
from common.process.actions import Actions, Instant, Report
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.fetcher.actions import Claim, Poll, PollFailed
from stages.fetcher.claim_requests import ClaimRequests
from stages.fetcher.config import FetcherConfig
from stages.fetcher.lease_store import LeaseStore
from stages.fetcher.page import PendingPage, Reader
from stages.fetcher.shard import Shard
from stages.fetcher.state import Fetcher
from stages.fetcher.upstream import Upstream


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    config = settings.read_or_exit()
    logs.set_up("fetcher", config.log_level)
    loop = Loop(Wiring(config.sockets_dir, "fetcher"))
    store = LeaseStore(config.state_dir)
    state = Fetcher(FetcherConfig(
        config.max_in_flight, config.lease_seconds, config.max_dispatches, config.polling_interval_seconds,
        config.circuit_breaker_threshold, config.retry_backoff_factor, config.claim_tasks, config.api_connections,
        config.api_requests_per_minute,
    ), loop.wiring.inbox, store.leases(), store.dead(), clock.now(), store.settled())  # fmt: skip
    kinds = task_types.registered(config.counts_tokens, config.default_embedding_model)
    zero_series.begin_task_types(kinds)
    upstream = Upstream(config, Reader(kinds, Shard(config.shard_index, config.shard_count)), loop.background)
    claims = ClaimRequests(config, loop.post, loop.watch)

    def tick(now: Instant) -> Actions:
        claims.tick()
        return state.on_tick(now)

    def report(now: Instant) -> Report:
        metrics.TASKS_IN_FLIGHT.set(state.table.leased_count)
        return metrics.show_connections("fetcher", state.report(now))

    handlers: Handlers = {
        messages.Token: state.on_token, messages.Published: state.on_published, messages.Holding: state.on_holding,
        messages.Deferred: state.on_deferred, PendingPage: state.on_page, PollFailed: state.on_poll_failed,
        ApiResponses: state.on_api_responses,
    }  # fmt: skip
    loop.run(Plan(
        handlers, store.writes, {Poll: upstream.poll, Claim: claims.claim}, store.store, state.breakers, tick,
        state.on_drain, report=report, idle_tick_s=state.idle_tick_s,
    ))  # fmt: skip
    upstream.close()


main("fetcher", start)
