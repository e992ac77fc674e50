"""The quota windows on disk (LMDB): loaded at the start, stored in the transaction of the turn that charged them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.failures.errors import Fatal
from common.process.store import Store
from common.settings.model_limits import Strategy
from common.settings.settings import Settings
from common.wire.timing import REACHED_WITHIN_S
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.scope import QuotaLimits
from stages.rate_limiter.quota.snapshot import QuotaFileError
from stages.rate_limiter.quota_metrics import MeasuredQuotas

KEY = b"windows"


def limits_of(settings: Settings) -> tuple[QuotaLimits, Mapping[str, QuotaLimits]]:
    """The limits for all models together, and those of single models; no limits with RATE_LIMIT_ENABLED=false."""
    if not settings.rate_limit_enabled:
        return {}, {}
    own: dict[str, QuotaLimits] = {model: _table(limits, "") for model, limits in settings.rate_limit_models.items()}
    return _table(settings, "rate_limit_"), own


def _table(named: object, prefix: str) -> dict[WindowId, int]:
    """Limits by window, from an object that has them by name: `per_day` for tasks, `tokens_per_day` for tokens."""
    limits = {WindowId(Unit.REQUESTS, Period.MINUTE): getattr(named, f"{prefix}requests_per_minute")}
    for period in Period:
        limits[WindowId(Unit.TASKS, period)] = getattr(named, f"{prefix}per_{period}")
        limits[WindowId(Unit.TOKENS, period)] = getattr(named, f"{prefix}tokens_per_{period}")
    return limits


class QuotaStore:
    """The store of one installation's quotas."""

    def __init__(self, settings: Settings, state_dir: Path, now_wall: float) -> None:
        """Open the store and load `quotas`; raises `Fatal` if what was stored cannot be read."""
        strategy = Strategy(settings.rate_limit_strategy)
        self.quotas = MeasuredQuotas(*limits_of(settings), strategy, settings.rate_limit_timezone, REACHED_WITHIN_S)
        self.store = Store(state_dir, "rate_limiter", ("quota",))
        self.writes: dict[type, Callable[[Any], None]] = {PutQuota: self._put}
        saved = self.store.get("quota", KEY)
        if saved is None:
            return
        try:
            self.quotas.restore(saved, now_wall)
        except QuotaFileError as error:
            raise Fatal(
                f"STATE_DIR: the quota windows in {self.store.path} cannot be read: {error}; "
                "move the folder away to begin with empty windows"
            ) from error

    def _put(self, _: PutQuota) -> None:
        self.store.put("quota", KEY, self.quotas.dump())
