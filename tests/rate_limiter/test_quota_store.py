"""The quota store: which settings become which limits, and the errors for a file that cannot be read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.failures.errors import Fatal
from common.process.store import Store
from common.settings.settings import Settings, read
from stages.rate_limiter.actions import PutQuota
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import WINDOWS, Unit, WindowId
from stages.rate_limiter.quota.snapshot import VERSION
from stages.rate_limiter.quota_store import KEY, QuotaStore, limits_of

MODEL = "text-embedding-3-large"
NOW = 1_780_000_000.0
Open = Callable[..., QuotaStore]


def settings(**fields: Any) -> Settings:
    required = {"api_base_url": "http://a", "oauth2_client_id": "c", "oauth2_client_secret": "s"}
    found: Settings = read(**{**required, "oauth2_token_url": "http://o", "processing_mode": "mock", **fields})
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the quota store in the folder of the test, as a process that starts at `NOW` does."""
    before: list[QuotaStore] = []

    def reopen(**fields: Any) -> QuotaStore:
        while before:
            before.pop().store.close()
        before.append(QuotaStore(settings(**fields), tmp_path, NOW))
        return before[-1]

    yield reopen
    while before:
        before.pop().store.close()


def commit(windows: QuotaStore) -> None:
    windows.writes[PutQuota](PutQuota())
    windows.store.commit()


def test_every_setting_becomes_the_limit_of_its_window() -> None:
    fields = {f"rate_limit_per_{period}": 1 + number for number, period in enumerate(Period)}
    fields |= {f"rate_limit_tokens_per_{period}": 11 + number for number, period in enumerate(Period)}
    limits, models = limits_of(settings(**fields, rate_limit_requests_per_minute=21))
    assert {window: limit for window, limit in limits.items() if limit} == {
        **{WindowId(Unit.TASKS, period): 1 + number for number, period in enumerate(Period)},
        **{WindowId(Unit.TOKENS, period): 11 + number for number, period in enumerate(Period)},
        WindowId(Unit.REQUESTS, Period.MINUTE): 21,
    }
    assert models == {}


def test_the_limits_of_a_model_apply_beside_the_global_limits(opened: Open) -> None:
    windows = opened(rate_limit_models=f'{{"{MODEL}": {{"per_day": 3}}}}', rate_limit_per_hour=5)
    shown = {(usage.scope, usage.unit, usage.period, usage.limit) for usage in windows.quotas.usage(NOW)}
    assert shown == {("", Unit.TASKS, Period.HOUR, 5), (MODEL, Unit.TASKS, Period.DAY, 3)}
    assert windows.quotas.admits(MODEL, [1] * 9, NOW) == 3
    assert windows.quotas.admits("another", [1] * 9, NOW) == 5


def test_rate_limit_enabled_false_turns_all_limits_off(opened: Open) -> None:
    fields: dict[str, Any] = {f"rate_limit_per_{period}": 1 for period in Period}
    fields["rate_limit_models"] = f'{{"{MODEL}": {{"per_day": 1, "requests_per_minute": 1}}}}'
    windows = opened(**fields, rate_limit_requests_per_minute=1, rate_limit_enabled=False)
    windows.quotas.charge(MODEL, Amounts(1000, 1000, 10), NOW)
    assert windows.quotas.admits(MODEL, [1] * 256, NOW) == 256
    assert windows.quotas.usage(NOW) == []
    assert not windows.quotas.limits(MODEL)


def test_charges_count_while_the_limits_are_turned_off(opened: Open) -> None:
    windows = opened(rate_limit_enabled=False, rate_limit_per_day=10)
    windows.quotas.charge(MODEL, Amounts(8, 0, 1), NOW)
    commit(windows)
    assert opened(rate_limit_per_day=10).quotas.admits(MODEL, [1] * 9, NOW) == 2


def test_a_limit_lowered_below_its_usage_in_the_settings_admits_nothing_until_enough_has_expired(opened: Open) -> None:
    windows = opened(rate_limit_per_hour=10)
    windows.quotas.charge(MODEL, Amounts(4, 0, 1), NOW)
    windows.quotas.charge(MODEL, Amounts(6, 0, 1), NOW + 1800)
    commit(windows)
    windows = opened(rate_limit_per_hour=5)
    (usage,) = windows.quotas.usage(NOW + 1800)
    assert (usage.current, usage.limit, usage.remaining) == (10, 5, 0)
    assert windows.quotas.admits(MODEL, [1], NOW + 1800) == 0
    opens = windows.quotas.opens_at(MODEL, 1, NOW + 1800)
    assert opens > NOW + 1800 + 3600, "when the first four expire, six are left, which is still too many"
    assert windows.quotas.admits(MODEL, [1] * 9, opens) == 5


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda saved: bytes([VERSION + 1]) + saved[1:], f"of version {VERSION + 1}, and this service reads"),
        (lambda saved: saved[:-1], "damaged: their checksum is wrong"),
        (lambda saved: saved[:200] + b"\x01" + saved[201:], "damaged: their checksum is wrong"),
        (lambda _: b"", "damaged: only 0 bytes"),
        (lambda _: bytes([VERSION]) + zlib.crc32(b"junk").to_bytes(4, "little") + b"junk", "damaged: "),
    ],
    ids=["another version", "cut off", "a flipped byte", "empty", "not a snapshot"],
)
def test_a_stored_record_that_cannot_be_read_stops_the_start(
    opened: Open, tmp_path: Path, damage: Callable[[bytes], bytes], says: str
) -> None:
    windows = opened(rate_limit_per_hour=10)
    windows.quotas.charge(MODEL, Amounts(10, 0, 1), NOW)
    windows.store.put("quota", KEY, damage(windows.quotas.dump()))
    windows.store.commit()
    with pytest.raises(Fatal) as raised:
        opened(rate_limit_per_hour=10)
    sentence = str(raised.value)
    assert sentence.startswith(f"STATE_DIR: the quota windows in {tmp_path}/rate_limiter cannot be read: ")
    assert says in sentence
    assert sentence.endswith("move the folder away to begin with empty windows")


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    QuotaStore(settings(), tmp_path, NOW).store.close()
    with closing(Store(tmp_path, "rate_limiter", ("quota",))) as store, store._env.begin(write=True) as txn:
        txn.put(b"version", b"99")
    with pytest.raises(Fatal, match=r"written by another version of this service \(format 99"):
        QuotaStore(settings(), tmp_path, NOW)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    QuotaStore(settings(), tmp_path, NOW).store.close()
    (tmp_path / "rate_limiter" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(Fatal, match=r"STATE_DIR: .* cannot be opened"):
        QuotaStore(settings(), tmp_path, NOW)


def test_the_file_does_not_grow_with_the_number_of_charges(opened: Open, tmp_path: Path) -> None:
    windows = opened(**{f"rate_limit_per_{period}": 10**9 for period in Period})
    sizes = []
    for hour in range(200):
        windows.quotas.charge(MODEL, Amounts(256, 256_000, 1), NOW + 3600 * hour)
        commit(windows)
        sizes.append((tmp_path / "rate_limiter" / "data.mdb").stat().st_blocks)
    assert max(sizes) == max(sizes[:20])
    assert len(windows.quotas.dump()) < 20_000
    assert len(WINDOWS) == 15
