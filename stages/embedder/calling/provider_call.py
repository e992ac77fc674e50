"""Decides what to send to a provider, and how to react to each outcome: retries and halving, without I/O.

A `ProviderCall` brings the items of a batch to one provider. It is a generator that yields actions and receives events:
it makes no request, never sleeps and reads no clock. driver.py runs it on a thread. It only knows that items are texts,
and knows nothing about the results, so it can serve every kind of call.

    event                what the call does
    Succeeded            keeps the results. Rejected results: asks once more for these items only, then they fail; those
                         that are not to blame are deferred
    InputRefused         halves the request until the bad items are alone; these fail
    CallRefused          fails the items of the request
    RequestFailed        backs off and retries, MAX_RETRIES times, then stops
      is_server_error    the second time: halves the request. An item that fails alone is deferred, without the others
    RetryAtOnce          makes the same request again
    NotCovered           leaves the items to a later batch, which is charged again
    ProviderPaused       waits, at most MAX_WAIT_S in total, then stops
    ProviderUnavailable  stops

What was obtained before the call stops is kept, because it is paid for. Items that the request budget does not cover
return in a later batch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

from common.failures.retry import Backoff
from common.process.actions import Log
from common.wire.messages import Failure
from stages.embedder.calling.call_actions import (
    CallRefused,
    Event,
    InputRefused,
    LearnCap,
    NotCovered,
    ProviderPaused,
    ProviderUnavailable,
    R,
    RequestFailed,
    RetryAtOnce,
    SendRequest,
    Steps,
    Succeeded,
    WaitEnded,
    WaitUntil,
)
from stages.embedder.calling.request_budget import RequestBudget

MAX_WAIT_S = 10.0
"""How long a batch waits in total for its provider before it is deferred: a slot is for work, not for waiting."""
ISOLATED_RETRY_S = 60.0
"""How long an item is deferred if the provider fails on it while it serves others."""


class RetryPolicy(NamedTuple):
    """When a failed request is made again."""

    backoff: Backoff
    max_retries: int


class Halving:
    """A refused request and its halves. If both halves pass, the request was too large."""

    def __init__(self, refused: Sequence[int], halves: Sequence[Sequence[int]], reason: str) -> None:
        self.lesson = LearnCap(refused, halves, reason)
        self._passed = 0

    def is_complete(self) -> bool:
        """Count a half that passed; return whether both have now."""
        self._passed += 1
        return self._passed == len(self.lesson.halves)


class Piece(NamedTuple):
    """Items that go into one request, if the caps of the provider allow it."""

    positions: Sequence[int]
    is_recheck: bool = False
    """Whether their results were rejected before."""
    halving: Halving | None = None
    """If it is a half of a refused request."""
    is_isolation: bool = False
    """Whether the provider failed on a request with these items, perhaps because of one of them."""


class CallStopped(Exception):
    """The provider cannot be used before `until` (monotonic seconds). Never leaves this module."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


class ProviderCall(Generic[R]):
    """One batch's items on their way to one provider."""

    def __init__(
        self,
        items: Sequence[str],
        budget: RequestBudget,
        policy: RetryPolicy,
        split: Callable[[Sequence[int]], Sequence[Sequence[int]]],
        rechecks: Sequence[int] = (),
    ) -> None:
        """`split` cuts positions into requests that the provider takes.

        `rechecks` are the positions of items whose results were rejected in an earlier batch.
        """
        self._items = items
        self._budget = budget
        self._policy = policy
        self._split = split
        self._rechecks = rechecks
        self._now = 0.0
        self._waited_s = 0.0
        self._searches_left = 2 * math.ceil(math.log2(len(items) + 1)) + 2
        self.outcomes: list[R | Failure | None] = [None] * len(items)
        """One for each item; None: deferred."""
        self.wait_until = 0.0
        """When to try the deferred items again (monotonic seconds)."""
        self.open_rechecks: list[int] = []
        """Positions of items whose results were rejected once, and which the budget did not allow to ask for again."""

    def run(self) -> Steps[R, None]:
        """Fill `outcomes`."""
        pieces = self._first_pieces()
        try:
            while pieces:
                piece = pieces.pop()
                parts = self._split(piece.positions)
                if len(parts) > 1:
                    pieces.extend(piece._replace(positions=part, halving=None) for part in reversed(parts))
                    continue
                rest = yield from self._process(piece)
                for left in reversed(rest):
                    # isolation comes last: each success in between shows the breaker that the provider works
                    (pieces.appendleft if left.is_isolation else pieces.append)(left)
        except CallStopped as stopped:
            self.wait_until = stopped.until

    def _first_pieces(self) -> deque[Piece]:
        """All items; those to be checked again are apart."""
        if not self._rechecks:
            return deque([Piece(range(len(self._items)))])
        others = sorted(set(range(len(self._items))).difference(self._rechecks))
        return deque(piece for piece in (Piece(self._rechecks, is_recheck=True), Piece(others)) if piece.positions)

    def _process(self, piece: Piece) -> Steps[R, list[Piece]]:
        """Send a piece, and retry it; return the pieces that are still to be sent."""
        if not self._budget.allows(self._items_of(piece)):
            self._send_back(piece)
            return []
        failures = 0
        rest: list[Piece] | None = None
        while rest is None:
            event = yield from self._do(SendRequest(piece.positions))
            if isinstance(event, RequestFailed):
                failures += 1
                rest = yield from self._request_failed(piece, failures, event)
            elif isinstance(event, ProviderPaused):
                yield from self._wait(event.until)
            else:
                rest = yield from self._request_ended(piece, event)
        return rest

    def _request_ended(self, piece: Piece, event: Event[R]) -> Steps[R, list[Piece]]:
        """React to an event after which the same request is not retried here."""
        match event:
            case Succeeded():
                return (yield from self._succeeded(piece, event))
            case InputRefused():
                return (yield from self._input_refused(piece, event))
            case CallRefused():
                self._fail(piece, event.failure)
                return []
            case RetryAtOnce():
                return [piece]
            case NotCovered():
                self._send_back(piece)
                return []
            case ProviderUnavailable():
                raise CallStopped(event.until or self._now + self._policy.backoff.delay(1))
        raise AssertionError(f"not the outcome of a request: {event}")

    def _succeeded(self, piece: Piece, event: Succeeded[R]) -> Steps[R, list[Piece]]:
        """Keep the results; return the items to ask for again."""
        if piece.halving is not None and piece.halving.is_complete():
            yield piece.halving.lesson
        positions = piece.positions
        for position, result in zip(positions, event.results, strict=True):
            if result is not None:
                self.outcomes[position] = result
        if not event.rejected:
            return []
        if not piece.is_recheck:
            return [Piece([positions[index] for index in sorted(event.rejected)], is_recheck=True)]
        if event.is_unmatched and len(positions) > 1 and self._searches_left > 0:
            self._searches_left -= 1  # the provider may lose one item: search for it, but with a bound
            return [Piece(half, is_recheck=True) for half in _halves(positions)]
        for index, failure in event.rejected.items():
            if index in event.blameless:
                self.wait_until = max(self.wait_until, self._now + ISOLATED_RETRY_S)
            else:
                self.outcomes[positions[index]] = failure
        return []

    def _input_refused(self, piece: Piece, event: InputRefused) -> Steps[R, list[Piece]]:
        """Halve the request; an item alone fails."""
        if len(piece.positions) == 1:
            self._fail(piece, event.failure)
            return []
        yield Log("request_halved", {"inputs": len(piece.positions), "reason": event.reason})
        halves = _halves(piece.positions)
        halving = Halving(piece.positions, halves, event.reason)
        return [Piece(half, piece.is_recheck, halving) for half in halves]

    def _request_failed(self, piece: Piece, failures: int, event: RequestFailed) -> Steps[R, list[Piece] | None]:
        """Wait for the next try (None), or return the halves of the request; stop after the last try."""
        yield Log("provider_request_failed", {"failures": failures, "reason": event.reason}, "warning")
        until = self._now + max(self._policy.backoff.delay(failures), event.retry_after_s)
        if failures > self._policy.max_retries:
            raise CallStopped(max(until, event.cooldown_until))
        is_last = not self._budget.allows(self._items_of(piece))
        is_doubtful = len(piece.positions) > 1 and (is_last or failures == 2)
        if event.is_server_error and (piece.is_isolation or is_doubtful):
            yield from self._wait(until)
            return (yield from self._isolate(piece, event.reason))
        if is_last:
            raise CallStopped(max(until, event.cooldown_until))
        yield from self._wait(until)
        return None

    def _isolate(self, piece: Piece, reason: str) -> Steps[R, list[Piece]]:
        """Halve a request on which the provider fails; an item alone is deferred, and does not delay the others."""
        positions = piece.positions
        if len(positions) == 1:
            yield Log("text_deferred_alone", {"seconds": ISOLATED_RETRY_S, "reason": reason}, "warning")
            self.wait_until = max(self.wait_until, self._now + ISOLATED_RETRY_S)
            return []
        yield Log("request_halved", {"inputs": len(positions), "reason": reason})
        return [Piece(half, piece.is_recheck, is_isolation=True) for half in _halves(positions)]

    def _wait(self, until: float) -> Steps[R, None]:
        """Wait, unless the batch has waited too long by then."""
        self._waited_s += max(until - self._now, 0.0)
        if self._waited_s > MAX_WAIT_S:
            raise CallStopped(until)
        event = yield from self._do(WaitUntil(until))
        if isinstance(event, WaitEnded) and event.is_stopping:
            raise CallStopped(until)

    def _do(self, action: SendRequest | WaitUntil) -> Steps[R, Event[R]]:
        event = yield action
        self._now = event.now
        return event

    def _send_back(self, piece: Piece) -> None:
        """Leave the items to a later batch."""
        self._budget.send_back(self._items_of(piece))
        if piece.is_recheck:
            self.open_rechecks.extend(piece.positions)

    def _fail(self, piece: Piece, failure: Failure) -> None:
        for position in piece.positions:
            self.outcomes[position] = failure

    def _items_of(self, piece: Piece) -> list[str]:
        return [self._items[position] for position in piece.positions]


def _halves(positions: Sequence[int]) -> list[Sequence[int]]:
    middle = (len(positions) + 1) // 2
    return [positions[:middle], positions[middle:]]
