"""What the publisher asks of its edges, what they tell it, and what it keeps of a result."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.recently_settled import Record
from common.wire import messages as m


class Entry(msgspec.Struct):
    """A stored result, as it is kept in memory."""

    type: str
    state: str
    leased_at: float
    tries: int = 0
    """PATCHes that did not get through."""
    doubts: int = 0
    """PATCHes that were answered with 400."""


class DeadLetter(msgspec.Struct, array_like=True):
    """A result that the API refused for good."""

    result: m.Result
    status: int
    reason: str
    at: float
    """Seconds since the epoch."""


class PutResult(NamedTuple):
    """Store a result."""

    result: m.Result


class Settle(NamedTuple):
    """Delete results that need no further PATCH, and store that they were settled."""

    record: Record


class Bury(NamedTuple):
    """Move a stored result to the dead letters."""

    task_id: str
    status: int
    reason: str
    at: float


class Revive(NamedTuple):
    """Move a dead letter back to the outbox."""

    task_id: str


class Drop(NamedTuple):
    """Delete a dead letter."""

    task_id: str


class Patch(NamedTuple):
    """PATCH the stored result of this task."""

    task_id: str
    token: m.Token
