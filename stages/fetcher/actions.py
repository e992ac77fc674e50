"""What the fetcher stores, what it asks of its edges, and what they tell it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.recently_settled import Record
from common.wire import messages as m


class Lease(msgspec.Struct, array_like=True):
    """What is stored of a leased task."""

    leased_at: float
    """Wall seconds of its first lease; the same when it is dispatched again."""
    attempt: int = 1
    """How often it was dispatched, counting only dispatches that may have killed an embedder."""
    type: str = ""
    """Its task type: a failed result needs it when the task itself is gone."""


class PendingClaim(msgspec.Struct):
    """A leased task whose claim is not decided yet."""

    task: m.Task
    """Dispatched once the claim is accepted."""
    unsure: bool = False
    """Whether an earlier claim got no answer. It may have been accepted; then a 409 is caused by this pipeline."""
    tries: int = 0
    """Claims that the API did not carry out."""
    is_token_doubted: bool = False
    """Whether the API refused this claim with 401 or 403, so that its token was doubted."""
    is_check: bool = False
    """Whether the claim was accepted, and is sent again to see whether the API refuses a second claim."""


class PutLease(NamedTuple):
    """Store a lease, before its task leaves."""

    task_id: str
    """Its task."""
    lease: Lease
    """The record; it replaces an earlier one."""


class DeleteLease(NamedTuple):
    """Delete a stored lease."""

    task_id: str
    """Its task."""


class PutSettled(NamedTuple):
    """Store what was settled in this turn."""

    record: Record
    """The ids and the time."""


class PutDead(NamedTuple):
    """Store that the task's result is a dead letter."""

    task_id: str
    """The task."""


class DeleteDead(NamedTuple):
    """Delete what `PutDead` stored."""

    task_id: str
    """The task."""


class Poll(NamedTuple):
    """GET the pending tasks, or search for some among the tasks in progress."""

    limit: int
    """Elements to ask the API for."""
    wanted: int
    """New tasks that can be used before the next poll: reading stops when this many are found."""
    known: frozenset[str]
    """Ids that need no second look."""
    deferred_keys: frozenset[str]
    """Batch keys of which nothing can be processed now."""
    token: m.Token
    """The access token to show."""
    among: frozenset[str] | None = None
    """If given, search for these ids among the tasks in progress; `limit` does not count then."""


class PollFailed(NamedTuple):
    """Event: the poll brought no page."""

    error: Exception
    """Why; its text is for the log and `/ready`."""
    rejected: str = ""
    """The fingerprint of the token, if the API refused it."""


class Claim(NamedTuple):
    """PATCH this task `in_progress`."""

    task_id: str
    """The task."""
    token: m.Token
    """The access token to show."""
