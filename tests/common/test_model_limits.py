"""RATE_LIMIT_MODELS: which values are valid, and how an invalid one is reported."""

from __future__ import annotations

import pytest

from common.failures.errors import SettingsError
from common.settings.model_limits import ModelLimits
from common.settings.settings import NAMES
from tests.samples import settings

SMALL, LARGE = "text-embedding-3-small", "text-embedding-3-large"


def test_each_model_has_its_own_limits_and_a_missing_limit_is_off() -> None:
    models = settings(rate_limit_models=f'{{"{LARGE}": {{"per_day": 7, "tokens_per_month": 9}}}}').rate_limit_models
    assert models == {LARGE: ModelLimits(per_day=7, tokens_per_month=9)}
    assert models[LARGE].requests_per_minute == 0


def test_a_limit_of_a_model_has_the_name_of_its_variable() -> None:
    variables = {name for name in NAMES if name.startswith("rate_limit_") and "per_" in name}
    assert {f"rate_limit_{name}" for name in ModelLimits.__struct_fields__} == variables


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{"m": {"per_minute": -1}}', "in m.per_minute: input should be greater than or equal to 0 (it is -1)"),
        ('{"m": {"per_day": 1e15}}', "in m.per_day: input should be a valid integer"),
        ('{"m": {"per_day": 10000000000000001}}', "in m.per_day: input should be less than or equal to"),
        ('{"m": {"per_day": "ten"}}', "in m.per_day: input should be a valid integer (it is 'ten')"),
        ('{"m": {"per_day": true}}', "in m.per_day: input should be a valid integer (it is True)"),
        ('{"m": {"per_dy": 1}}', "in m.per_dy: this name is unknown"),
        ('{"m": 5}', "in m: input should be a valid dictionary"),
        ('{"m": {}, "m": {}}', "has 'm' twice"),
        ('{" ": {}}', "a model has no name"),
        ("[]", "input should be a valid dictionary"),
        ("{m: 1}", "must be JSON"),
    ],
)
def test_a_wrong_limit_is_reported_with_its_place_in_the_json(value: str, problem: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(rate_limit_models=value)
    assert len(raised.value.problems) == 1
    assert raised.value.problems[0].startswith(f"RATE_LIMIT_MODELS: {problem}")


@pytest.mark.parametrize("value", ["-1", "1e3", "ten", str(10**15 + 1), "1.5", "nan"])
def test_a_global_limit_is_a_whole_number_up_to_ten_to_the_fifteenth(value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(rate_limit_tokens_per_week=value)
    assert raised.value.problems[0].startswith("RATE_LIMIT_TOKENS_PER_WEEK: ")


@pytest.mark.parametrize(
    ("variable", "value"), [("rate_limit_timezone", "Mars/Olympus"), ("rate_limit_strategy", "sliding")]
)
def test_an_unknown_timezone_or_strategy_is_reported_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(**{variable: value})
    assert raised.value.problems[0].startswith(f"{variable.upper()}: ")
    assert value in raised.value.problems[0]


def test_tokens_are_counted_exactly_only_where_a_token_quota_is_in_force() -> None:
    openai = {"processing_mode": "openai", "openai_api_key": "sk-x"}
    own = {"rate_limit_models": f'{{"{LARGE}": {{"tokens_per_day": 1}}, "{SMALL}": {{"per_day": 1}}}}'}
    assert not settings(**openai).counts_tokens(LARGE)
    assert settings(**openai, rate_limit_tokens_per_week=1).counts_tokens(SMALL)
    assert settings(**openai, **own).counts_tokens(LARGE)
    assert not settings(**openai, **own).counts_tokens(SMALL)
    assert not settings(**openai, **own, rate_limit_enabled=False).counts_tokens(LARGE)
    assert not settings(**own).counts_tokens(LARGE), "mock tokens are not those of a model"
