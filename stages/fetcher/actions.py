"""What the fetcher keeps of a lease, what it asks of its edges, and what they tell it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from common.recently_settled import Record
from common.wire import messages as m


class Lease(msgspec.Struct, array_like=True):
    """What is stored of a leased task."""

    leased_at: float
    attempt: int = 1
    type: str = ""


class Held(msgspec.Struct):
    """A lease in memory."""

    lease: Lease
    heard: float
    """Monotonic seconds at which its holder was last heard of."""
    working: bool = False
    """Whether a worker has it, so that it may be the reason if it gets lost."""
    waiting: bool = False
    """Whether it certainly waits in the rate limiter, or on the way to it: if that dies, it is lost."""
    stored: bool = False
    """Whether the publisher has its result on disk: that outlives any silence of the publisher."""


class PutLease(NamedTuple):
    """Store a lease, before its task leaves."""

    task_id: str
    lease: Lease


class DeleteLease(NamedTuple):
    """Forget a lease."""

    task_id: str


class PutSettled(NamedTuple):
    """Store what was settled in this turn."""

    record: Record


class PutDead(NamedTuple):
    """Store that the task's result is a dead letter."""

    task_id: str


class DeleteDead(NamedTuple):
    """Forget that."""

    task_id: str


class Poll(NamedTuple):
    """GET the pending tasks."""

    limit: int
    wanted: int
    """New tasks that can be used before the next poll."""
    known: frozenset[str]
    """Ids that need no second look."""
    deferred_keys: frozenset[str]
    """Batch keys of which nothing can be processed now."""
    token: m.Token
    among: frozenset[str] | None = None
    """If given, look for these among the tasks in progress; `limit` does not count then."""


class PollFailed(NamedTuple):
    """Event: the poll brought no page; `rejected` is the fingerprint of a token that the API refused."""

    error: Exception
    rejected: str = ""
