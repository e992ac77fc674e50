"""The tasks of the API stand-in, and a record of every PATCH."""

import itertools
import random
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

FINAL = frozenset({"succeeded", "failed"})


class RecordedPatch(msgspec.Struct, gc=False, omit_defaults=True):
    """One PATCH as it was received.

    With a fault, a PATCH can be `accepted` although its response was an error.
    """

    time: float
    """When it was received, in Unix seconds."""
    accepted: bool
    """Whether the API stored it."""
    status: int
    """The status that the caller saw; 0 if a fault closed the connection instead."""
    state: str | None = None
    """The state that it gives to the task."""
    digest: int | None = None
    """CRC-32 of the body."""
    length: int | None = None
    """Number of components of the vector."""
    error_code: str | None = None
    """The code of a failure."""
    result: msgspec.Raw | None = None
    """The result; only with the setting `keep_results`."""


class StandInTask:
    """One task. Its JSON is rendered once, in state pending."""

    __slots__ = ("created", "digest", "final", "patches", "rendered", "state", "task_type")

    def __init__(self, rendered: bytes, created: tuple[str, int], task_type: str) -> None:
        self.rendered = rendered
        self.created = created
        self.task_type = task_type
        self.state = ""
        """The state; empty until the task is in the store."""
        self.patches: list[RecordedPatch] = []
        self.final = 0
        """Number of results accepted since the task was last queued."""
        self.digest: int | None = None
        """The digest of the first of these results."""


class NewTask(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A task given field by field; missing fields get defaults."""

    id: str | None = msgspec.field(default=None, name="_id")
    type: str = "text_embedding"
    state: str = "pending"
    content: Any = None
    text: str = ""
    model: str = "text-embedding-3-small"
    callback_route: str = msgspec.field(default="verification_update_embedding", name="callbackRoute")
    callback_params: dict[str, Any] | None = msgspec.field(default=None, name="callbackParams")
    created_at: str | None = msgspec.field(default=None, name="createdAt")


def timestamp() -> str:
    """The current time in the format of Mongoose."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _own_id(element: dict[str, Any]) -> str:
    """The id as it is written in a path; empty if the element has none."""
    for value in (element.get("_id"), element.get("id")):
        plain = value.get("$oid") if isinstance(value, dict) else value
        if isinstance(plain, str | int) and not isinstance(plain, bool) and plain != "":
            return str(plain)
    return ""


class TaskStore:
    """All tasks; the pending ones are ordered by `createdAt`."""

    def __init__(self) -> None:
        self._tasks: dict[str, StandInTask] = {}
        self._pending: dict[str, StandInTask] = {}
        self._in_order = True
        self._unknown_ids: dict[str, list[RecordedPatch]] = {}
        """PATCHes to ids that do not exist."""
        self._numbers = itertools.count()
        self._text_numbers = itertools.count()
        self._id_middle = secrets.token_hex(5)
        self._shuffler = random.Random(0)
        self.counts: dict[str, int] = {"pending": 0}
        """Number of tasks by state."""
        self.listed = 0
        """Elements of all pages so far: a task counts each time that it was listed."""
        self.accepted = 0
        self.accepted_twice = 0
        self.digests_differ = 0

    # Queueing.

    def next_text_number(self) -> int:
        """A number that was not used in a text before."""
        return next(self._text_numbers)

    def add(self, new: NewTask) -> str:
        """Queue a task; returns its id. Raises ValueError if the id exists already."""
        if new.id in self._tasks:
            raise ValueError(f"there is already a task {new.id}")
        number = next(self._numbers)
        now = timestamp()
        task_id = new.id or f"{int(time.time()):08x}{self._id_middle}{number & 0xFFFFFF:06x}"
        created = new.created_at or now
        document = {
            "_id": task_id,
            "type": new.type,
            "state": "pending",
            "content": {"text": new.text, "model": new.model} if new.content is None else new.content,
            "callbackRoute": new.callback_route,
            "callbackParams": new.callback_params or {"targetId": f"{number:024x}", "field": "embedding"},
            "createdAt": created,
            "updatedAt": now,
            "__v": 0,
        }
        task = StandInTask(msgspec.json.encode(document), (created, number), new.type)
        self._tasks[task_id] = task
        if new.state == "pending":
            self._queue(task_id, task)
        else:
            self._set_state(task, new.state)
        return task_id

    def add_raw(self, text: bytes) -> str:
        """Put any JSON into the pending page. Returns its id: its own one if it can be used, in any of the forms."""
        number = next(self._numbers)
        element = msgspec.json.decode(text)
        own = _own_id(element) if isinstance(element, dict) else ""
        task_id = own if own and own not in self._tasks else f"raw-{number}"
        task = StandInTask(text, (timestamp(), number), "raw")
        self._tasks[task_id] = task
        self._queue(task_id, task)
        return task_id

    def requeue(self, ids: Iterable[str]) -> int:
        """Set tasks to pending again; returns how many existed."""
        count = 0
        for task_id in ids:
            task = self._tasks.get(task_id)
            if task is not None:
                task.final = 0
                self._queue(task_id, task)
                count += 1
        return count

    def _set_state(self, task: StandInTask, state: str) -> None:
        if task.state:
            self.counts[task.state] -= 1
        task.state = state
        self.counts[state] = self.counts.get(state, 0) + 1

    def _queue(self, task_id: str, task: StandInTask) -> None:
        self._set_state(task, "pending")
        last = next(reversed(self._pending.values()), None)
        self._in_order = self._in_order and (last is None or last.created <= task.created)
        self._pending[task_id] = task

    # Reading.

    def get(self, task_id: str) -> StandInTask | None:
        """The task with this id, or None."""
        return self._tasks.get(task_id)

    def page(self, limit: int | None, order: str) -> bytes:
        """The pending tasks as a JSON array."""
        if not self._in_order:
            self._pending = dict(sorted(self._pending.items(), key=lambda item: item[1].created))
            self._in_order = True
        tasks: Iterable[StandInTask] = self._pending.values()
        if order == "newest":
            tasks = reversed(self._pending.values())
        elif order == "shuffled":
            tasks = self._shuffler.sample(list(self._pending.values()), len(self._pending))
        elements = [task.rendered for task in itertools.islice(tasks, limit)]
        self.listed += len(elements)
        return b"[" + b",".join(elements) + b"]"

    def in_state(self, state: str, limit: int | None) -> bytes:
        """The tasks in one state as a JSON array."""
        if state == "pending":
            return self.page(limit, "createdAt")
        chosen = itertools.islice((task for task in self._tasks.values() if task.state == state), limit)
        shown = b'"state":"%b"' % state.encode()
        return b"[" + b",".join([task.rendered.replace(b'"state":"pending"', shown, 1) for task in chosen]) + b"]"

    def record(self) -> Iterator[tuple[str, StandInTask | None, list[RecordedPatch]]]:
        """Every id with its PATCHes: first the tasks, then the ids that do not exist."""
        for task_id, task in self._tasks.items():
            yield task_id, task, task.patches
        for task_id, patches in self._unknown_ids.items():
            yield task_id, None, patches

    # PATCHes.

    def note(self, task_id: str, patch: RecordedPatch) -> None:
        """Record a PATCH that was not accepted."""
        task = self._tasks.get(task_id)
        patches = self._unknown_ids.setdefault(task_id, []) if task is None else task.patches
        patches.append(patch)

    def accept(self, task_id: str, task: StandInTask, patch: RecordedPatch) -> None:
        """Record an accepted PATCH, and change the task."""
        task.patches.append(patch)
        state = patch.state or ""
        self._set_state(task, state)
        self._pending.pop(task_id, None)
        if state in FINAL:
            self.accepted += 1
            task.final += 1
            if task.final == 1:
                task.digest = patch.digest
                return
            if task.final == 2:
                self.accepted_twice += 1
            if patch.digest != task.digest and task.digest is not None:
                self.digests_differ += 1
                task.digest = None  # so that each task is counted at most once
