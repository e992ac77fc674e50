"""What /metrics shows of the windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.process import metrics
from common.wire.messages import QuotaWindow


def show(windows: Iterable[QuotaWindow], ratios: Mapping[str, float]) -> None:
    """Set the gauges: those of the global limits on tasks have names of their own, which dashboards rely on."""
    metrics.WINDOW_EXHAUSTED.clear()  # a forecast that no longer holds must not stay
    for window in windows:
        labels = window.scope, window.unit, window.period
        metrics.WINDOW_USAGE.labels(*labels).set(window.current)
        metrics.WINDOW_LIMIT.labels(*labels).set(window.limit)
        metrics.WINDOW_RESET.labels(*labels).set(window.reset_at)
        if window.exhausted_at is not None:
            metrics.WINDOW_EXHAUSTED.labels(*labels).set(window.exhausted_at)
        if window.unit == "tasks" and not window.scope:
            metrics.RATE_LIMIT_USAGE.labels(window.period).set(window.current)
            metrics.RATE_LIMIT_MAX.labels(window.period).set(window.limit)
            metrics.RATE_LIMIT_REMAINING.labels(window.period).set(window.remaining)
    for model, ratio in ratios.items():
        metrics.TOKEN_RATIO.labels(metrics.model_label(model)).set(ratio)
