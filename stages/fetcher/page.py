"""Reads a page of pending tasks element by element: which are tasks for this pipeline, and which are invalid.

One malformed element never hides the rest: the array is cut into its elements first, and each is decoded alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from common.task_types import TaskType
from common.wire.messages import Failure, Task
from stages.fetcher.json_array import UNDECODABLE, elements
from stages.fetcher.shard import Shard

LONGEST_ID_BYTES = 500
"""LMDB's keys are at most 511 bytes long."""


class Envelope(msgspec.Struct):
    """The part of an element that is read before its type is known. NestJS with Mongoose sends `_id`."""

    type: str
    mongo_id: str | None = msgspec.field(name="_id", default=None)
    plain_id: str | None = msgspec.field(name="id", default=None)
    content: msgspec.Raw = msgspec.Raw(b"null")
    created_at: str | float | None = msgspec.field(name="createdAt", default=None)
    state: str = "pending"

    @property
    def task_id(self) -> str:
        """The element's `_id`, otherwise its `id`; empty if it has neither."""
        return self.mongo_id or self.plain_id or ""


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


def _seconds(created_at: str | float | None) -> float:
    if isinstance(created_at, str):
        try:
            at = datetime.fromisoformat(created_at)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return float("inf")
    return float("inf") if created_at is None else created_at / 1000


def _repaired(raw: bytes) -> bytes:
    """Replace half surrogate pairs and invalid UTF-8 with U+FFFD, as JavaScript's TextEncoder does.

    JavaScript's `substring` can cut a text in the middle of an emoji, and `JSON.stringify` sends the half that is left.
    Returns nothing if this is not JSON even then.
    """
    try:
        parsed = json.loads(raw.decode(errors="replace"))
    except (ValueError, RecursionError):
        return b""
    text = json.dumps(parsed, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


class Reader:
    """Turns the body of a response into a page."""

    def __init__(self, task_types: Mapping[str, TaskType[Any]], shard: Shard = Shard()) -> None:  # noqa: B008
        self._types = task_types
        self._shard = shard
        self._envelope = msgspec.json.Decoder(Envelope).decode
        self._contents = {name: msgspec.json.Decoder(kind.content).decode for name, kind in task_types.items()}

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
        skipped: Counter[str] = Counter()
        unknown: set[str] = set()
        count, whole = 0, True
        for raw in elements(chunks):
            count += 1
            envelope = self._decode(raw)
            reason = "malformed" if envelope is None else self._skip_reason(envelope, known, among)
            if envelope is None or reason:
                skipped[reason] += 1
                if envelope is not None and reason == "unknown_type":
                    unknown.add(envelope.type[:64])
                continue
            if envelope.task_id in found:
                continue
            candidate = self._candidate(envelope.task_id, envelope)
            if candidate.task.key in deferred_keys:
                skipped["deferred"] += 1
                continue
            found[envelope.task_id] = candidate
            if len(found) >= wanted:
                whole = False
                break
        candidates = sorted(found.values(), key=lambda candidate: candidate.created)
        return PendingPage(requested_at, candidates, count, whole, dict(skipped), sorted(unknown), among is not None)

    def _skip_reason(self, envelope: Envelope, known: Container[str], among: Container[str] | None) -> str:
        """Why an element is skipped; empty if it is not."""
        task_id = envelope.task_id
        if not task_id or len(task_id.encode()) > LONGEST_ID_BYTES:
            return "no_id"
        if among is None and not self._shard.owns(task_id):
            return "other_shard"
        if envelope.state != ("pending" if among is None else "in_progress"):
            return "not_pending"
        if envelope.type not in self._types:
            return "unknown_type"
        if task_id in known:
            return "known"
        return "" if among is None or task_id in among else "not_ours"

    def _decode(self, raw: bytes) -> Envelope | None:
        try:
            return self._envelope(raw)
        except msgspec.ValidationError:
            return None
        except UNDECODABLE:
            repaired = _repaired(raw)
        try:
            return self._envelope(repaired)
        except UNDECODABLE:
            return None

    def _candidate(self, task_id: str, envelope: Envelope) -> Candidate:
        kind = self._types[envelope.type]
        created = _seconds(envelope.created_at)
        created_at = envelope.created_at if isinstance(envelope.created_at, str) else ""
        try:
            content = self._contents[envelope.type](envelope.content)
            reason = kind.invalid(content)
        except UNDECODABLE as error:
            reason = f"content does not fit {envelope.type}: {error}"
        if reason is not None:
            empty = Task(task_id, envelope.type, "", b"", 0, 0.0, created_at=created_at)
            return Candidate(empty, created, Failure("invalid_content", reason))
        raw = bytes(envelope.content)
        tokens = kind.tokens(content)
        task = Task(task_id, envelope.type, kind.key(content), raw, tokens, 0.0, created_at=created_at)
        return Candidate(task, created)
