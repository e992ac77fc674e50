"""What a task type is: how its content is validated, what a task costs, and how a batch is processed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from common.wire.messages import Failure

if TYPE_CHECKING:  # 11 MiB and 0.1 s that the fetcher, which makes no vectors, saves
    import numpy as np
    from numpy.typing import NDArray

C = TypeVar("C", bound=msgspec.Struct)

Outcome: TypeAlias = "NDArray[np.float32] | bytes | Failure"
"""The outcome of one task: a vector, (d,) float32; or a JSON document; or the reason why it failed."""


class Deferral(msgspec.Struct):
    """The task has no outcome yet: it cannot be processed before `until`."""

    until: float
    """Seconds since the epoch."""
    unsent: bool
    """Whether it certainly was not paid for, so that its charge can be refunded."""
    at_most: int = 0
    """If set, only the batch's request budget was used up: it may be tried at once, in a batch of at most this size."""


class Providers(Protocol):
    """What `process` uses to get vectors; it includes retries, halving, the cache and the vector guard."""

    def embed(self, model: str, texts: Sequence[str]) -> list[NDArray[np.float32] | Failure | Deferral]:
        """Embed the texts; returns one outcome for each, in their order."""
        ...


class TaskType(Generic[C]):
    """One task type; `C` is the class of its content."""

    name: str
    """The `type` of its tasks in the API."""
    content: type[C]
    """The class of its `content`, a msgspec Struct. A task whose content does not decode is reported failed."""

    def decode(self, raw: bytes) -> C:
        """Decode a task's `content` from JSON; the fetcher and the embedder both use this. Raises a msgspec error."""
        return self._decoder.decode(raw)

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[C]:
        return msgspec.json.Decoder(self.content)

    def invalid(self, content: C) -> str | None:  # noqa: ARG002  subclasses use it
        """Why a content that decodes is invalid, as a sentence without the task's text; None if it is valid."""
        return None

    def key(self, content: C) -> str:
        """The batch key: only tasks with the same key are processed together."""
        raise NotImplementedError

    def tokens(self, content: C) -> int:
        """The estimated cost in tokens: never too low, and 0 if it costs none."""
        raise NotImplementedError

    def process(self, key: str, contents: Sequence[C], providers: Providers) -> Sequence[Outcome | Deferral]:
        """Process a batch; returns one outcome for each content, in their order. Runs on a thread of the embedder."""
        raise NotImplementedError
