"""The quotas are right after a kill, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.scope import Receipt
from tests.contracts.installations import Installation
from tests.decisions import START

Install = Callable[..., Installation]
MODEL, OTHER = "small", "large"
NOW = START.wall
both = pytest.mark.parametrize("strategy", Strategy)
LIMITS = {
    "rate_limit_per_day": 100,
    "rate_limit_tokens_per_day": 1000,
    "rate_limit_requests_per_minute": 10,
    "rate_limit_models": f'{{"{MODEL}": {{"per_day": 50}}}}',
}


def used(installation: Installation, now: float, scope: str = "") -> dict[str, int]:
    return {usage.unit: usage.current for usage in installation.quotas.usage(now) if usage.scope == scope}


def charge(installation: Installation, tasks: int, tokens: int, now: float = NOW) -> Receipt:
    receipt = installation.quotas.charge(MODEL, Amounts(tasks, tokens, 1), now)
    installation.put()
    return receipt


@both
def test_only_committed_charges_survive_a_kill(install: Install, strategy: Strategy) -> None:
    installation = install(strategy, **LIMITS)
    charge(installation, 7, 70)
    installation.commit()
    charge(installation, 9, 90)  # killed before the commit, so that its batch was never sent
    installation.restart(NOW + 1)
    assert used(installation, NOW + 1) == {"tasks": 7, "tokens": 70, "requests": 1}
    assert used(installation, NOW + 1, MODEL) == {"tasks": 7}
    assert installation.quotas.admits(MODEL, [1] * 60, NOW + 1) == 43
    assert installation.quotas.admits(OTHER, [1] * 99, NOW + 1) == 93


@both
def test_a_charge_is_settled_and_refunded_after_a_restart(install: Install, strategy: Strategy) -> None:
    installation = install(strategy, **LIMITS)
    receipt = charge(installation, 10, 400)
    installation.commit()
    installation.restart(NOW + 20)
    installation.quotas.settle(receipt, 400, 120, NOW + 20)
    installation.quotas.refund(receipt, Amounts(4, 0, 1), NOW + 20)
    installation.put()
    installation.commit()
    installation.restart(NOW + 30)
    assert used(installation, NOW + 30) == {"tasks": 6, "tokens": 120, "requests": 0}
    assert used(installation, NOW + 30, MODEL) == {"tasks": 6}


@both
def test_a_settlement_that_was_not_committed_leaves_the_reservation(install: Install, strategy: Strategy) -> None:
    installation = install(strategy, **LIMITS)
    receipt = charge(installation, 10, 400)
    installation.commit()
    installation.quotas.settle(receipt, 400, 120, NOW + 1)
    installation.put()
    installation.restart(NOW + 2)
    assert used(installation, NOW + 2)["tokens"] == 400


@both
def test_a_clock_set_back_during_a_restart_grants_no_quota(install: Install, strategy: Strategy) -> None:
    installation = install(strategy, **LIMITS)
    charge(installation, 50, 0)
    installation.commit()
    for now in (NOW - 86_400 * 40, NOW + 1):
        installation.restart(now)
        assert installation.quotas.admits(MODEL, [1], now) == 0
        assert installation.quotas.latest >= NOW


@both
def test_a_year_of_downtime_frees_the_whole_quota(install: Install, strategy: Strategy) -> None:
    installation = install(strategy, **LIMITS)
    receipt = charge(installation, 50, 900)
    installation.commit()
    later = NOW + 366 * 86_400
    installation.restart(later)
    installation.quotas.refund(receipt, Amounts(50, 900, 1), later)  # expired: nothing is left to refund
    assert used(installation, later) == {"tasks": 0, "tokens": 0, "requests": 0}
    assert installation.quotas.admits(MODEL, [1] * 60, later) == 50


@pytest.mark.parametrize(("before", "after"), [(Strategy.ROLLING, Strategy.FIXED), (Strategy.FIXED, Strategy.ROLLING)])
def test_usage_survives_a_change_of_the_strategy(install: Install, before: Strategy, after: Strategy) -> None:
    installation = install(before, **LIMITS)
    charge(installation, 30, 0)
    installation.commit()
    installation.settings = replace(installation.settings, rate_limit_strategy=after)
    installation.restart(NOW + 1)
    assert installation.quotas.admits(MODEL, [1] * 60, NOW + 1) == 20
