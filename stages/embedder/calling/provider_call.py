"""Decides what to send to a provider, and how to react to each outcome: retries and halving, without I/O.

A `ProviderCall` brings the items of a batch to one provider. It is a generator that yields actions and receives events:
it makes no request, never sleeps and reads no clock. driver.py runs it on a thread. It only knows that items are texts,
and knows nothing about the results, so it can serve every kind of call.

    event                what the call does
    Succeeded            keeps the results. Asks once more for rejected ones, then these items fail or are deferred
    InputRefused         proves that the model is served, then halves the request; bad items fail on evidence
    CallRefused          the same, but the items of the request fail together
    RequestFailed        backs off and retries, MAX_RETRIES times, then stops
      server_error       the second time: as InputRefused. An item that is alone fails after MAX_RETRIES refusals
    RetryAtOnce          makes the same request again
    NotCovered           leaves the items to a later batch, which is charged again
    ProviderPaused       waits, at most MAX_WAIT_S in total, then stops
    ProviderUnavailable  stops

After a refusal, unless the provider has served the model since, a canary is sent first (evidence.py). If it is refused
too, the call stops, and its items wait without blame. An item that is refused alone fails when something else was
served *after* this refusal; one canary at the end decides for all such items. An item sent alone is sent again.
What was obtained before the call stops is kept, because it is paid for. What the budget does not cover comes again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from common.process.actions import Log
from common.wire.messages import Failure
from stages.embedder.calling.call_actions import (
    CallRefused,
    CanaryServed,
    Event,
    InputRefused,
    NotCovered,
    ProviderPaused,
    ProviderUnavailable,
    R,
    RequestFailed,
    RetryAtOnce,
    SendCanary,
    SendRequest,
    Steps,
    Succeeded,
    WaitEnded,
    WaitUntil,
)
from stages.embedder.calling.evidence import CANARY, ModelEvidence
from stages.embedder.calling.pieces import (
    CallStopped,
    Halving,
    LoneItem,
    Piece,
    Refusal,
    RetryPolicy,
    first_pieces,
    halves,
)
from stages.embedder.calling.request_budget import RequestBudget

MAX_WAIT_S = 10.0
"""How long a batch waits in total for its provider before it is deferred: a slot is for work, not for waiting."""
ISOLATED_RETRY_S = 60.0
"""How long an item is deferred if the provider fails on it and the evidence does not decide."""
MAX_UNPROVEN = 3
"""Refusals in a row without a canary, when the model was served before the first of them in this call."""


class ProviderCall(Generic[R]):
    """One batch's items on their way to one provider."""

    def __init__(
        self,
        items: Sequence[str],
        budget: RequestBudget,
        policy: RetryPolicy,
        split: Callable[[Sequence[int]], Sequence[Sequence[int]]],
        evidence: ModelEvidence,
        rechecks: Sequence[int] = (),
    ) -> None:
        """`split` cuts positions into requests that the provider takes.

        `rechecks` are the positions of items whose results were rejected in an earlier batch.
        """
        self._items = items
        self._budget = budget
        self._policy = policy
        self._split = split
        self._evidence = evidence
        self._rechecks = rechecks
        self._now = 0.0
        self._waited_s = 0.0
        self._searches_left = 2 * math.ceil(math.log2(len(items) + 1)) + 2
        self._unproven = MAX_UNPROVEN
        self._lone: list[LoneItem] = []
        self.outcomes: list[R | Failure | None] = [None] * len(items)
        """One for each item; None: deferred."""
        self.wait_until = 0.0
        """When to try the deferred items again (monotonic seconds)."""
        self.open_rechecks: list[int] = []
        """Positions of items whose results were rejected once, and which the budget did not allow to ask for again."""

    def run(self) -> Steps[R, None]:
        """Fill `outcomes`."""
        try:
            if (undecided := self._evidence.undecided_since()) is not None:
                yield from self._prove(undecided)
            yield from self._send_all(first_pieces(range(len(self._items)), self._rechecks))
            yield from self._judge()
        except CallStopped as stopped:
            self.wait_until = stopped.until

    def _send_all(self, pieces: deque[Piece]) -> Steps[R, None]:
        while pieces:
            piece = pieces.pop()
            parts = self._split(piece.positions)
            if len(parts) > 1:
                pieces.extend(piece._replace(positions=part, halving=None) for part in reversed(parts))
                continue
            rest = yield from self._process(piece)
            for left in reversed(rest):
                # isolation comes last: each success in between is evidence that the provider works
                (pieces.appendleft if left.is_isolation else pieces.append)(left)

    def _process(self, piece: Piece) -> Steps[R, list[Piece]]:
        """Send a piece, and retry it; return the pieces that are still to be sent."""
        if not self._budget.allows(self._items_of(piece)):
            self._send_back(piece)
            return []
        if not (piece := self._covered(piece)).positions:
            return []
        failures = server_errors = 0
        rest: list[Piece] | None = None
        while rest is None:
            event = yield from self._do(SendRequest(piece.positions))
            if isinstance(event, RequestFailed):
                failures += 1
                server_errors += event.server_error is not None
                rest = yield from self._request_failed(piece, failures, server_errors, event)
            elif isinstance(event, ProviderPaused):
                yield from self._wait(event.until)
            else:
                rest = yield from self._request_ended(piece, event)
        return rest

    def _covered(self, piece: Piece) -> Piece:
        """The part of a piece that the charge covers. The rest returns in a later batch: canaries took its places."""
        room, positions = self._budget.room, piece.positions
        if room is None or len(positions) <= room:
            return piece
        self._send_back(piece._replace(positions=positions[room:]), at_most=len(positions))
        return piece._replace(positions=positions[:room], halving=None)

    def _request_ended(self, piece: Piece, event: Event[R]) -> Steps[R, list[Piece]]:
        """React to an event after which the same request is not retried here."""
        match event:
            case Succeeded():
                return (yield from self._succeeded(piece, event))
            case InputRefused():
                return (yield from self._refused(piece, Refusal(event.failure, event.reason)))
            case CallRefused():
                if (yield from self._prove(self._evidence.stamp(self._now))):
                    self._fail(piece, event.failure)
                else:
                    self._send_back(piece)
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
        if len(event.rejected) < len(positions):
            self._unproven = 0
            self._evidence.served(self._items[positions[0]], self._now)
        for position, result in zip(positions, event.results, strict=True):
            if result is not None:
                self.outcomes[position] = result
        if not event.rejected:
            return []
        if not piece.is_recheck:
            return [Piece([positions[index] for index in sorted(event.rejected)], is_recheck=True)]
        if event.is_unmatched and len(positions) > 1 and self._searches_left > 0:
            self._searches_left -= 1  # the provider may lose one item: search for it, but with a bound
            return [Piece(half, is_recheck=True) for half in halves(positions)]
        for index, failure in event.rejected.items():
            if index in event.blameless:
                self.wait_until = max(self.wait_until, self._now + ISOLATED_RETRY_S)
            else:
                self.outcomes[positions[index]] = failure
        return []

    def _refused(self, piece: Piece, refusal: Refusal) -> Steps[R, list[Piece]]:
        """Find out whether the model is served at all, then halve the request; an item alone is judged at the end."""
        at, counted = self._evidence.stamp(self._now), 0
        is_lone = len(piece.positions) == 1
        if is_lone:
            counted = self._evidence.refused(self._items[piece.positions[0]], self._now)
            if counted >= refusal.enough(self._policy.max_retries):
                self._fail(piece, refusal.failure)
                return []
        self._unproven += not counted
        if self._unproven > MAX_UNPROVEN:
            yield from self._prove(at)
        if is_lone:
            self._lone.append(LoneItem(piece, refusal, at, counted))
            return []
        yield Log("request_halved", {"inputs": len(piece.positions), "reason": refusal.reason})
        parts, isolates = halves(piece.positions), refusal.is_server_error
        halving = None if isolates else Halving(piece.positions, parts, refusal.reason)
        return [Piece(part, piece.is_recheck, halving, was_refused=True, is_isolation=isolates) for part in parts]

    def _prove(self, since: float) -> Steps[R, bool]:
        """Make sure that something was served after `since`, with a canary if need be; stop if nothing is served.

        Returns whether this is proven; it is not if the request budget allows no canary.
        """
        failures = 0
        while not self._evidence.served_since(since):
            self._evidence.leave_undecided(self._now)
            if not self._budget.allows_canary:
                return False
            event = yield from self._do(SendCanary())
            failures += isinstance(event, RequestFailed | RetryAtOnce)
            is_last = failures > self._policy.max_retries + 1
            match event:
                case CanaryServed():
                    self._evidence.served(CANARY, self._now)
                case ProviderPaused():
                    yield from self._wait(event.until)
                case RequestFailed():
                    yield from self._retry_later(failures, event, is_last=is_last)
                case NotCovered():
                    return False
                case ProviderUnavailable(until=until) if until:
                    raise CallStopped(until)
                case _ if is_last or not isinstance(event, RetryAtOnce):
                    raise CallStopped(self._now + self._policy.backoff.delay(1))
        self._unproven = 0
        return True

    def _judge(self) -> Steps[R, None]:
        """Decide about the items that were refused alone: they fail, are sent once more, or are deferred."""
        for tries in range(1, self._policy.max_retries + 3):
            lone, self._lone = self._lone, []
            open_since = [item.refused_at for item in lone if not item.counted]
            if open_since and not (yield from self._prove(max(open_since))):
                for item in lone:
                    self._send_back(item.piece)
                return
            again = [item for item in lone if item.refusal.is_server_error or not item.piece.was_refused]
            for item in lone:
                if item not in again:
                    self._fail(item.piece, item.refusal.failure)
            if any(item.refusal.is_server_error for item in again):
                yield from self._wait(self._now + self._policy.backoff.delay(tries))
            yield from self._send_all(deque(item.piece._replace(was_refused=True) for item in reversed(again)))
        if self._lone:
            yield Log("texts_deferred_alone", {"count": len(self._lone), "seconds": ISOLATED_RETRY_S}, "warning")
            self.wait_until = self._now + ISOLATED_RETRY_S

    def _request_failed(
        self, piece: Piece, failures: int, server_errors: int, event: RequestFailed
    ) -> Steps[R, list[Piece] | None]:
        """Wait for the next try (None), or return the halves of the request; stop after the last try."""
        yield Log("provider_request_failed", {"failures": failures, "reason": event.reason}, "warning")
        is_last = failures > self._policy.max_retries or not self._budget.allows(self._items_of(piece))
        if event.server_error and (piece.was_refused or is_last or server_errors > 2):
            return (yield from self._refused(piece, Refusal(event.server_error, event.reason, is_server_error=True)))
        if event.server_error and server_errors == 2:  # then it may be well again
            yield from self._prove(self._evidence.stamp(self._now))
        else:
            yield from self._retry_later(failures, event, is_last=is_last)
        return None

    def _retry_later(self, failures: int, event: RequestFailed, *, is_last: bool) -> Steps[R, None]:
        """Wait for the next try; stop if there is none."""
        until = self._now + max(self._policy.backoff.delay(failures), event.retry_after_s)
        if is_last:
            raise CallStopped(max(until, event.cooldown_until))
        yield from self._wait(until)

    def _wait(self, until: float) -> Steps[R, None]:
        """Wait, unless the batch has waited too long by then."""
        self._waited_s += max(until - self._now, 0.0)
        if self._waited_s > MAX_WAIT_S:
            raise CallStopped(until)
        event = yield from self._do(WaitUntil(until))
        if isinstance(event, WaitEnded) and event.is_stopping:
            raise CallStopped(until)

    def _do(self, action: SendRequest | SendCanary | WaitUntil) -> Steps[R, Event[R]]:
        event = yield action
        self._now = event.now
        return event

    def _send_back(self, piece: Piece, at_most: int = 0) -> None:
        """Leave the items to a later batch of at most `at_most`; 0: as many as these."""
        self._budget.send_back(self._items_of(piece), at_most)
        if piece.is_recheck:
            self.open_rechecks.extend(piece.positions)

    def _fail(self, piece: Piece, failure: Failure) -> None:
        for position in piece.positions:
            self.outcomes[position] = failure
            self._evidence.forget(self._items[position])

    def _items_of(self, piece: Piece) -> list[str]:
        return [self._items[position] for position in piece.positions]
