"""Start one embedder: `python -m stages.embedder [instance]`, by default `embedder_00`."""

from __future__ import annotations

import re
import sys

from common import task_types
from common.process import logs, metrics
from common.process.loop import Handlers, Loop, Plan, main
from common.settings import settings
from common.wire import messages
from common.wire.wiring import Wiring
from stages.embedder.actions import BatchProcessed, ProcessBatch
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.engine_news import EngineNews
from stages.embedder.state import Embedder
from stages.embedder.worker_pool import WorkerPool


def start() -> None:
    """Read the settings, put state and edges together, run until SIGTERM."""
    read = settings.read_or_exit()
    logs.set_up(INSTANCE, read.log_level)
    loop = Loop(Wiring(read.sockets_dir, INSTANCE))
    engine = EmbeddingEngine(read)
    state = Embedder(INSTANCE, loop.boot_id, loop.wiring.inbox, read.concurrency_limit)
    metrics.MOCK_MODE.set(read.mode is settings.Mode.MOCK)
    kinds = task_types.registered(default_model=read.default_embedding_model)
    pool = WorkerPool(read.concurrency_limit, kinds, engine, loop.background)
    news = EngineNews(engine, state)

    handlers: Handlers = {
        messages.Batch: state.on_batch, messages.ProviderCooldowns: news.on_cooldowns, messages.Stored: state.on_stored,
        BatchProcessed: news.on_processed,
    }  # fmt: skip
    loop.run(Plan(
        handlers, effects={ProcessBatch: pool.process}, tick=news.on_tick, idle_tick_s=state.idle_tick_s,
        drain=news.on_drain, drained=state.is_drained, last_words=state.on_drained, report=state.report,
    ))  # fmt: skip
    pool.close()
    engine.close()


INSTANCE = sys.argv[1] if len(sys.argv) > 1 else "embedder_00"
if not re.fullmatch(r"embedder_\d{2}", INSTANCE):
    sys.exit(f"{INSTANCE!r} is not a valid instance name (embedder_00 … embedder_99)")
main(INSTANCE, start)
