"""Keeps the fetcher's list of dead letters equal to the publisher's: their tasks are pending, but not to be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.process.actions import Instant
from stages.fetcher.actions import DeleteDead, DeleteLease, PutDead
from stages.fetcher.lease_table import Event, LeaseTable, Whereabouts


def add(table: LeaseTable, task_id: str, now: Instant) -> Iterator[Any]:
    """The task's result is a dead letter, so its lease ends."""
    moved = table.move(task_id, Event.DEAD_LETTERED, now)
    yield DeleteLease(task_id)
    if moved:
        yield PutDead(task_id)


def end(table: LeaseTable, task_id: str, now: Instant) -> Iterator[Any]:
    """The dead letter, if there is one, was dropped; its task is new again."""
    if table.whereabouts(task_id) is Whereabouts.DEAD:
        table.move(task_id, Event.DEAD_LETTER_ENDED, now)
        yield DeleteDead(task_id)


def adopt(table: LeaseTable, listed: set[str], held: set[str], now: Instant) -> Iterator[Any]:
    """Take over the publisher's list: a `Published` that came while this process was dead is not repeated.

    A dead letter that the publisher holds but does not list is being replayed, and remains one.
    """
    known = table.ids(Whereabouts.DEAD)
    for task_id in listed - known:
        yield from add(table, task_id, now)
    for task_id in known - listed - held:
        yield from end(table, task_id, now)
