"""The limits of one model, as `RATE_LIMIT_MODELS` gives them: JSON, model → limits.

    {"text-embedding-3-large": {"per_day": 20000, "tokens_per_minute": 1000000, "requests_per_minute": 500}}

A limit is named as its variable is, without `RATE_LIMIT_`; one that is left out, or 0, is off.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_LIMIT = 10**15
"""No sum of counters below it can overflow an int64."""

Limit = Annotated[int, Field(ge=0, le=MOST_LIMIT)]
_Strict = Annotated[int, Field(ge=0, le=MOST_LIMIT, strict=True)]
"""JSON can say what is a number; `true` and "100" are none."""


class Strategy(StrEnum):
    """Which stretches of time a limit holds for."""

    ROLLING = "rolling"
    """Every interval of the period's length, wherever it begins."""
    FIXED = "fixed"
    """Each minute, hour, day, week and month of the calendar."""


class ModelLimits(BaseModel):
    """What one model may spend, besides the global limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_minute: _Strict = 0
    per_hour: _Strict = 0
    per_day: _Strict = 0
    per_week: _Strict = 0
    per_month: _Strict = 0
    tokens_per_minute: _Strict = 0
    tokens_per_hour: _Strict = 0
    tokens_per_day: _Strict = 0
    tokens_per_week: _Strict = 0
    tokens_per_month: _Strict = 0
    requests_per_minute: _Strict = 0


def _named(models: dict[str, ModelLimits]) -> dict[str, ModelLimits]:
    if not all(name.strip() for name in models):
        raise ValueError("a model has no name; limits for all models together are set by RATE_LIMIT_PER_… and so on")
    return models


Models = Annotated[dict[str, ModelLimits], AfterValidator(_named)]


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members (`object_pairs_hook`); raise ValueError if one is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice!r} twice")
    return found
