"""The request budget of one batch: how many requests it may make, and what it has used.

The rate limiter charges a batch before it sends the batch to an embedder. If a quota is in force, the batch must not
exceed this charge: it makes at most as many requests as it was charged for, it never sends a text again that may have
been paid for, and each canary takes the place of a text. The other texts go back to the rate limiter, which charges
them again, in smaller batches if a larger request was refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from common.wire.timing import IN_NETWORK_S

MAX_TRANSIT_S = IN_NETWORK_S
"""The longest time that a request needs to reach its provider after it was written. The response time is an upper bound
too, but a slow response must not keep the quota from admitting more."""


class RequestBudget:
    """The request budget of one batch; `max_requests=None` means unlimited."""

    def __init__(self, max_requests: int | None = None, send_by: float = 0.0) -> None:
        """`send_by`: the last moment to write a request (monotonic seconds); 0: there is none."""
        self.send_by = send_by
        self.is_limited = max_requests is not None
        """Whether a quota is in force."""
        self._texts = 0
        self._max_requests = math.inf if max_requests is None else max_requests
        self.requests = 0
        """Requests made, failed ones included."""
        self.canaries = 0
        """How many of the requests were canaries that the provider may have counted."""
        self.tokens = 0
        """Tokens used, or possibly used."""
        self.reached_at = 0.0
        """When the last request had reached its provider at the latest (monotonic seconds); 0 if there was none."""
        self.maybe_paid: set[str] = set()
        """Texts that may have been paid for."""
        self.requeue: dict[str, int] = {}
        """Texts that the budget does not cover → the size of the largest request that they may be part of next."""

    def add_request(self, began: float, ended: float) -> None:
        """Count a request; it reached its provider between these two times (monotonic seconds).

        `began`: when it was written, or begun if that is not known.
        """
        self.requests += 1
        self.reached_at = max(self.reached_at, min(began + MAX_TRANSIT_S, ended))

    def add_payment(self, texts: Iterable[str], tokens: int) -> None:
        """Note that these texts may have been paid for, and that they cost at most this number of tokens."""
        self.maybe_paid.update(texts)
        self.tokens += tokens

    def is_late(self, now: float) -> bool:
        """Whether the charge does not cover a request any more (monotonic seconds)."""
        return bool(self.send_by) and now > self.send_by

    @property
    def is_spent(self) -> bool:
        """Whether no request is left."""
        return self.requests >= self._max_requests

    def cover(self, texts: int) -> None:
        """The batch was charged for this number of texts more."""
        self._texts += texts

    @property
    def room(self) -> int | None:
        """How many texts, canaries included, the charge still covers; None: any number."""
        return self._texts - len(self.maybe_paid) - self.canaries if self.is_limited else None

    @property
    def allows_canary(self) -> bool:
        """Whether a canary may be sent."""
        return not self.is_spent and self.room != 0

    def allows(self, texts: Iterable[str]) -> bool:
        """Whether a request with these texts may be made."""
        return not self.is_spent and not (self.is_limited and any(text in self.maybe_paid for text in texts))

    def send_back(self, texts: list[str], at_most: int = 0) -> None:
        """Leave these texts to a later batch of at most `at_most` texts; 0: as many as these, which were a request."""
        self.requeue.update(dict.fromkeys(texts, at_most or len(texts)))
