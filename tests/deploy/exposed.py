"""The names of all series that /metrics can expose."""

from __future__ import annotations

from functools import cache

from common.process.actions import Instant
from common.process.metrics import REGISTRY
from stages.monitor import pages
from stages.monitor.view import View

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
"""The suffixes that Prometheus adds to the name of a metric, by type."""


@cache
def exposed() -> frozenset[str]:
    """The metrics of the processes, those that the monitor adds, and `up`, which Prometheus adds."""
    now = Instant(0.0, 0.0)
    counted = [(metric.name, metric.type) for metric in REGISTRY.collect()]
    view = View(["fetcher"], now)
    families = [*pages._readiness(view, now), *pages._processes(view, now)]
    added = [(family.name, family.kind) for family in families]
    return frozenset({"up", *(name + suffix for name, kind in counted + added for suffix in SUFFIXES[kind])})
