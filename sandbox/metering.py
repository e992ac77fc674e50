"""What a provider would have charged for."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

_LOG_LENGTH = 200_000  # requests; older ones are forgotten


def estimated_tokens(text: str) -> int:
    """About a token to four bytes, at least one."""
    return max(1, len(text.encode()) // 4)


class Meter:
    """Counts, for every text under every model, how often it was embedded in an answer that was sent.

    An answer counts as sent when it was computed for a caller who was still there, whatever a fault then does to it.
    """

    def __init__(self) -> None:
        self._paid: dict[int, int] = {}
        self._log: deque[tuple[float, int, int]] = deque(maxlen=_LOG_LENGTH)
        self._paid_twice = 0
        self._inputs = 0
        self._tokens = 0
        self._charged = 0

    def charge(self, keys: Sequence[int], tokens: int) -> None:
        """One request's texts (by `vectors.text_key`) were embedded."""
        self._charged += 1
        self._inputs += len(keys)
        self._tokens += tokens
        self._log.append((time.time(), len(keys), tokens))
        paid = self._paid
        for key in keys:
            times = paid[key] = paid.get(key, 0) + 1
            if times == 2:
                self._paid_twice += 1

    def summary(self) -> dict[str, int]:
        """`paid_twice`: texts paid more than once; `paid_again`: payments beyond each text's first."""
        return {
            "charged_requests": self._charged,
            "inputs": self._inputs,
            "tokens": self._tokens,
            "paid": len(self._paid),
            "paid_twice": self._paid_twice,
            "paid_again": self._inputs - len(self._paid),
        }

    def log(self) -> list[dict[str, Any]]:
        """Every charged request: Unix time, inputs, tokens. For checking a quota over any interval."""
        return [{"time": at, "inputs": inputs, "tokens": tokens} for at, inputs, tokens in self._log]
