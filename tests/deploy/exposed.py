"""The names of all series that /metrics may show."""

from __future__ import annotations

from functools import cache

from common.process.actions import Instant
from common.process.metrics import REGISTRY
from stages.monitor import pages
from stages.monitor.state import View

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
"""What Prometheus adds to a metric's name, by its kind."""


@cache
def exposed() -> frozenset[str]:
    """What the processes count, what the monitor adds, and what Prometheus itself knows of a target."""
    now = Instant(0.0, 0.0)
    counted = [(metric.name, metric.type) for metric in REGISTRY.collect()]
    added = [(family.name, family.kind) for family in pages._processes(View(["fetcher"], now), now)]
    return frozenset({"up", *(name + suffix for name, kind in counted + added for suffix in SUFFIXES[kind])})
