"""Start the fetcher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common import task_types
from common.api.responses import ApiResponses
from common.process import clock, logs, metrics
from common.process.actions import Instant, Report
from common.process.loop import Loop, Plan, main
from common.settings import settings
from common.settings.settings import Settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.claim_requests import Claims
from stages.fetcher.claiming import Claim, ClaimingFetcher
from stages.fetcher.lease_store import Leases
from stages.fetcher.page import Page, Reader
from stages.fetcher.shard import Shard
from stages.fetcher.state import Fetcher, Limits
from stages.fetcher.upstream import Upstream


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    config = settings.read_or_exit()
    logs.set_up("fetcher", config.log_level)
    loop = Loop(Wiring(config.sockets_dir, "fetcher"))
    leases = Leases(config.state_dir)
    kind = ClaimingFetcher if config.claim_tasks else Fetcher
    state = kind(_limits(config), loop.wiring.inbox, leases.leases(), leases.dead(), clock.now())
    for record in leases.settled():
        state.settled.add(record)
    shard = Shard(config.shard_index, config.shard_count)
    upstream = Upstream(config, Reader(task_types.registered(config.counts_tokens), shard), loop.background)

    def report(now: Instant) -> Report:
        metrics.TASKS_IN_FLIGHT.set(len(state.leases))
        return state.report(now)

    plan = Plan(
        handlers={
            messages.Token: state.token,
            messages.Published: state.published,
            messages.Holding: state.holding,
            messages.Deferred: state.given_back,
            Page: state.page,
            PollFailed: state.poll_failed,
        },
        writes=leases.writes,
        effects={Poll: upstream.poll},
        store=leases.store,
        breaker=state.breaker,
        tick=state.tick,
        drain=state.drain,
        report=report,
    )
    if isinstance(state, ClaimingFetcher):
        _claim(plan, state, Claims(config, loop.post, loop.watch))
    loop.run(plan)
    upstream.close()


def _limits(config: Settings) -> Limits:
    return Limits(
        config.max_in_flight,
        config.lease_seconds,
        config.max_dispatches,
        config.polling_interval_seconds,
        config.circuit_breaker_threshold,
        config.retry_backoff_factor,
    )


def _claim(plan: Plan, state: ClaimingFetcher, claims: Claims) -> None:
    """Add to the plan what claims need."""

    def tick(now: Instant) -> Iterable[Any]:
        claims.tick()
        return state.tick(now)

    plan.handlers = {**plan.handlers, ApiResponses: state.answers}
    plan.effects = {**plan.effects, Claim: claims.claim}
    plan.tick = tick


main("fetcher", start)
