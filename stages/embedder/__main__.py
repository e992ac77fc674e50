"""Start one embedder: `python -m stages.embedder [instance]`, by default `embedder_00`."""

from __future__ import annotations

import re
import sys

from common import task_types
from common.process import logs, metrics
from common.process.actions import Actions, Instant
from common.process.loop import Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.embedder.engine import Embedding
from stages.embedder.state import Embedder, Process, Processed
from stages.embedder.worker_pool import Workshop


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    config = settings.read_or_exit()
    logs.set_up(INSTANCE, config.log_level)
    loop = Loop(Wiring(config.sockets_dir, INSTANCE))
    embedding = Embedding(config)
    state = Embedder(INSTANCE, loop.boot_id, loop.wiring.inbox, config.concurrency_limit)
    metrics.MOCK_MODE.set(config.mode is settings.Mode.MOCK)
    workshop = Workshop(config.concurrency_limit, task_types.registered(), embedding, loop.background)

    def tick(now: Instant) -> Actions:
        state.paused = embedding.paused(now.wall)
        state.patience = embedding.patience(now)
        state.blockers = embedding.blockers()
        state.facts = {**embedding.facts, "notices": embedding.remarks()}
        return state.tick(now)

    def patience(message: messages.ProviderCooldowns, now: Instant) -> Actions:
        embedding.obey(message.until, now)
        return tick(now)

    def drain(now: Instant) -> Actions:
        embedding.stop()
        return state.drain(now)

    loop.run(
        Plan(
            handlers={
                messages.Batch: state.batch,
                messages.ProviderCooldowns: patience,
                messages.Stored: state.stored,
                Processed: state.processed,
            },
            effects={Process: workshop.process},
            tick=tick,
            drain=drain,
            drained=state.drained,
            report=state.report,
        )
    )
    workshop.close()
    embedding.close()


INSTANCE = sys.argv[1] if len(sys.argv) > 1 else "embedder_00"
if not re.fullmatch(r"embedder_\d{2}", INSTANCE):
    sys.exit(f"{INSTANCE!r} is no instance of the embedder: embedder_00 to embedder_99 are")
main(INSTANCE, start)
