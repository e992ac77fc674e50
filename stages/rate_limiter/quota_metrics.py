"""The metrics of the quota windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from common.process import metrics
from common.wire.parts import QuotaWindow
from stages.rate_limiter.quota.counters import Counts
from stages.rate_limiter.quota.quotas import Quotas


class MeasuredQuotas(Quotas):
    """The quotas, with the duration of each check in a histogram: decisions have no clock."""

    def admits(self, model: str, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """As `Quotas.admits`."""
        with metrics.RATE_LIMIT_CHECK.time():
            return super().admits(model, token_estimates, now)


def show(windows: Iterable[QuotaWindow], ratios: Mapping[str, float]) -> None:
    """Set the gauges. The global limits on tasks have names of their own as well, which dashboards rely on."""
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
