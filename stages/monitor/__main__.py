"""Start the monitor."""

from __future__ import annotations

import structlog

from common.process import clock, logs, loop
from common.process.actions import Report
from common.process.loop import Loop, Plan
from common.settings.settings import read_or_exit
from common.wire.messages import Heartbeat
from common.wire.wiring import Wiring
from stages.monitor.actions import PublishView
from stages.monitor.pages import Pages, expected_instances
from stages.monitor.server import PageServer
from stages.monitor.state import Monitor

INSTANCE = "monitor"


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    settings = read_or_exit()
    logs.set_up(INSTANCE, settings.log_level)
    main = Loop(Wiring(settings.sockets_dir, INSTANCE))
    state = Monitor(expected_instances(settings), clock.now())
    pages = Pages(settings, state.view)
    server = PageServer(settings.metrics_port, pages.answer)
    server.start()
    structlog.get_logger().info("server_started", port=server.port, pages=["/health", "/ready", "/metrics"])
    main.run(
        Plan(
            handlers={Heartbeat: state.on_heartbeat},
            effects={PublishView: pages.publish},
            report=lambda _: Report(facts={"port": server.port}),
        )
    )
    server.stop()


if __name__ == "__main__":
    loop.main(INSTANCE, start)
