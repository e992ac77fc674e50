"""What the publisher asks of its edges, and what it keeps of a result."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.recently_settled import Record
from common.wire import messages as m


class OutboxEntry(msgspec.Struct):
    """What the state keeps in memory of a stored result."""

    type: str
    """The task type."""
    state: str
    """The new state of the task: succeeded or failed."""
    leased_at: float
    """When the task was first leased (seconds since the epoch)."""
    tries: int = 0
    """PATCHes that the API did not accept."""
    doubtful_tries: int = 0
    """PATCHes that the API answered with 400."""
    unavailable_tries: int = 0
    """PATCHes that ended like in an outage: without a response, 5xx, redirects, …"""
    token_tries: int = 0
    """PATCHes that were refused together with the access token."""
    refused_token: str = ""
    """Fingerprint of the token that was refused last together with it."""
    is_blamed: bool = False
    """Whether it was refused while others were accepted."""


class DeadLetter(msgspec.Struct, array_like=True):
    """A result that the API refused for good, as it is stored."""

    result: m.Result
    status: int
    """The HTTP status of the refusal; 0 if there was no response."""
    reason: str
    """Why it was refused, in words."""
    at: float
    """When it became a dead letter (seconds since the epoch)."""


class PutResult(NamedTuple):
    """Store a result."""

    result: m.Result


class ResultsStored(NamedTuple):
    """Event: these results are on disk, so that they may be sent."""

    task_ids: list[str]


class ResultsSettled(NamedTuple):
    """Event: it is on disk that these results need no further PATCH."""

    number: int


class Settle(NamedTuple):
    """Delete results that need no further PATCH, and store that they were settled."""

    record: Record


class MoveToDeadLetters(NamedTuple):
    """Move a stored result to the dead letters."""

    task_id: str
    status: int
    """The HTTP status of the refusal."""
    reason: str
    """Why it was refused, in words."""
    at: float
    """Seconds since the epoch."""


class ReplayDeadLetter(NamedTuple):
    """Move a dead letter back to the outbox."""

    task_id: str


class DropDeadLetter(NamedTuple):
    """Delete a dead letter."""

    task_id: str


class SendPatch(NamedTuple):
    """PATCH the result of this task. It is on disk: only `ResultsStored` makes a result due."""

    task_id: str
    token: m.Token
