"""The ratio of reported to estimated tokens, and the gauges of the quota windows in /metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest

from common.process import metrics
from common.wire.parts import QuotaWindow
from stages.rate_limiter import quota_metrics
from stages.rate_limiter.token_ratio import MOST_MODELS, WEIGHT_OF_THE_PAST, TokenRatios
from tests.rate_limiter.limiter import Limiter

SAMPLE = ("", "tokens", "hour")


def test_the_token_ratio_is_a_slow_moving_ratio_of_sums() -> None:
    ratios = TokenRatios()
    ratios.learn("small", 100, 20)
    ratios.learn("small", 100, 40)
    assert ratios.by_model() == {
        "small": pytest.approx((20 * WEIGHT_OF_THE_PAST + 40) / (100 * WEIGHT_OF_THE_PAST + 100))
    }
    for _ in range(1000):
        ratios.learn("small", 100, 100)
    assert ratios.by_model()["small"] == pytest.approx(1.0, abs=0.001)


def test_the_token_ratio_ignores_zero_tokens_and_keeps_a_limited_number_of_models() -> None:
    ratios = TokenRatios()
    ratios.learn("small", 0, 0)
    ratios.learn("small", 10, 0)
    assert ratios.by_model() == {}
    for number in range(MOST_MODELS + 5):
        ratios.learn(f"model {number}", 4, 1)
    assert len(ratios.by_model()) == MOST_MODELS


def test_the_token_ratio_learns_only_from_batches_sent_completely_in_one_request() -> None:
    limiter = Limiter()
    learnt = limiter.state.charging.ratios
    finishes: list[dict[str, Any]] = [{"uncharged": 1}, {"requests": 2}, {"deferred": ["a"]}, {"requeue": {1: ["a"]}}]
    for number, fields in enumerate(finishes):
        limiter.ready(1)
        limiter.tasks(f"a{number}", f"b{number}", tokens=8)
        limiter.finished(limiter.batch, **{"tokens": 4, **fields})
        assert learnt.by_model() == {}
    limiter.ready(1)
    limiter.tasks("c", "d", tokens=8)
    limiter.finished(limiter.batch, tokens=4)
    assert list(learnt.by_model().values()) == [0.25]


def value(gauge: str, labels: dict[str, str]) -> float | None:
    return metrics.REGISTRY.get_sample_value(gauge, labels)


def test_every_window_has_gauges_and_its_forecast_is_shown_only_while_it_holds() -> None:
    labels = dict(zip(("scope", "unit", "period"), SAMPLE, strict=True))
    quota_metrics.show([QuotaWindow(*SAMPLE, 5, 10, 5, 1e9, 2e9)], {"small": 0.5})
    assert value("rate_limit_window_current", labels) == 5
    assert value("rate_limit_window_limit", labels) == 10
    assert value("rate_limit_window_reset_timestamp_seconds", labels) == 1e9
    assert value("rate_limit_exhausted_timestamp_seconds", labels) == 2e9
    assert value("rate_limit_token_ratio", {"model": "small"}) == 0.5
    quota_metrics.show([QuotaWindow(*SAMPLE, 5, 10, 5, 1e9)], {})
    assert value("rate_limit_exhausted_timestamp_seconds", labels) is None
    assert not any(math.isnan(sample.value) for family in metrics.snapshot() for sample in family.samples)
    assert value("rate_limit_current_usage", {"period": "hour"}) is None, "this gauge is for tasks only"
    quota_metrics.show([QuotaWindow("", "tasks", "hour", 3, 9, 6, 1e9)], {})
    shown = [value(f"rate_limit_{name}", {"period": "hour"}) for name in ("current_usage", "max_allowed", "remaining")]
    assert shown == [3, 9, 6]
