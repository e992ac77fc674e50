"""Commits beside the loop: while the disk writes, the loop goes on receiving and sending.

Rule 4 (docs/architecture.md) holds as before. The actions of a turn are performed when its writes are on disk, in the
order of the turns; a turn without writes waits for those before it. One thread commits all that has gathered meanwhile
in one transaction, so that a slow disk makes larger transactions and not a longer queue of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from common.process.store import Store, Writes


class Committed(NamedTuple):
    """Event: the writes of the oldest turns that waited are on disk."""

    turns: int
    """How many turns with writes."""


class Committer:
    """The turns whose writes are not on disk yet, and the thread that commits them."""

    def __init__(self, store: Store, post: Callable[[Any], None], failed: Callable[[BaseException], None]) -> None:
        """`post` gives an event to the loop; `failed` lets it stop with this error. Both are called by the thread."""
        self._store = store
        self._post = post
        self._failed = failed
        self._turns: deque[list[Any]] = deque()
        """For each turn with uncommitted writes: its actions, and those of the turns without writes after it."""
        self._gathered: list[Writes] = []
        self._has_work = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether everything is on disk."""
        return not self._turns

    def end_turn(self, actions: list[Any]) -> list[Any]:
        """Take over the writes and the actions of a turn; returns those that may be performed at once."""
        writes = self._store.take_writes()
        if writes:
            self._turns.append(actions)
            with self._has_work:
                self._gathered.append(writes)
                self._has_work.notify()
            return []
        if self._turns:
            self._turns[-1].extend(actions)
            return []
        return actions

    def on_committed(self, event: Committed) -> list[Any]:
        """The actions that may be performed now."""
        return [action for _ in range(event.turns) for action in self._turns.popleft()]

    def close(self) -> None:
        """End the thread, after what was handed over is committed."""
        with self._has_work:
            self._is_closing = True
            self._has_work.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while gathered := self._next():
                self._store.write(gathered)
                self._post(Committed(len(gathered)))
        except BaseException as error:  # noqa: BLE001  it is raised in the loop
            self._failed(error)

    def _next(self) -> list[Writes]:
        """Wait for writes; empty when the committer is closed."""
        with self._has_work:
            while not self._gathered and not self._is_closing:
                self._has_work.wait()
            gathered, self._gathered = self._gathered, []
        return gathered
