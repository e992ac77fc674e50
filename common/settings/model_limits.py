"""The limits of one model in `RATE_LIMIT_MODELS`, a JSON object of model → limits; and the strategy of all quotas.

    {"text-embedding-3-large": {"per_day": 20000, "tokens_per_minute": 1000000, "requests_per_minute": 500}}

A limit has the name of its variable without `RATE_LIMIT_`. A limit that is missing or 0 is off.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from common.settings.conversion import STRICT

LARGEST_LIMIT = 10**15
"""Sums of counters up to this limit cannot overflow an int64."""

Limit = Annotated[int, Meta(ge=0, le=LARGEST_LIMIT)]


class Strategy(StrEnum):
    """Which stretches of time a limit holds for."""

    ROLLING = "rolling"
    """Every interval of the period's length, wherever it begins."""
    FIXED = "fixed"
    """Each minute, hour, day, week and month of the calendar."""


class ModelLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one model; the global limits apply too."""

    per_minute: Limit = 0
    per_hour: Limit = 0
    per_day: Limit = 0
    per_week: Limit = 0
    per_month: Limit = 0
    tokens_per_minute: Limit = 0
    tokens_per_hour: Limit = 0
    tokens_per_day: Limit = 0
    tokens_per_week: Limit = 0
    tokens_per_month: Limit = 0
    requests_per_minute: Limit = 0


TOKEN_LIMITS = tuple(name for name in ModelLimits.__struct_fields__ if name.startswith("tokens_per_"))
"""The limits of tokens, by their names."""


def _named(models: dict[str, ModelLimits]) -> dict[str, ModelLimits]:
    if not all(name.strip() for name in models):
        raise ValueError("a model has no name; for limits on all models together, set RATE_LIMIT_PER_MINUTE and so on")
    return models


Models = Annotated[dict[str, ModelLimits], STRICT, _named]


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members (`object_pairs_hook`). Raises ValueError if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice!r} twice")
    return found
