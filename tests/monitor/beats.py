"""Heartbeats for the tests."""

from __future__ import annotations

from typing import Any

from common.process.actions import Instant
from common.wire.messages import Heartbeat
from common.wire.parts import Family, Sample
from common.wire.wiring import stage_of

START = Instant(1000.0, 1_800_000_000.0)
ALL = ("fetcher", "token_broker", "rate_limiter", "embedder_00", "publisher", "monitor")


def later(seconds: float) -> Instant:
    return Instant(START.mono + seconds, START.wall + seconds)


def beat(instance: str, boot: str = "boot", **changes: Any) -> Heartbeat:
    fields: dict[str, Any] = {"blockers": [], "facts": {}, **changes}
    return Heartbeat(stage_of(instance), instance, boot, 123, START.wall, **fields)


def counter(name: str, value: float, **labels: str) -> Family:
    return Family(name, "counter", "help", [Sample(f"{name}_total", labels, value)])


def gauge(name: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", "help", [Sample(name, labels, value)])


def histogram(name: str, *buckets: float, **labels: str) -> Family:
    """Cumulative counts for the bounds 1, 2, … and +Inf; the sum is ten times the count."""
    bounds = [*(f"{bound}.0" for bound in range(1, len(buckets))), "+Inf"]
    samples = [Sample(f"{name}_bucket", {**labels, "le": bound}, n) for bound, n in zip(bounds, buckets, strict=True)]
    samples += [Sample(f"{name}_count", labels, buckets[-1]), Sample(f"{name}_sum", labels, 10 * buckets[-1])]
    return Family(name, "histogram", "help", samples)


def values(families: list[Family]) -> dict[str, float]:
    """`name{label=value}` → value."""
    return {_shown(sample): sample.value for family in families for sample in family.samples}


def _shown(sample: Sample) -> str:
    labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name
