"""Stores on disk what the fetcher must not forget when it is killed: leases, settled tasks, dead letters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from common.process.store import Store
from common.recently_settled import DeleteSettled, Record, decode
from stages.fetcher.actions import DeleteDead, DeleteLease, Lease, PutDead, PutLease, PutSettled

_encode = msgspec.msgpack.Encoder().encode
_lease = msgspec.msgpack.Decoder(Lease).decode


class LeaseStore:
    """LMDB databases `leases` (task id → Lease), `settled` (time → Record) and `dead` (task id → empty)."""

    def __init__(self, state_dir: Path) -> None:
        self.store = Store(state_dir, "fetcher", ("leases", "settled", "dead"))
        self.writes: dict[type, Callable[[Any], None]] = {
            PutLease: self._put_lease,
            DeleteLease: lambda action: self.store.delete("leases", action.task_id.encode()),
            PutSettled: lambda action: self.store.put("settled", action.record.key, action.record.stored),
            DeleteSettled: lambda action: self.store.delete("settled", action.key),
            PutDead: lambda action: self.store.put("dead", action.task_id.encode(), b""),
            DeleteDead: lambda action: self.store.delete("dead", action.task_id.encode()),
        }

    def leases(self) -> dict[str, Lease]:
        """All committed leases, by task id."""
        return dict(self.store.scan("leases", _lease))

    def settled(self) -> list[Record]:
        """The records of recently settled tasks, oldest first."""
        return [record for _, record in self.store.scan("settled", decode)]

    def dead(self) -> list[str]:
        """Ids of the tasks whose result is a dead letter."""
        return [task_id for task_id, _ in self.store.scan("dead", len)]

    def _put_lease(self, action: PutLease) -> None:
        self.store.put("leases", action.task_id.encode(), _encode(action.lease))
