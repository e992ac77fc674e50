"""The kinds of task that can be processed: one class in one file each, and one line in `BUILT_IN`.

Another Python package adds one with an entry point in the group `ai_task_processor.task_types`; see
`docs/extending.md`. The fetcher uses a type to validate a task and to say what it costs; the embedder to process it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.wire.messages import Failure

C = TypeVar("C", bound=msgspec.Struct)

Outcome = NDArray[np.float32] | bytes | Failure
"""Of one task: a vector, (d,) float32; or a JSON document; or why it failed."""


class Deferral(msgspec.Struct):
    """An outcome that is none yet: the provider cannot take this task before `until` (seconds since the epoch)."""

    until: float
    unsent: bool
    """Whether it certainly was not paid for, so that its charge can be refunded."""
    at_most: int = 0
    """If set, it was only its batch's requests that were used up: it may come again at once, with at most so many."""


class Providers(Protocol):
    """What `process` is given to get vectors with: retries, bisecting, cache and vector guard are behind it."""

    def embed(self, model: str, texts: Sequence[str]) -> list[NDArray[np.float32] | Failure | Deferral]:
        """Embed the texts, in their order; one outcome for each."""
        ...


class TaskType(Generic[C]):
    """One kind of task; `C` is its content."""

    name: str
    """The `type` of such a task in the API."""
    content: type[C]
    """How its `content` must look: a msgspec Struct; whatever does not decode is reported failed."""

    def invalid(self, content: C) -> str | None:  # noqa: ARG002  for those that override it
        """Say what is wrong with a content that decodes, in a sentence without its text; None if nothing is."""
        return None

    def key(self, content: C) -> str:
        """Name the batch key: only tasks with the same key are processed together."""
        raise NotImplementedError

    def tokens(self, content: C) -> int:
        """Estimate the tokens it costs; never too low, and 0 for what costs none."""
        raise NotImplementedError

    def process(self, key: str, contents: Sequence[C], providers: Providers) -> Sequence[Outcome | Deferral]:
        """Process a batch: one outcome for each content, in their order. Runs on a thread of the embedder."""
        raise NotImplementedError


ENTRY_POINTS = "ai_task_processor.task_types"


def registered(counts_tokens: Callable[[str], bool] = lambda _: False) -> Mapping[str, TaskType[Any]]:
    """All task types by name: the built-in ones, and those of other installed packages.

    `counts_tokens` tells for which models a token quota is in force (`Settings.counts_tokens`).
    """
    from common.task_types.text_embedding import TextEmbedding  # noqa: PLC0415  it needs the classes above

    built_in: tuple[TaskType[Any], ...] = (TextEmbedding(counts_tokens),)
    others = (point.load()() for point in entry_points(group=ENTRY_POINTS))
    return {task_type.name: task_type for task_type in (*built_in, *others)}
