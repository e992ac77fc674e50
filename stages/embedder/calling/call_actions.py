"""What a `ProviderCall` asks for (actions), and what it is told (events)."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from common.process.actions import Log
from common.wire.messages import Failure

R = TypeVar("R")
"""The result of one item."""
T = TypeVar("T")


class SendRequest(NamedTuple):
    """Action: send the items at these positions in one request. Followed by any event but `WaitEnded`."""

    positions: Sequence[int]


class SendCanary(NamedTuple):
    """Action: send a canary, to find out whether the provider serves the model at all.

    Followed by `CanaryServed`, `RequestFailed`, `RetryAtOnce`, `ProviderPaused` or `ProviderUnavailable`.
    """


class WaitUntil(NamedTuple):
    """Action: wait until this time (monotonic seconds). Followed by `WaitEnded`."""

    until: float


class LearnCap(NamedTuple):
    """Action: a request was refused, while each of its halves passed: it was too large. Followed by nothing."""

    refused: Sequence[int]
    """Positions of the refused request."""
    halves: Sequence[Sequence[int]]
    """Positions of the two requests that passed."""
    reason: str
    """The provider's words."""


class Succeeded(NamedTuple, Generic[R]):
    """Event: the provider responded with results."""

    now: float
    """Monotonic seconds, in all events."""
    results: Sequence[R | None]
    """One for each item of the request; None if it was rejected."""
    rejected: Mapping[int, Failure] = {}
    """Index in the request → why its result cannot be used."""
    is_unmatched: bool = False
    """Whether all were rejected because it is unknown which result belongs to which item."""
    blameless: Collection[int] = ()
    """Indexes in the request of rejected items that can't be to blame: they wait instead of failing."""


class InputRefused(NamedTuple):
    """Event: the provider refused the whole request because of something in it."""

    now: float
    failure: Failure
    """The outcome of an item that is refused alone."""
    reason: str
    """The provider's words."""


class CanaryServed(NamedTuple):
    """Event: the provider served the canary."""

    now: float


class CallRefused(NamedTuple):
    """Event: the provider refused the request, and would refuse each part of it."""

    now: float
    failure: Failure


class RequestFailed(NamedTuple):
    """Event: the request failed in a way that may pass."""

    now: float
    reason: str
    retry_after_s: float = 0.0
    """The least time to wait, if the provider named one."""
    cooldown_until: float = 0.0
    """When the provider may be asked again (monotonic seconds), if this failure opened a circuit breaker."""
    server_error: Failure | None = None
    """If the provider reported an error of its own, so that an item may be the cause: the outcome of that item."""


class NotCovered(NamedTuple):
    """Event: the request was not made, because what the batch was charged does not cover it any more."""

    now: float


class RetryAtOnce(NamedTuple):
    """Event: the client has learned how to ask this provider: the same request will do now."""

    now: float


class ProviderPaused(NamedTuple):
    """Event: no request was made, because the provider asked for a pause."""

    now: float
    until: float
    """Monotonic seconds."""


class ProviderUnavailable(NamedTuple):
    """Event: the provider cannot serve the call now, and a short wait does not help."""

    now: float
    until: float = 0.0
    """When it may be asked again (monotonic seconds); 0 if this is unknown."""


class WaitEnded(NamedTuple):
    """Event: the time has come, or (`is_stopping`) the embedder is told to stop."""

    now: float
    is_stopping: bool = False


Action: TypeAlias = SendRequest | SendCanary | WaitUntil | LearnCap | Log
Event: TypeAlias = (
    Succeeded[R]
    | InputRefused
    | CanaryServed
    | CallRefused
    | RequestFailed
    | NotCovered
    | RetryAtOnce
    | ProviderPaused
    | ProviderUnavailable
    | WaitEnded
)
Steps: TypeAlias = Generator[Action, Event[R], T]
"""`SendRequest`, `SendCanary` and `WaitUntil` are answered by an event; the other actions are not."""
