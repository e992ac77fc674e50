"""Start the rate limiter."""

from __future__ import annotations

from common import clock, logs, messages, settings
from common.actions import Report
from common.instant import Instant
from common.loop import Loop, Plan, main
from common.wiring import Wiring
from stages.rate_limiter import gauges
from stages.rate_limiter.state import Limits, RateLimiter
from stages.rate_limiter.windows import Windows


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
        gauges.show(told.windows, state.charging.ratios.by_model())
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
