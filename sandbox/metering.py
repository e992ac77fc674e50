"""Counts what a provider would have charged for."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

_LOG_LENGTH = 200_000
"""Charged requests that are kept; older ones are dropped."""


def estimated_tokens(text: str) -> int:
    """One token for every four bytes, at least one."""
    return max(1, len(text.encode()) // 4)


class Meter:
    """Counts how often each text was embedded, for each model.

    A text counts when its response was computed for a caller that was still connected, whatever a fault does later.
    """

    def __init__(self) -> None:
        self._paid: dict[int, int] = {}
        self._log: deque[tuple[float, float, Sequence[int], int]] = deque(maxlen=_LOG_LENGTH)
        self._paid_twice = 0
        self._inputs = 0
        self._tokens = 0
        self._charged = 0

    def charge(self, keys: Sequence[int], tokens: int, received_at: float) -> None:
        """Count the texts of one request, given by their `vectors.text_key`, that came at this Unix time."""
        self._charged += 1
        self._inputs += len(keys)
        self._tokens += tokens
        self._log.append((time.time(), received_at, keys, tokens))
        paid = self._paid
        for key in keys:
            times = paid[key] = paid.get(key, 0) + 1
            if times == 2:
                self._paid_twice += 1

    def summary(self) -> dict[str, int]:
        """`paid_twice`: texts paid more than once; `paid_again`: payments after the first one of each text."""
        return {
            "charged_requests": self._charged,
            "inputs": self._inputs,
            "tokens": self._tokens,
            "paid": len(self._paid),
            "paid_twice": self._paid_twice,
            "paid_again": self._inputs - len(self._paid),
        }

    def log(self, *, with_keys: bool = False) -> list[dict[str, Any]]:
        """Every charged request: when it was charged and when it came (Unix time), inputs, tokens, its texts' keys.

        Used to check a quota over any interval.
        """
        charges = [
            {"time": at, "received_at": received_at, "inputs": len(keys), "tokens": tokens, "keys": list(keys)}
            for at, received_at, keys, tokens in self._log
        ]
        if not with_keys:
            for charge in charges:
                del charge["keys"]
        return charges
