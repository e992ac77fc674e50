"""An amount of work, as the quotas count it: tasks, tokens and requests in one value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Amounts(NamedTuple):
    """An amount of each unit; never negative."""

    tasks: int = 0
    tokens: int = 0
    requests: int = 0
    """HTTP requests to the provider."""

    def counts(self) -> NDArray[np.int64]:
        """The amounts as an int64 array `(units,)`, in the order of `Unit`. Raises ValueError for a negative amount."""
        if min(self) < 0:
            raise ValueError(f"a negative amount: {self.tasks} tasks, {self.tokens} tokens, {self.requests} requests")
        return np.array(self, np.int64)

    def minus(self, other: Amounts) -> Amounts:
        """The difference of each unit, at least 0."""
        return Amounts(*(max(0, mine - theirs) for mine, theirs in zip(self, other, strict=True)))
