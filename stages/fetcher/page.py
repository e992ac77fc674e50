"""Reads a page of pending tasks element by element: which are tasks for this pipeline, and which are invalid.

One malformed element never hides the rest: the array is cut into its elements first, and each is decoded alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from functools import partial
from operator import index
from typing import Any

import msgspec

from common.task_types import TaskType
from common.task_types.content_guard import guarded
from common.wire.messages import Failure, Task
from stages.fetcher.envelope import Envelope, Unreadable, created_seconds, read_envelope
from stages.fetcher.json_array import elements
from stages.fetcher.shard import Shard

LARGEST_COST_TOKENS = 2**53
"""A task type that estimates more is wrong."""


class Candidate(msgspec.Struct):
    """A task of a page that may be leased, or the reason why it cannot be processed."""

    task: Task
    """Without content, batch key and tokens if there is a failure."""
    created: float
    """Seconds since the epoch; infinity if the API does not say."""
    failure: Failure | None = None
    """Why the content cannot be processed."""


class PendingPage(msgspec.Struct):
    """Event: what one poll brought."""

    requested_at: float
    """Wall seconds; a task that was settled after this time may be in the page although it is not pending any more."""
    candidates: list[Candidate]
    """Oldest first."""
    elements: int
    """How many elements were read, including those that were skipped."""
    whole: bool
    """False if reading stopped because enough candidates were found."""
    skipped: dict[str, int]
    """How many elements were skipped, by reason."""
    unknown_types: list[str]
    """Task types that this pipeline does not have, at most 64 characters of each."""
    in_progress: bool = False
    """Whether the poll searched the tasks in progress instead of the pending ones."""
    unreadable: list[Unreadable] = []
    """One for each problem that an element has, with the position of the first such element."""
    object_key: str = ""
    """If the page is an object instead of an array: the key of the array in it."""


class Reader:
    """Turns the body of a response into a page."""

    def __init__(self, task_types: Mapping[str, TaskType[Any]], shard: Shard = Shard()) -> None:  # noqa: B008
        self._types = task_types
        self._shard = shard

    def read(
        self,
        chunks: Iterable[bytes],
        requested_at: float,
        wanted: int,
        known: Container[str],
        deferred_keys: Container[str] = (),
        among: Container[str] | None = None,
    ) -> PendingPage:
        """Read until `wanted` candidates are found or the page ends; raise `Transient` if the body is not an array.

        Candidates are pending tasks, without the `known` ids and the `deferred_keys`. If `among` is given, they are
        those of these ids that are in progress.
        """
        found: dict[str, Candidate] = {}
        unreadable: dict[Unreadable, Unreadable] = {}
        skipped, unknown, object_keys = Counter[str](), set[str](), list[str]()
        count, whole = 0, True
        for raw in elements(chunks, object_keys.append):
            count += 1
            envelope = read_envelope(raw)
            if isinstance(envelope, Unreadable):
                skipped[envelope.reason] += 1
                unreadable[envelope] = envelope.seen_at(count, unreadable.get(envelope))
                continue
            reason = self._skip_reason(envelope, known, among)
            if reason:
                skipped[reason] += 1
                if reason == "unknown_type":
                    unknown.add(envelope.type[:64])
                continue
            if envelope.task_id in found:
                continue
            candidate = self._candidate(envelope)
            if candidate.task.key in deferred_keys:
                skipped["deferred"] += 1
                continue
            found[envelope.task_id] = candidate
            if len(found) >= wanted:
                whole = False
                break
        return PendingPage(
            requested_at, sorted(found.values(), key=lambda candidate: candidate.created), count, whole, dict(skipped),
            sorted(unknown), among is not None, list(unreadable.values()), "".join(object_keys),
        )  # fmt: skip

    def _skip_reason(self, envelope: Envelope, known: Container[str], among: Container[str] | None) -> str:
        """Why an element is skipped; empty if it is not."""
        task_id = envelope.task_id
        if among is None and not self._shard.owns(task_id):
            return "other_shard"
        if (envelope.state or "pending") != ("pending" if among is None else "in_progress"):
            return "not_pending"
        if envelope.type not in self._types:
            return "unknown_type"
        if task_id in known:
            return "known"
        return "" if among is None or task_id in among else "not_ours"

    def _candidate(self, envelope: Envelope) -> Candidate:
        created = created_seconds(envelope)
        created_at = envelope.created_at if isinstance(envelope.created_at, str) else ""
        raw = bytes(envelope.content)
        read = guarded(envelope.type, partial(_key_and_tokens, self._types[envelope.type], raw))
        if isinstance(read, Failure):
            empty = Task(envelope.task_id, envelope.type, "", b"", 0, 0.0, created_at=created_at)
            return Candidate(empty, created, read)
        key, tokens = read
        return Candidate(Task(envelope.task_id, envelope.type, key, raw, tokens, 0.0, created_at=created_at), created)


def _key_and_tokens(kind: TaskType[Any], raw: bytes) -> tuple[str, int] | Failure:
    """The batch key and the cost of a content, or why it cannot be processed. Raises what the task type raises."""
    content = kind.decode(raw)
    reason = kind.invalid(content)
    if reason is not None:
        return Failure("invalid_content", str(reason))
    key, tokens = kind.key(content), index(kind.tokens(content))
    key.encode()  # an invalid string could not be sent to the next stage
    if not 0 <= tokens <= LARGEST_COST_TOKENS:
        raise ValueError("tokens")
    return key, tokens
