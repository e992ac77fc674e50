"""The outbox on disk: every result that the API has not accepted, the dead letters, and what was settled recently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from common.process.store import Store
from common.recently_settled import DeleteSettled, Record, decode
from common.wire.messages import Result
from stages.publisher.actions import (
    DeadLetter,
    DropDeadLetter,
    MoveToDeadLetters,
    OutboxEntry,
    PutResult,
    ReplayDeadLetter,
    Settle,
)
from stages.publisher.body import state_of

_encode = msgspec.msgpack.Encoder().encode
decode_result = msgspec.msgpack.Decoder(Result).decode
decode_letter = msgspec.msgpack.Decoder(DeadLetter).decode

DATABASES = ("results", "dead", "settled")
MOST_KEPT_BYTES = 16 * 2**20
"""This much of the results that were not sent yet is kept in memory too, so that they need not be read."""


def _entry(result: Result) -> OutboxEntry:
    return OutboxEntry(result.type, state_of(result), result.leased_at)


def _size(result: Result) -> int:
    return len(result.vector) + len(result.document)


class Outbox:
    """LMDB databases `results` (task id → Result), `dead` (task id → DeadLetter) and `settled` (time → Record)."""

    def __init__(self, state_dir: Path) -> None:
        self.store = Store(state_dir, "publisher", DATABASES)
        self._kept: dict[str, Result] = {}
        """Results that were stored and not sent yet; the first ones, because they are sent first."""
        self._kept_bytes = 0
        self.writes: dict[type, Callable[[Any], None]] = {
            PutResult: self._put,
            Settle: self._settle,
            DeleteSettled: lambda action: self.store.delete("settled", action.key),
            MoveToDeadLetters: self._move_to_dead,
            ReplayDeadLetter: self._replay,
            DropDeadLetter: lambda action: self.store.delete("dead", action.task_id.encode()),
        }

    def result(self, task_id: str) -> Result:
        """The stored result of a task; raises `KeyError` if there is none."""
        if (kept := self._kept.pop(task_id, None)) is not None:
            self._kept_bytes -= _size(kept)
            return kept
        stored = self.store.get("results", task_id.encode())
        if stored is None:
            raise KeyError(task_id)
        return decode_result(stored)

    def entries(self) -> dict[str, OutboxEntry]:
        """For each stored result, what the state keeps in memory."""
        return {task_id: _entry(result) for task_id, result in self.store.scan("results", decode_result)}

    def dead(self) -> dict[str, OutboxEntry]:
        """For each dead letter, what the state keeps in memory."""
        return {task_id: _entry(letter.result) for task_id, letter in self.store.scan("dead", decode_letter)}

    def settled(self) -> list[Record]:
        """The records of what was settled recently, oldest first."""
        return [record for _, record in self.store.scan("settled", decode)]

    def _put(self, action: PutResult) -> None:
        result = action.result
        self.store.put("results", result.id.encode(), _encode(result))
        size = _size(result)
        if self._kept_bytes + size <= MOST_KEPT_BYTES:
            self._kept[result.id] = result
            self._kept_bytes += size

    def _settle(self, action: Settle) -> None:
        for task_id in action.record.ids:
            self.store.delete("results", task_id.encode())
        self.store.put("settled", action.record.key, action.record.stored)

    def _move_to_dead(self, action: MoveToDeadLetters) -> None:
        letter = DeadLetter(self.result(action.task_id), action.status, action.reason, action.at)
        self.store.put("dead", action.task_id.encode(), _encode(letter))
        self.store.delete("results", action.task_id.encode())

    def _replay(self, action: ReplayDeadLetter) -> None:
        stored = self.store.latest("dead", action.task_id.encode())  # it may have become a dead letter in this turn
        if stored is not None:
            self.store.put("results", action.task_id.encode(), _encode(decode_letter(stored).result))
            self.store.delete("dead", action.task_id.encode())
