"""What the quotas cost for one batch.

A check of all fifteen windows and a charge, for 256 waiting tasks, in two scopes (global, and the model's own), with a
limit on every window. The target is under 50 µs, fsync not included. "Clock moving" turns the minute's ring on at
each call, as half a second between batches does; "clock standing" is the cost when batches follow at once.

A commit writes the windows of both scopes to LMDB, with its two flushes, as each batch does before it leaves. What it
takes is the disk's: say which one, when you compare (the folder is TMPDIR).
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from statistics import quantiles

import numpy as np

from bench.figures import Report
from bench.sizes import Size
from common.process.store import Store
from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.counters import WINDOWS
from stages.rate_limiter.quota.quotas import Quotas

BATCH = 256
USAGE_ROUNDS = 200
COMMIT_ROUNDS = 1_000
START = 1_760_000_000.0
MODEL = "text-embedding-3-small"


def measure(report: Report, size: Size) -> None:
    """Measure every step `size.tasks` times in each run, the slow ones less often."""
    for _ in range(size.runs):
        for strategy in Strategy:
            for step, clock in ((0.0, "clock standing"), (0.5, "clock moving")):
                add(report, f"{strategy}: check and charge, {clock}", check_and_charge(strategy, step), size.tasks)
            add(report, f"{strategy}: settle", settle(strategy), size.tasks)
            add(report, f"{strategy}: dump", new_quotas(strategy).dump, size.tasks)
        add(report, "rolling: usage and forecasts of 30 windows", usage(), min(size.tasks, USAGE_ROUNDS))
        with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder), "quota", ("quota",))) as store:
            add(report, "commit to LMDB, with fsync", commit(store), min(size.tasks, COMMIT_ROUNDS))
            report.add("commits one after another, with fsync", "/s", commits_a_second(store, size.seconds))
        report.add("a dump", "bytes", len(new_quotas(Strategy.ROLLING).dump()))


def new_quotas(strategy: Strategy) -> Quotas:
    """Return quotas with a limit on every window of both scopes."""
    limits = dict.fromkeys(WINDOWS, 10**12)
    return Quotas(limits, {MODEL: limits}, strategy, "Europe/Berlin")


def check_and_charge(strategy: Strategy, step: float) -> Callable[[], object]:
    """Return one batch's work, `step` seconds after the last."""
    quotas, clock = new_quotas(strategy), count()
    estimates = np.full(BATCH, 300)

    def once() -> None:
        now = START + step * next(clock)
        quotas.requests_left(MODEL, now)  # bounds the batch, and then what it is charged with
        admitted = quotas.admits(MODEL, estimates, now)
        quotas.requests_left(MODEL, now)
        quotas.charge(MODEL, Amounts(admitted, int(estimates[:admitted].sum()), 1), now)

    return once


def settle(strategy: Strategy) -> Callable[[], object]:
    """Return the settlement of one batch."""
    quotas = new_quotas(strategy)
    receipt = quotas.charge(MODEL, Amounts(BATCH, 10**9, 1), START)
    return lambda: quotas.settle(receipt, 1_000, 900, START + 3)


def commit(store: Store) -> Callable[[], object]:
    """Return what a batch waits for before it leaves."""
    quotas, clock = new_quotas(Strategy.ROLLING), count()

    def once() -> None:
        quotas.charge(MODEL, Amounts(BATCH, 1_000, 1), START + 0.03 * next(clock))
        store.put("quota", b"windows", quotas.dump())
        store.commit()

    return once


def commits_a_second(store: Store, seconds: float) -> float:
    """Return how many batches could leave one after the other."""
    once, done, begin = commit(store), 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        once()
        done += 1
    return done / (time.perf_counter() - begin)


def usage() -> Callable[[], object]:
    """Return what a heartbeat asks for."""
    quotas = new_quotas(Strategy.ROLLING)
    quotas.charge(MODEL, Amounts(BATCH, 10**9, 1), START)
    return lambda: quotas.usage(START + 1)


def add(report: Report, name: str, once: Callable[[], object], rounds: int) -> None:
    """Time single calls, and add their median and 99th percentile."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        once()
        taken.append((time.perf_counter_ns() - begin) / 1_000)
    cuts = quantiles(taken, n=100, method="inclusive")
    report.add(f"{name}: p50", "µs/batch", cuts[49])
    report.add(f"{name}: p99", "µs/batch", cuts[98])
