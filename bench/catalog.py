"""The benchmarks by name, what each is about, and how large it is in each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench import embedding, floor, idle, latency, memory, pages, quota, reuse, scaling, soak, stages, start
from bench.figures import Report
from bench.peers import comparison
from bench.sizes import Size


class Benchmark(NamedTuple):
    """One benchmark."""

    measure: Callable[[Report, Size], None]
    """Adds its figures to the report."""
    about: str
    """What it measures, in a line."""
    full: Size
    """Its size in `make bench`, and alone."""
    tiny: Size
    """Its size in the tests of the benchmarks: it only has to work."""
    quick: Size | None = None
    """Its size in `make bench-quick`; None: it is not part of it."""


BENCHMARKS: dict[str, Benchmark] = {
    "peers": Benchmark(
        comparison.measure,
        "the pipeline against a bare script, BullMQ and Celery on the same tasks",
        Size(tasks=60_000, runs=3),
        Size(tasks=50),
        Size(tasks=12_000),
    ),
    "floor": Benchmark(
        floor.measure,
        "the work that no program can avoid: base64, JSON, PATCH, outbox",
        Size(tasks=20_000, runs=5),
        Size(tasks=50),
        Size(tasks=10_000),
    ),
    "stages": Benchmark(
        stages.measure,
        "CPU time a task of each process, and how busy it is at full speed",
        Size(tasks=60_000, runs=3),
        Size(tasks=50),
    ),
    "pages": Benchmark(
        pages.measure,
        "how often each pending task is read from the API",
        Size(tasks=30_000),
        Size(tasks=60),
    ),
    "latency": Benchmark(
        latency.measure,
        "from queueing a task to its accepted PATCH, in an idle pipeline",
        Size(tasks=200, runs=3),
        Size(tasks=3),
        Size(tasks=40),
    ),
    "scaling": Benchmark(
        scaling.measure,
        "throughput with 1 to 8 embedders and a provider of 50 ms a request",
        Size(tasks=3_000, steps=(1, 2, 3, 4, 6, 8)),
        Size(tasks=20, steps=(1,)),
    ),
    "memory": Benchmark(
        memory.measure,
        "PSS of all processes and supervisord, idle and at full speed",
        Size(tasks=60_000, runs=3),
        Size(tasks=50),
        Size(tasks=10_000),
    ),
    "start": Benchmark(
        start.measure,
        "from supervisord's start to the first accepted PATCH",
        Size(runs=5),
        Size(),
        Size(),
    ),
    "idle": Benchmark(
        idle.measure,
        "CPU time and wake-ups of an idle pipeline",
        Size(seconds=60, runs=2),
        Size(seconds=0.5),
    ),
    "soak": Benchmark(
        soak.measure,
        "rate, memory, disk and descriptors over a long run (1,000,000 tasks: --tasks 1000000)",
        Size(tasks=200_000),
        Size(tasks=100),
    ),
    "embedding": Benchmark(
        embedding.measure,
        "CPU time an input from the provider's response to a checked vector",
        Size(seconds=3, runs=3),
        Size(seconds=0.01),
    ),
    "quota": Benchmark(
        quota.measure,
        "what the quotas cost for a batch, and a commit",
        Size(tasks=5_000, seconds=2, runs=3),
        Size(tasks=5, seconds=0.05),
    ),
    "reuse": Benchmark(
        reuse.measure,
        "what recalling and publishing a vector on disk costs",
        Size(tasks=10_240, runs=3, steps=(1, 2)),
        Size(tasks=512, steps=(1,)),
    ),
}
