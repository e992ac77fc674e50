"""What a provider call is made of: the parts of a batch, their halves, items that were refused alone, the retries."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from common.failures.retry import Backoff
from common.wire.messages import Failure
from stages.embedder.calling.call_actions import LearnCap


class RetryPolicy(NamedTuple):
    """When a failed request is made again."""

    backoff: Backoff
    max_retries: int


class CallStopped(Exception):
    """The provider cannot be used before `until` (monotonic seconds). Never leaves the call."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


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
    """If it is a half of a request that was refused, and may have been too large."""
    was_refused: bool = False
    """Whether a request with these items was refused before, perhaps because of one of them."""
    is_isolation: bool = False
    """Whether it was refused with an error of the server: it comes after all others."""


class Refusal(NamedTuple):
    """A request that the provider refused, perhaps because of one of its items."""

    failure: Failure
    """The outcome of the item that is to blame."""
    reason: str
    """The provider's words."""
    is_server_error: bool = False
    """Whether the provider reported an error of its own: such errors happen by chance, too."""

    def enough(self, max_retries: int) -> int:
        """How many refusals must count against an item before it fails."""
        return max(1, max_retries) if self.is_server_error else 1


class LoneItem(NamedTuple):
    """An item that was refused alone. It fails if the evidence says that the item is to blame."""

    piece: Piece
    refusal: Refusal
    refused_at: float
    """A stamp of the evidence."""
    counted: int
    """Refusals that count against the item."""


def first_pieces(left: range, rechecks: Sequence[int]) -> deque[Piece]:
    """The pieces of a batch; items whose results are to be checked again are apart."""
    again = [position for position in rechecks if position in left]
    others = sorted(set(left).difference(again)) if again else left
    return deque(piece for piece in (Piece(again, is_recheck=True), Piece(others)) if piece.positions)


def halves(positions: Sequence[int]) -> list[Sequence[int]]:
    """Cut positions in two."""
    middle = (len(positions) + 1) // 2
    return [positions[:middle], positions[middle:]]
