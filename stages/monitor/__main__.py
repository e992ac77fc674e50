"""Start the monitor."""

from __future__ import annotations

import structlog

from common.process import clock, logs
from common.process.actions import Instant, Report
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire.messages import Heartbeat
from common.wire.wiring import Wiring
from stages.monitor.actions import PublishView
from stages.monitor.pages import Pages, expected_instances
from stages.monitor.server import PageServer
from stages.monitor.state import Monitor


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    logs.set_up("monitor", read.log_level)
    loop = Loop(Wiring(read.sockets_dir, "monitor"))
    state = Monitor(expected_instances(read), clock.now())
    pages = Pages(read, state.view)
    server = PageServer(read.metrics_port, pages.answer)
    server.start()
    structlog.get_logger().info("server_started", port=server.port, pages=["/health", "/ready", "/metrics"])

    def report(_: Instant) -> Report:
        return Report(facts={"port": server.port})

    handlers: Handlers = {Heartbeat: state.on_heartbeat}
    loop.run(Plan(handlers, effects={PublishView: pages.publish}, report=report))
    server.stop()


if __name__ == "__main__":
    main("monitor", start)
