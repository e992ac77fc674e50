"""Texts that an embedder of this machine is embedding right now, so that another one waits for them, and pays nothing.

flights.py does this between the threads of a process; this, between processes, in the cache's LMDB environment. A
claim is 16 bytes of hash → process id and time. Nobody waits while others wait for him: claims are dropped before their
holder looks at what it left to others. A process that dies, or is stopped, leaves claims behind, which count no more:
the rate limiter gives its tasks to another, which must not wait for it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages.embedder.reuse.cache import Cache

LOOK_EVERY = 0.02
"""Seconds between two looks whether the others are done."""
OLDEST = 180.0
"""Seconds; an older claim is not believed. A batch waits no longer for its provider, OPENAI_TIMEOUT and all."""

_claim = struct.Struct("<Id")


class Claims:
    """The claims of this process, and what it sees of others'."""

    def __init__(self, cache: Cache, stopping: Callable[[float], bool]) -> None:
        """`stopping` waits so many seconds; it returns True, and at once, when the embedder is told to stop."""
        self._cache = cache
        self._stopping = stopping
        self._pid = os.getpid()

    def take(self, keys: Iterable[bytes]) -> set[bytes]:
        """Claim these; return those that another process has claimed, or has put into the cache meanwhile."""

        def claim(txn: Any) -> set[bytes]:
            others = set()
            own = _claim.pack(self._pid, time.time())
            for key in keys:
                if self._cache.has(txn, key) or self._is_others(txn.get(key, db=self._cache.claims)):
                    others.add(key)
                else:
                    txn.put(key, own, db=self._cache.claims)
            return others

        return self._cache.change(claim) or set()

    def drop(self, keys: Iterable[bytes]) -> None:
        """Let others have these."""

        def free(txn: Any) -> None:
            for key in keys:
                txn.delete(key, db=self._cache.claims)

        self._cache.change(free)

    def wait(self, keys: Iterable[bytes]) -> None:
        """Wait until no other process has claimed any of these."""
        waiting = list(keys)

        def look(txn: Any) -> list[bytes]:
            return [key for key in waiting if self._is_others(txn.get(key, db=self._cache.claims))]

        while waiting := self._cache.look(look) or []:
            if self._stopping(LOOK_EVERY):
                return

    def _is_others(self, claim: Any) -> bool:
        if claim is None or len(claim) != _claim.size:
            return False
        pid, since = _claim.unpack(claim)
        return pid != self._pid and abs(time.time() - since) < OLDEST and _runs(pid)


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is neither stopped nor dead and unmourned (proc(5), field 3)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] not in ([b"T"], [b"t"], [b"Z"], [b"X"])
