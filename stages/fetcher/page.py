"""Reading a page of pending tasks: a JSON array of any size, element by element, in bounded memory.

One malformed element never hides the rest: the array is cut into its elements first, and each is decoded alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from common.errors import Transient
from common.messages import Failure, Task
from common.task_types import TaskType

SLICE = 4 * 2**20
"""Bytes decoded at a time; a single element may be longer, up to `LARGEST_ELEMENT`."""
LARGEST_ELEMENT = 64 * 2**20
"""Bytes; an element that has not ended by then is no task."""


class Envelope(msgspec.Struct):
    """What is read of an element before its type is known; NestJS with Mongoose sends `_id`."""

    type: str
    mongo_id: str | None = msgspec.field(name="_id", default=None)
    plain_id: str | None = msgspec.field(name="id", default=None)
    content: msgspec.Raw = msgspec.Raw(b"null")
    created_at: str | float | None = msgspec.field(name="createdAt", default=None)
    state: str = "pending"


class Candidate(msgspec.Struct):
    """One element of a page that concerns us: a task, or the reason why it cannot be processed."""

    task: Task
    created: float
    """Seconds since the epoch; infinity if the API does not say."""
    failure: Failure | None = None


class Page(msgspec.Struct):
    """What one poll brought; the event that the upstream posts."""

    requested_at: float
    """When it was asked for (wall seconds): nothing that was settled later can be in it as news."""
    candidates: list[Candidate]
    elements: int
    """How many elements were read, known or not."""
    whole: bool
    """False when reading stopped because enough was found."""
    skipped: dict[str, int]
    """Elements that were left alone, by reason."""
    unknown_types: list[str]


def elements(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """Cut a JSON array into its elements; raise `Transient` if it is none (HTML from a proxy, an error object)."""
    rest = bytearray()
    opened = False
    for chunk in chunks:
        rest += chunk
        if not opened:
            if not rest.lstrip():
                continue
            opened = _open(rest)
        if len(rest) < SLICE:
            continue
        yield from _complete(rest)
        if len(rest) > LARGEST_ELEMENT:
            raise Transient("GET pending answered an element of more than 64 MB")
    if not opened:
        raise Transient("GET pending answered an empty body")
    yield from _decode(rest)


def _open(rest: bytearray) -> bool:
    if rest.lstrip()[:1] != b"[":
        start = bytes(rest.lstrip()[:1]).decode("ascii", "replace")
        raise Transient(f"GET pending answered no JSON array (it begins with {start!r}, {len(rest)} bytes so far)")
    return True


def _complete(rest: bytearray) -> Iterator[memoryview]:
    """Yield the elements that have ended, and leave the array of the others in `rest`.

    A `}` before a comma may also end something inside an element, or stand in a text: the decoder tells.
    """
    end = len(rest)
    while True:
        end = rest.rfind(b"}", 0, end)
        if end < 0:
            return
        after = bytes(rest[end + 1 : end + 64]).lstrip()
        if after[:1] != b",":
            continue
        try:
            found = msgspec.json.decode(rest[: end + 1] + b"]", type=list[msgspec.Raw])
        except msgspec.DecodeError:
            continue
        comma = rest.index(b",", end)
        rest[: comma + 1] = b"["
        yield from (memoryview(raw) for raw in found)
        return


def _decode(array: bytearray) -> Iterator[memoryview]:
    try:
        found = msgspec.json.decode(bytes(array), type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise Transient(f"GET pending answered broken JSON ({len(array)} bytes at its end)") from error
    return (memoryview(raw) for raw in found)


def _seconds(created_at: str | float | None) -> float:
    if isinstance(created_at, str):
        try:
            return datetime.fromisoformat(created_at).timestamp()
        except ValueError:
            return float("inf")
    return float("inf") if created_at is None else created_at / 1000


class Reader:
    """Turns a page into candidates, oldest first; `known` ids need no second look."""

    def __init__(self, task_types: Mapping[str, TaskType[Any]]) -> None:
        self._types = task_types
        self._envelope = msgspec.json.Decoder(Envelope).decode
        self._contents = {name: msgspec.json.Decoder(kind.content).decode for name, kind in task_types.items()}

    def read(
        self,
        chunks: Iterable[bytes],
        requested_at: float,
        wanted: int,
        known: Container[str],
        deferred_keys: Container[str] = (),
    ) -> Page:
        """Read until `wanted` candidates are found or the page ends; raise `Transient` if it is no array."""
        found: dict[str, Candidate] = {}
        skipped: Counter[str] = Counter()
        unknown: set[str] = set()
        count, whole = 0, True
        for raw in elements(chunks):
            count += 1
            try:
                envelope = self._envelope(raw)
            except msgspec.MsgspecError:
                skipped["malformed"] += 1
                continue
            task_id = envelope.mongo_id or envelope.plain_id
            if not task_id or len(task_id.encode()) > 500:
                skipped["no_id"] += 1
            elif envelope.state != "pending":
                skipped["not_pending"] += 1
            elif envelope.type not in self._types:
                skipped["unknown_type"] += 1
                unknown.add(envelope.type[:64])
            elif task_id in known:
                skipped["known"] += 1
            elif task_id not in found:
                candidate = self._candidate(task_id, envelope)
                if candidate.task.key in deferred_keys:
                    skipped["deferred"] += 1
                    continue
                found[task_id] = candidate
                if len(found) >= wanted:
                    whole = False
                    break
        candidates = sorted(found.values(), key=lambda candidate: candidate.created)
        return Page(requested_at, candidates, count, whole, dict(skipped), sorted(unknown))

    def _candidate(self, task_id: str, envelope: Envelope) -> Candidate:
        kind = self._types[envelope.type]
        created = _seconds(envelope.created_at)
        created_at = envelope.created_at if isinstance(envelope.created_at, str) else ""
        try:
            content = self._contents[envelope.type](envelope.content)
            reason = kind.invalid(content)
        except msgspec.MsgspecError as error:
            reason = f"content does not fit {envelope.type}: {error}"
        if reason is not None:
            nothing = Task(task_id, envelope.type, "", b"", 0, 0.0, created_at=created_at)
            return Candidate(nothing, created, Failure("invalid_content", reason))
        raw = bytes(envelope.content)
        task = Task(
            task_id, envelope.type, kind.key(content), raw, kind.tokens(content), 0.0, created_at=created_at
        )  # fmt: skip
        return Candidate(task, created)
