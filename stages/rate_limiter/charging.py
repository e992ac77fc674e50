"""What a batch is charged when it is dispatched, and how that charge is settled when the batch is over."""

from __future__ import annotations

from collections.abc import Sequence

from common.process.actions import Instant
from common.wire import messages as m
from common.wire.parts import QuotaWindow
from common.wire.timing import SENT_WITHIN_S
from stages.rate_limiter.fleet import DispatchedBatch
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.counters import Unit
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import Receipt
from stages.rate_limiter.token_ratio import TokenRatios

MOST_REQUESTS_PER_BATCH = 8
"""Requests that a batch is charged where there are quotas: for retries, and for halving a refused batch. What it does
not use is refunded. Tasks that would need more requests are queued again, in a batch of their own."""

MOST_TOKENS = 10**12
"""No batch uses more tokens; a larger number is a mistake, and would block or break the quotas."""


class Charging:
    """Charges and settles. Times are wall seconds."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self.ratios = TokenRatios()

    def charge(self, key: str, batch: Sequence[m.Task], slots: int, now: Instant) -> m.Charge:
        """Charge a batch. Where requests have a quota, the batch gets its share of what is left for the free slots."""
        wall = now.wall
        requests = 1
        if self._quotas.limits(key):
            left = self._quotas.requests_left(key, wall)
            most = MOST_REQUESTS_PER_BATCH
            requests = max(1, min(most, most if left is None else left // slots))
        tokens = sum(task.tokens for task in batch)
        at = self._quotas.charge(key, Amounts(len(batch), tokens, requests), wall).at
        return m.Charge(at, tokens, requests, self._send_by(key, at, now))

    def _send_by(self, key: str, at: float, now: Instant) -> float:
        """Until when requests may be written. A calendar period counts a charge that was admitted in it."""
        if not self._quotas.limits(key):
            return 0.0
        return now.mono + min(SENT_WITHIN_S, self._quotas.period_ends(key, now.wall) - at)

    def settle(self, sent: DispatchedBatch, charge: m.Charge, message: m.Finished, wall: float) -> None:
        """Replace a charge by what was spent, counted from the moment when it reached the provider."""
        receipt, quotas = Receipt(charge.at, sent.key), self._quotas
        free = message.uncharged + (len(message.deferred) if message.unsent else 0)
        unused = max(charge.requests - message.requests, 0)
        tokens = _plausible(message.tokens, charge.tokens)
        quotas.settle(receipt, charge.tokens, tokens, wall)
        quotas.refund(receipt, Amounts(tasks=free, requests=unused), wall)
        if message.requests > charge.requests:  # where requests have no quota, and are only counted
            quotas.charge(sent.key, Amounts(requests=message.requests - charge.requests), wall)
        spent = Amounts(max(0, len(sent.ids) - free), tokens, min(charge.requests, message.requests))
        quotas.move(receipt, spent, wall - message.reached_ago_s, wall)
        if message.requests == 1 and not (free or message.deferred or message.requeue):
            self.ratios.learn(sent.key, charge.tokens, tokens)

    def windows(self, wall: float) -> list[QuotaWindow]:
        """The present state of each quota window."""
        return self._quotas.usage(wall)


def _plausible(tokens: int, charged: int) -> int:
    """The tokens that a batch used; what it was charged if the number cannot be true."""
    return charged if tokens > MOST_TOKENS else max(tokens, 0)


def exhausted(windows: Sequence[QuotaWindow]) -> str:
    """The quotas that are used up for all models, in words. That of requests frees up within a minute: left out."""
    full = [w for w in windows if w.remaining == 0 and not w.scope and w.unit != Unit.REQUESTS]
    return ", ".join(f"{w.limit} {w.unit} a {w.period}" for w in full)
