"""Start the rate limiter."""

from __future__ import annotations

from common.process import clock, logs
from common.process.actions import Instant, Report
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.timing import IDLE_TICK_S, renewal_interval_s
from common.wire.wiring import Wiring
from stages.rate_limiter import quota_metrics
from stages.rate_limiter.quota_store import QuotaStore
from stages.rate_limiter.state import RateLimiter, RateLimiterConfig


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    logs.set_up("rate_limiter", read.log_level)
    loop = Loop(Wiring(read.sockets_dir, "rate_limiter"))
    now = clock.now()
    windows = QuotaStore(read, read.state_dir, now.wall)
    config = RateLimiterConfig(read.embed_batch_size, read.lease_seconds, read.hold_seconds, read.max_dispatches)
    state = RateLimiter(config, windows.quotas, loop.boot_id, now)
    state.learning.expect(loop.sockets.living("embedder"))

    def idle_tick_s(_: Instant) -> float | None:
        is_busy = state.owned or not state.learning.is_told
        return None if is_busy else min(IDLE_TICK_S, renewal_interval_s(read.lease_seconds) / 3)

    def report(now: Instant) -> Report:
        told = state.report(now)
        quota_metrics.show(told.windows, state.charging.ratios.by_model())
        return told

    handlers: Handlers = {
        messages.Tasks: state.on_tasks,
        messages.Ready: state.on_ready,
        messages.Finished: state.on_finished,
    }
    loop.run(
        Plan(
            handlers, writes=windows.writes, store=windows.store, breakers=[state.quarantine.breaker],
            tick=state.on_tick, idle_tick_s=idle_tick_s, drain=state.on_drain, report=report,
        )
    )  # fmt: skip


main("rate_limiter", start)
