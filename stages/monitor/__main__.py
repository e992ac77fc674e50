"""Start the monitor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from common.failures.errors import SettingsError
from common.process import clock, logs
from common.process.actions import Instant, Report
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire.messages import Heartbeat
from common.wire.timing import HEARTBEAT_INTERVAL_S
from common.wire.wiring import Wiring
from stages.monitor.actions import AskExpected, ExpectedInstances, PublishView
from stages.monitor.pages import Pages, expected_instances
from stages.monitor.server import PageServer
from stages.monitor.state import Monitor


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    log = logs.set_up("monitor", read.log_level)
    loop = Loop(Wiring(read.sockets_dir, "monitor"))
    state = Monitor(expected_instances(read), clock.now())
    pages = Pages(read, state.view)
    server = PageServer(read.metrics_port, pages.answer)
    server.start()
    for sentence in settings.unknown_variables():
        log.warning("unknown_setting", reason=sentence)
    log.info("server_started", port=server.port, pages=["/health", "/ready", "/metrics"])

    def report(_: Instant) -> Report:
        return Report(facts={"port": server.port})

    def ask_expected(_: AskExpected) -> None:
        with contextlib.suppress(SettingsError):  # `.env` is being edited
            loop.post(ExpectedInstances(expected_instances(settings.read())))

    handlers: Handlers = {Heartbeat: state.on_heartbeat, ExpectedInstances: state.on_expected}
    effects: dict[type, Callable[[Any], None]] = {PublishView: pages.publish, AskExpected: ask_expected}
    loop.run(
        Plan(handlers, effects=effects, tick=state.on_tick, idle_tick_s=lambda _: HEARTBEAT_INTERVAL_S, report=report)
    )
    server.stop()


if __name__ == "__main__":
    main("monitor", start)
