"""What a batch is charged with when it leaves, and how that is settled when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from common.wire import messages as m
from stages.rate_limiter.fleet import Sent
from stages.rate_limiter.quota.counters import Unit, Window
from stages.rate_limiter.quota.scope import Receipt, Usage
from stages.rate_limiter.token_ratio import Ratios

MOST_REQUESTS = 8
"""Requests that a batch is charged with where there are quotas: for retries, and for halving what is refused. What it
does not use is refunded; what it would need beyond comes again in a batch of its own."""


class Quotas(Protocol):
    """What is asked of the quotas (`quotas.Quotas`); times are wall seconds, `model` is the batch key."""

    def admits(self, model: str, token_estimates: list[int], now: float) -> int: ...  # noqa: D102
    def charge(self, model: str, tasks: int, tokens: int, requests: int, now: float) -> Receipt: ...  # noqa: D102
    def refund(self, receipt: Receipt, tasks: int, tokens: int, requests: int, now: float) -> None: ...  # noqa: D102
    def settle(self, receipt: Receipt, reserved_tokens: int, actual_tokens: int, now: float) -> None: ...  # noqa: D102
    def move(self, receipt: Receipt, tasks: int, tokens: int, requests: int, at: float, now: float) -> None: ...  # noqa: D102
    def blocked_by(self, model: str, tokens_of_first: int, now: float) -> dict[str, list[Window]]: ...  # noqa: D102
    def never_fits(self, model: str, tokens: int) -> bool: ...  # noqa: D102
    def opens_at(self, model: str, tokens_of_first: int, now: float) -> float: ...  # noqa: D102
    def usage(self, now: float) -> list[Usage]: ...  # noqa: D102
    def limits(self, model: str) -> bool: ...  # noqa: D102
    def requests_left(self, model: str, now: float) -> int | None: ...  # noqa: D102
    @property
    def latest(self) -> float: ...  # noqa: D102


class Charging:
    """Charges and settles; times are wall seconds."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self.ratios = Ratios()

    def charge(self, key: str, batch: Sequence[m.Task], slots: int, wall: float) -> m.Charge:
        """Charge a batch; where requests have a quota, it gets its share of what is left for the free slots."""
        requests = 1
        if self._quotas.limits(key):
            left = self._quotas.requests_left(key, wall)
            requests = max(1, min(MOST_REQUESTS, MOST_REQUESTS if left is None else left // slots))
        tokens = sum(task.tokens for task in batch)
        return m.Charge(self._quotas.charge(key, len(batch), tokens, requests, wall).at, tokens, requests)

    def settle(self, sent: Sent, charge: m.Charge, message: m.Finished, wall: float) -> None:
        """Replace a charge by what was spent of it, counted from when it reached the provider."""
        receipt, quotas = Receipt(charge.at, sent.key), self._quotas
        free = message.uncharged + (len(message.deferred) if message.unsent else 0)
        quotas.settle(receipt, charge.tokens, message.tokens, wall)
        quotas.refund(receipt, free, 0, max(charge.requests - message.requests, 0), wall)
        if message.requests > charge.requests:  # where requests have no quota, and are only counted
            quotas.charge(sent.key, 0, 0, message.requests - charge.requests, wall)
        requests = min(charge.requests, message.requests)
        quotas.move(receipt, max(0, len(sent.ids) - free), message.tokens, requests, wall - message.reached_ago_s, wall)
        if message.requests == 1 and not (free or message.deferred or message.requeue):
            self.ratios.learn(sent.key, charge.tokens, message.tokens)

    def windows(self, wall: float) -> list[m.QuotaWindow]:
        """Where each quota stands."""
        return [
            m.QuotaWindow(u.scope, u.unit, u.period, u.current, u.limit, u.remaining, u.reset_at, u.exhausted_at)
            for u in self._quotas.usage(wall)
        ]


def used_up(windows: Sequence[m.QuotaWindow]) -> str:
    """Name the quotas that are used up for every model; that of requests opens within a minute."""
    full = [w for w in windows if w.remaining == 0 and not w.scope and w.unit != Unit.REQUESTS]
    return ", ".join(f"{w.limit} {w.unit} a {w.period}" for w in full)
