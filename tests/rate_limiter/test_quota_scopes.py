"""Global quotas together with quotas of single models."""

import math

import pytest

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import Receipt

NOON = 1_747_224_000.0
TASKS = WindowId(Unit.TASKS, Period.HOUR)
TOKENS = WindowId(Unit.TOKENS, Period.HOUR)


@pytest.fixture(params=Strategy)
def quotas(request: pytest.FixtureRequest) -> Quotas:
    strategy: Strategy = request.param
    return Quotas({TASKS: 100}, {"small": {TASKS: 10, TOKENS: 50}, "large": {TASKS: 500}}, strategy)


def held(quotas: Quotas, now: float = NOON) -> dict[str, int]:
    return {usage.scope: usage.current for usage in quotas.usage(now) if usage.unit is Unit.TASKS}


def test_the_scope_with_the_least_room_decides(quotas: Quotas) -> None:
    assert quotas.admits("small", [1] * 300, NOON) == 10
    assert quotas.admits("small", [20] * 300, NOON) == 2
    assert quotas.admits("large", [1] * 300, NOON) == 100
    assert quotas.admits("unlimited", [1] * 300, NOON) == 100


def test_a_charge_counts_in_the_global_scope_and_in_that_of_its_model(quotas: Quotas) -> None:
    assert quotas.charge("small", Amounts(4, 20, 1), NOON) == Receipt(NOON, "small")
    quotas.charge("unlimited", Amounts(30, 20, 1), NOON)
    assert held(quotas) == {"": 34, "small": 4, "large": 0}


def test_a_model_whose_quota_is_used_up_does_not_block_another_model(quotas: Quotas) -> None:
    quotas.charge("small", Amounts(10, 10, 1), NOON)
    assert quotas.admits("small", [1], NOON) == 0
    assert quotas.blocked_by("small", 1, NOON) == {"small": [TASKS]}
    assert quotas.admits("large", [1] * 300, NOON) == 90
    assert quotas.blocked_by("large", 1, NOON) == {}
    assert quotas.opens_at("large", 1, NOON) == NOON
    assert quotas.opens_at("small", 1, NOON) > NOON


def test_every_scope_that_blocks_a_task_is_named(quotas: Quotas) -> None:
    quotas.charge("small", Amounts(10, 45, 1), NOON)
    quotas.charge("large", Amounts(90, 0, 1), NOON + 60)
    assert quotas.blocked_by("small", 6, NOON + 60) == {"": [TASKS], "small": [TASKS, TOKENS]}
    assert quotas.blocked_by("unlimited", 6, NOON + 60) == {"": [TASKS]}


def test_a_task_fits_when_both_scopes_have_room(quotas: Quotas) -> None:
    quotas.charge("large", Amounts(90, 0, 1), NOON)
    quotas.charge("small", Amounts(10, 0, 1), NOON + 600)
    opens = quotas.opens_at("small", 1, NOON + 600)
    assert quotas.admits("small", [1], math.nextafter(opens, 0)) == 0
    assert quotas.admits("small", [1], opens) == 1


def test_refunds_and_settlements_change_both_scopes(quotas: Quotas) -> None:
    receipt = quotas.charge("small", Amounts(10, 50, 1), NOON)
    quotas.refund(receipt, Amounts(3, 20, 0), NOON + 1)
    assert held(quotas) == {"": 7, "small": 7, "large": 0}
    quotas.settle(receipt, 30, 10, NOON + 1)
    assert quotas.admits("small", [20] * 5, NOON + 1) == 2


def test_a_task_that_never_fits_one_model_can_fit_another(quotas: Quotas) -> None:
    assert quotas.never_fits("small", 51)
    assert quotas.opens_at("small", 51, NOON) == math.inf
    assert not quotas.never_fits("large", 51)


def test_a_clock_that_is_set_back_frees_no_quota_of_any_model(quotas: Quotas) -> None:
    quotas.charge("large", Amounts(1, 0, 1), NOON)
    assert quotas.charge("small", Amounts(10, 0, 1), NOON - 5_000).at == NOON
    assert quotas.admits("small", [1], NOON - 1) == 0
    assert quotas.opens_at("large", 1, NOON - 5_000) == NOON - 5_000
    assert quotas.opens_at("small", 1, NOON - 5_000) > NOON
    assert quotas.latest == NOON


def test_all_scopes_share_the_latest_time(quotas: Quotas) -> None:
    quotas.charge("small", Amounts(10, 0, 1), NOON)
    quotas.charge("large", Amounts(1, 0, 1), NOON + 7_300)
    assert quotas.admits("small", [1] * 20, NOON + 1) == 10
    assert quotas.opens_at("small", 1, NOON + 1) == NOON + 1


def test_limits_for_a_model_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        Quotas({}, {"": {TASKS: 1}}, Strategy.ROLLING)


def test_without_limits_every_task_is_admitted_and_no_window_is_shown() -> None:
    quotas = Quotas({}, {}, Strategy.ROLLING)
    assert quotas.admits("any", [8_192] * 2_048, NOON) == 2_048
    assert quotas.usage(NOON) == []
