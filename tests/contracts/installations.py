"""Quotas that can be killed: in memory, with a copy of what was committed, and with LMDB on a disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from common.settings.model_limits import Strategy
from common.settings.settings import Settings
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota_store import QuotaStore, limits_of


class Installation(ABC):
    """The quotas of one rate limiter; a commit makes what was put durable."""

    quotas: Quotas

    def __init__(self, configured: Settings) -> None:
        self.settings = configured

    @abstractmethod
    def put(self) -> None:
        """Write the quota windows in this turn."""

    @abstractmethod
    def commit(self) -> None:
        """End the turn."""

    @abstractmethod
    def restart(self, now: float) -> None:
        """Simulate a kill and a restart at this time (Unix seconds) with what was committed."""

    @abstractmethod
    def close(self) -> None:
        """Close the file, if there is one."""


class InMemory(Installation):
    """Quotas in memory only."""

    def __init__(self, configured: Settings, _: Path, __: pytest.MonkeyPatch, now: float) -> None:
        super().__init__(configured)
        self._written: bytes | None = None
        self._committed: bytes | None = None
        self.restart(now)

    def put(self) -> None:
        self._written = self.quotas.dump()

    def commit(self) -> None:
        self._committed, self._written = self._written or self._committed, None

    def restart(self, now: float) -> None:
        strategy = Strategy(self.settings.rate_limit_strategy)
        self.quotas = Quotas(*limits_of(self.settings), strategy, self.settings.rate_limit_timezone)
        self._written = None
        if self._committed is not None:
            self.quotas.restore(self._committed, now)

    def close(self) -> None:
        pass


class OnDisk(Installation):
    """Quotas stored in LMDB, as in the process."""

    def __init__(self, configured: Settings, folder: Path, patch: pytest.MonkeyPatch, now: float) -> None:
        super().__init__(configured)
        self._folder = folder
        self._patch = patch
        self._windows: QuotaStore | None = None
        self.restart(now)

    def put(self) -> None:
        assert self._windows is not None
        self._windows.writes[PutQuota](PutQuota())

    def commit(self) -> None:
        assert self._windows is not None
        self._windows.store.commit()

    def restart(self, now: float) -> None:
        self.close()
        self._windows = QuotaStore(self.settings, self._folder, now)
        self.quotas = self._windows.quotas

    def close(self) -> None:
        if self._windows is not None:
            self._windows.store.close()


KINDS: tuple[type[InMemory] | type[OnDisk], ...] = (InMemory, OnDisk)
