"""Start the rate limiter."""

from __future__ import annotations

from common.process import clock, logs
from common.process.actions import Instant, Report
from common.process.loop import Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.rate_limiter import quota_metrics
from stages.rate_limiter.quota_store import Windows
from stages.rate_limiter.state import Limits, RateLimiter


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    config = settings.read_or_exit()
    logs.set_up("rate_limiter", config.log_level)
    loop = Loop(Wiring(config.sockets_dir, "rate_limiter"))
    windows = Windows(config, config.state_dir)
    limits = Limits(
        config.embed_batch_size,
        config.lease_seconds,
        config.hold_seconds,
        config.max_dispatches,
    )
    state = RateLimiter(limits, windows, loop.boot_id, clock.now())

    def report(now: Instant) -> Report:
        told = state.report(now)
        quota_metrics.show(told.windows, state.charging.ratios.by_model())
        return told

    loop.run(
        Plan(
            handlers={messages.Tasks: state.tasks, messages.Ready: state.ready, messages.Finished: state.finished},
            writes=windows.writes,
            store=windows.store,
            breaker=state.suspects.breaker,
            tick=state.tick,
            drain=state.drain,
            report=report,
        )
    )


main("rate_limiter", start)
