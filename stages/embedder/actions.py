"""What an embedder asks of its worker pool, and what it is told."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.wire import messages as m


class ProcessBatch(NamedTuple):
    """Action: process this batch on a thread of the worker pool."""

    batch: m.Batch


class BatchProcessed(msgspec.Struct):
    """Event: a batch was processed, as far as its provider could. See `messages.Finished` for the fields."""

    batch_id: str
    results: list[m.Result]
    deferred: list[str] = []
    """Ids that have no result yet."""
    until: float = 0.0
    """When the deferred tasks may be tried again (wall seconds)."""
    unsent: bool = False
    """Whether the deferred tasks certainly never reached the provider."""
    tokens: int = 0
    """Tokens that the provider reported."""
    requests: int = 0
    """Provider requests that were made."""
    uncharged: int = 0
    """Tasks that cost nothing."""
    requeue: dict[int, list[str]] = {}
    """Ids that the request budget did not cover, by the size of the largest batch that they may be in next."""
    reached_at: float = 0.0
    """When the last request had reached the provider at the latest (monotonic seconds); 0 if there was none."""
