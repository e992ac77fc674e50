"""What work takes of the quotas: tasks, tokens and requests, as one value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Amounts(NamedTuple):
    """An amount of each unit; never negative."""

    tasks: int = 0
    tokens: int = 0
    requests: int = 0

    def counts(self) -> NDArray[np.int64]:
        """As the counters take it: (units,) int64. Raises ValueError for a negative amount."""
        if min(self) < 0:
            raise ValueError(f"a negative amount: {self.tasks} tasks, {self.tokens} tokens, {self.requests} requests")
        return np.array(self, np.int64)

    def minus(self, other: Amounts) -> Amounts:
        """What is left after taking the other away; nothing falls below 0."""
        return Amounts(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))
