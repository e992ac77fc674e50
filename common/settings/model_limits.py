"""The limits of one model in `RATE_LIMIT_MODELS`, a JSON object of model → limits; and the strategy of all quotas.

    {"text-embedding-3-large": {"per_day": 20000, "tokens_per_minute": 1000000, "requests_per_minute": 500}}

A limit has the name of its variable without `RATE_LIMIT_`. A limit that is missing or 0 is off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from common.settings.conversion import STRICT, Range

LARGEST_LIMIT = 10**15
"""Sums of counters up to this limit cannot overflow an int64."""

Limit = Annotated[int, Range(0, LARGEST_LIMIT)]
_StrictLimit = Annotated[int, Range(0, LARGEST_LIMIT), STRICT]


class Strategy(StrEnum):
    """Which stretches of time a limit holds for."""

    ROLLING = "rolling"
    """Every interval of the period's length, wherever it begins."""
    FIXED = "fixed"
    """Each minute, hour, day, week and month of the calendar."""


@dataclass(frozen=True)
class ModelLimits:
    """The limits of one model; the global limits apply too."""

    per_minute: _StrictLimit = 0
    per_hour: _StrictLimit = 0
    per_day: _StrictLimit = 0
    per_week: _StrictLimit = 0
    per_month: _StrictLimit = 0
    tokens_per_minute: _StrictLimit = 0
    tokens_per_hour: _StrictLimit = 0
    tokens_per_day: _StrictLimit = 0
    tokens_per_week: _StrictLimit = 0
    tokens_per_month: _StrictLimit = 0
    requests_per_minute: _StrictLimit = 0


def _named(models: dict[str, ModelLimits]) -> dict[str, ModelLimits]:
    if not all(name.strip() for name in models):
        raise ValueError("a model has no name; for limits on all models together, set RATE_LIMIT_PER_MINUTE and so on")
    return models


Models = Annotated[dict[str, ModelLimits], _named]


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members (`object_pairs_hook`). Raises ValueError if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice!r} twice")
    return found
