"""What a heartbeat carries besides its own fields: the samples of metrics, and the state of quota windows."""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, array_like=True, gc=False):
    """A structure inside a message."""


class QuotaWindow(Part):
    """The state of one quota window, as `/health` shows it."""

    scope: str
    """The model's name; empty for the global limits."""
    unit: str
    """tasks, tokens or requests."""
    period: str
    """minute, hour, day, week or month."""
    current: int
    limit: int
    remaining: int
    reset_at: float
    """When the window next releases something (rolling), or ends (fixed); seconds since the epoch."""
    exhausted_at: float | None = None
    """When it will be used up at the present rate; None if it will not be before it resets."""


class Sample(Part):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(Part):
    """One metric, with all its samples."""

    name: str
    kind: str
    """counter, gauge or histogram."""
    help: str
    samples: list[Sample]
