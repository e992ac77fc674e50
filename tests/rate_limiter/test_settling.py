"""What exactly is charged, refunded and learnt when a batch is over, and which quotas are named as used up."""

from __future__ import annotations

from typing import Any

import pytest

from common.wire import messages as m
from common.wire.parts import QuotaWindow
from stages.rate_limiter.charging import MOST_TOKENS, Charging, exhausted
from stages.rate_limiter.fleet import DispatchedBatch
from stages.rate_limiter.quota.amounts import Amounts
from tests.samples import names


class RecordingQuotas:
    """Stands for the quotas, and notes what it is told."""

    def __init__(self) -> None:
        self.charged: list[Amounts] = []
        self.refunded: list[Amounts] = []
        self.settled: list[tuple[int, int]] = []
        self.moved: list[tuple[Amounts, float]] = []

    def charge(self, _key: str, amounts: Amounts, _wall: float) -> None:
        self.charged.append(amounts)

    def settle(self, _receipt: Any, charged: int, tokens: int, _wall: float) -> None:
        self.settled.append((charged, tokens))

    def refund(self, _receipt: Any, amounts: Amounts, _wall: float) -> None:
        self.refunded.append(amounts)

    def move(self, _receipt: Any, amounts: Amounts, at: float, _wall: float) -> None:
        self.moved.append((amounts, at))


def settle(tasks: int = 8, charge: int = 1, **finished: Any) -> tuple[RecordingQuotas, Charging]:
    """Settle a batch of `tasks` tasks that was charged 100 tokens and `charge` requests at 50 s; it is 90 s now."""
    quotas: Any = RecordingQuotas()
    charging = Charging(quotas)
    sent = DispatchedBatch(names(tasks), {}, "small")
    charging.settle(sent, m.Charge(50.0, 100, charge), m.Finished("e", "boot", "b1", **finished), 90.0)
    return quotas, charging


@pytest.mark.parametrize(("used", "more"), [(1, []), (2, [Amounts(requests=1)]), (5, [Amounts(requests=4)])])
def test_requests_beyond_the_charge_are_charged_once(used: int, more: list[Amounts]) -> None:
    quotas, _ = settle(requests=used)
    assert quotas.charged == more


def test_requests_beyond_a_larger_charge_are_charged_once() -> None:
    quotas, _ = settle(charge=3, requests=5)
    assert (quotas.charged, quotas.refunded) == ([Amounts(requests=2)], [Amounts()])
    assert settle(charge=8, requests=3)[0].refunded == [Amounts(requests=5)]


def test_cached_and_unsent_tasks_are_refunded_together() -> None:
    quotas, _ = settle(uncharged=1, deferred=names(1), unsent=True, requests=1)
    assert quotas.refunded == [Amounts(tasks=2)]
    assert quotas.moved == [(Amounts(6, 0, 1), 90.0)]


def test_no_more_tasks_are_refunded_than_there_were() -> None:
    quotas, _ = settle(tasks=2, uncharged=3, requests=1)
    assert quotas.moved == [(Amounts(0, 0, 1), 90.0)]


def test_deferred_tasks_that_may_have_been_sent_stay_charged() -> None:
    quotas, _ = settle(uncharged=1, deferred=names(1), requests=1)
    assert quotas.refunded == [Amounts(tasks=1)]


def test_what_was_spent_counts_from_the_moment_when_it_reached_the_provider() -> None:
    quotas, _ = settle(tokens=80, requests=1, reached_ago_s=10.0)
    assert quotas.moved == [(Amounts(8, 80, 1), 80.0)]
    assert quotas.settled == [(100, 80)]


@pytest.mark.parametrize(("tokens", "counted"), [(50_000, 50_000), (MOST_TOKENS, 10**12), (MOST_TOKENS + 1, 100)])
def test_every_plausible_number_of_tokens_is_counted(tokens: int, counted: int) -> None:
    assert settle(tokens=tokens, requests=1)[0].settled == [(100, counted)]


@pytest.mark.parametrize(
    ("finished", "learns"),
    [
        ({"requests": 1}, True),
        ({"requests": 0}, False),
        ({"requests": 2}, False),
        ({"requests": 1, "uncharged": 1}, False),
        ({"requests": 1, "deferred": ["t0"]}, False),
        ({"requests": 1, "requeue": {1: ["t0"]}}, False),
    ],
)
def test_a_ratio_is_learnt_only_from_a_batch_that_was_sent_once_and_as_a_whole(
    finished: dict[str, Any], *, learns: bool
) -> None:
    _, charging = settle(tokens=25, **finished)
    assert charging.ratios.by_model() == ({"small": 0.25} if learns else {})


def window(unit: str, remaining: int, scope: str = "") -> QuotaWindow:
    return QuotaWindow(scope, unit, "hour", 10 - remaining, 10, remaining, 0.0)


def test_the_quotas_of_tasks_and_tokens_for_all_models_are_named_when_they_are_used_up() -> None:
    assert exhausted([window("tasks", 0), window("tokens", 0)]) == "10 tasks a hour, 10 tokens a hour"
    assert exhausted([window("tasks", 0), window("tokens", 1)]) == "10 tasks a hour"


@pytest.mark.parametrize("spared", [window("tasks", 3), window("requests", 0), window("tasks", 0, "small")])
def test_other_quotas_are_not_named(spared: QuotaWindow) -> None:
    assert exhausted([spared]) == ""
