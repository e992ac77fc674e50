"""The quota windows on disk: restored at start, stored in the same transaction as the turn that charged them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.failures.errors import Fatal
from common.process import metrics
from common.process.store import Store
from common.settings.settings import Settings
from stages.rate_limiter.quota.buckets import Period, Strategy
from stages.rate_limiter.quota.counters import Counts, Unit, Window
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import Limits
from stages.rate_limiter.quota.snapshot import QuotaFileError
from stages.rate_limiter.state import PutQuota

KEY = b"windows"


def limits_of(settings: Settings) -> tuple[Limits, Mapping[str, Limits]]:
    """The limits for all that is sent, and those of single models; none of them with RATE_LIMIT_ENABLED=false."""
    if not settings.rate_limit_enabled:
        return {}, {}
    own: dict[str, Limits] = {model: _table(limits, "") for model, limits in settings.rate_limit_models.items()}
    return _table(settings, "rate_limit_"), own


def _table(named: object, prefix: str) -> dict[Window, int]:
    """Limits by window from what has them by name: `per_day` for tasks, `tokens_per_day` for tokens."""
    limits = {Window(Unit.REQUESTS, Period.MINUTE): getattr(named, f"{prefix}requests_per_minute")}
    for period in Period:
        limits[Window(Unit.TASKS, period)] = getattr(named, f"{prefix}per_{period}")
        limits[Window(Unit.TOKENS, period)] = getattr(named, f"{prefix}tokens_per_{period}")
    return limits


class Windows(Quotas):
    """The quotas of one installation, with LMDB behind them; a check is measured."""

    def __init__(self, settings: Settings, state_dir: Path) -> None:
        strategy = Strategy(settings.rate_limit_strategy)
        super().__init__(*limits_of(settings), strategy, settings.rate_limit_timezone)
        self.store = Store(state_dir, "rate_limiter", ("quota",))
        self.writes: dict[type, Callable[[Any], None]] = {PutQuota: lambda _: self.store.put("quota", KEY, self.dump())}
        saved = self.store.get("quota", KEY)
        if saved is None:
            return
        try:
            self.restore(saved, time.time())
        except QuotaFileError as error:
            raise Fatal(
                f"STATE_DIR: the quota windows in {self.store.path} cannot be read: {error}; "
                "move the folder away to begin with empty windows"
            ) from error

    def admits(self, model: str, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """As `Quotas.admits`, measured."""
        with metrics.RATE_LIMIT_CHECK.time():
            return super().admits(model, token_estimates, now)
