"""More embedders: the throughput with 1 to 8 of them, when a request to the provider takes 50 ms.

Each embedder has one request of 16 texts under way, so that the provider's pace is the limit and not this machine: one
embedder can do at most 320 tasks a second.
"""

from __future__ import annotations

from bench.figures import Report
from bench.running import run_pipeline, stand_ins
from bench.sizes import Size

REQUEST_S = 0.05
BATCH = 16
SETTINGS = {"PROCESSING_MODE": "openai", "CONCURRENCY_LIMIT": 1, "EMBED_BATCH_SIZE": BATCH, "EMBEDDING_CACHE_SIZE": 0}
BOUND_PER_EMBEDDER = BATCH / REQUEST_S
"""Tasks a second that one embedder can do at most."""


def measure(report: Report, size: Size) -> None:
    """Measure each number of embedders with as many tasks for each of them."""
    for _ in range(size.runs):
        first = 0.0
        for embedders in size.steps:
            with stand_ins() as sandbox:
                sandbox.settings(openai={"latency_seconds": REQUEST_S})
                run = run_pipeline(sandbox, size.tasks * embedders, EMBEDDER_PROCESSES=embedders, **SETTINGS)
            first = first or run.rate / embedders
            report.add(f"embedders {embedders}: throughput", "tasks/s", run.rate)
            report.add(f"embedders {embedders}: against {size.steps[0]}", "times", run.rate / first)
            report.add(f"embedders {embedders}: of what the provider allows", "%",
                       100 * run.rate / (embedders * BOUND_PER_EMBEDDER))  # fmt: skip
