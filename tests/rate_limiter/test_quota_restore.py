"""What survives a restart of the rate limiter, and which snapshots are refused."""

import math
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import AHEAD, BUCKETS, Period, RollingBuckets
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.quotas import Quotas
from stages.rate_limiter.quota.scope import Quota, QuotaLimits, Receipt
from stages.rate_limiter.quota.snapshot import VERSION, QuotaFileError, ScopeSnapshot, Snapshot, decode, encode

NOON = 1_747_224_000.0  # 2025-05-14T12:00Z, a Wednesday
MODEL = "model"
TASKS: QuotaLimits = {WindowId(Unit.TASKS, period): 100 for period in Period}
TOKENS_DAY = WindowId(Unit.TOKENS, Period.DAY)

both = pytest.mark.parametrize("strategy", Strategy)


def quotas(strategy: Strategy = Strategy.ROLLING, timezone: str = "UTC", limits: QuotaLimits = TASKS) -> Quotas:
    return Quotas(limits, {MODEL: limits}, strategy, timezone)


def restored(old: Quotas, now: float, new: Quotas) -> Quotas:
    new.restore(old.dump(), now)
    return new


def current(some: Quotas, now: float) -> dict[str, int]:
    return {usage.period: usage.current for usage in some.usage(now) if usage.scope == MODEL}


@both
def test_restored_windows_are_equal_to_the_saved_ones(strategy: Strategy) -> None:
    old = quotas(strategy)
    for hour in range(60):
        old.charge(MODEL, Amounts(1, 10, 1), NOON + 3_600 * hour)
    now = NOON + 3_600 * 59 + 1
    new = restored(old, now, quotas(strategy))
    assert new.usage(now) == old.usage(now)
    assert new.dump() == old.dump()
    assert new.latest == old.latest


@both
def test_charges_that_expired_while_the_process_was_down_are_not_counted(strategy: Strategy) -> None:
    old = quotas(strategy)
    old.charge(MODEL, Amounts(100, 0, 1), NOON)
    new = restored(old, NOON + 86_400 * 1.5, quotas(strategy))
    assert current(new, NOON + 86_400 * 1.5) == {"minute": 0, "hour": 0, "day": 0, "week": 100, "month": 100}


@both
def test_a_clock_that_was_set_back_during_a_restart_frees_no_quota(strategy: Strategy) -> None:
    old = quotas(strategy)
    old.charge(MODEL, Amounts(100, 0, 1), NOON)
    new = restored(old, NOON - 86_400, quotas(strategy))
    assert new.latest == NOON
    assert new.admits(MODEL, [1], NOON - 86_400) == 0


@both
def test_a_receipt_can_be_settled_and_refunded_after_a_restart(strategy: Strategy) -> None:
    old = quotas(strategy, limits={TOKENS_DAY: 1_000})
    receipt = msgspec.msgpack.decode(msgspec.msgpack.encode(old.charge(MODEL, Amounts(9, 900, 1), NOON)), type=Receipt)
    new = restored(old, NOON + 60, quotas(strategy, limits={TOKENS_DAY: 1_000}))
    new.settle(receipt, 900, 400, NOON + 61)
    assert current(new, NOON + 61) == {"day": 400}
    new.refund(receipt, Amounts(0, 400, 0), NOON + 62)
    assert current(new, NOON + 62) == {"day": 0}


@both
def test_a_limit_lowered_below_its_usage_admits_nothing_until_enough_has_expired(strategy: Strategy) -> None:
    old = quotas(strategy)
    old.charge(MODEL, Amounts(90, 0, 1), NOON)
    lower = restored(old, NOON + 1, quotas(strategy, limits={WindowId(Unit.TASKS, Period.HOUR): 50}))
    usage = lower.usage(NOON + 1)[0]
    assert (usage.current, usage.limit, usage.remaining) == (90, 50, 0)
    opens = lower.opens_at(MODEL, 1, NOON + 1)
    assert lower.admits(MODEL, [1] * 90, math.nextafter(opens, 0)) == 0
    assert lower.admits(MODEL, [1] * 90, opens) == 50


@both
def test_a_limit_that_is_set_later_counts_earlier_charges(strategy: Strategy) -> None:
    old = Quotas({}, {MODEL: {}}, strategy)
    old.charge(MODEL, Amounts(30, 0, 1), NOON)
    assert current(restored(old, NOON, quotas(strategy)), NOON) == dict.fromkeys(Period, 30)


@pytest.mark.parametrize(("before", "after"), [(Strategy.ROLLING, Strategy.FIXED), (Strategy.FIXED, Strategy.ROLLING)])
def test_the_counters_are_right_after_a_change_of_the_strategy(before: Strategy, after: Strategy) -> None:
    changed, always = quotas(before), quotas(after)
    for charged in (NOON - 86_400, NOON - 1_800.5, NOON - 0.5, NOON):
        receipts = [each.charge(MODEL, Amounts(7, 0, 1), charged) for each in (changed, always)]
    new = restored(changed, NOON + 1, quotas(after))
    assert new.usage(NOON + 1) == always.usage(NOON + 1)
    for each, receipt in zip((new, always), receipts, strict=True):
        each.refund(receipt, Amounts(3, 0, 0), NOON + 1)
    assert new.usage(NOON + 1) == always.usage(NOON + 1)


def test_another_timezone_starts_from_the_larger_count() -> None:
    old = quotas(Strategy.FIXED, "UTC")
    old.charge(MODEL, Amounts(40, 0, 1), NOON - 13 * 3_600)  # yesterday in UTC, but today in Tokyo
    old.charge(MODEL, Amounts(5, 0, 1), NOON)
    assert current(old, NOON)["day"] == 5
    new = restored(old, NOON, quotas(Strategy.FIXED, "Asia/Tokyo"))
    assert current(new, NOON) == {"minute": 5, "hour": 5, "day": 45, "week": 45, "month": 45}
    assert new.opens_at(MODEL, 1, NOON) == NOON
    assert current(new, NOON + 3 * 3_600)["day"] == 0  # midnight in Tokyo


def test_the_charges_of_the_month_are_kept_in_another_timezone() -> None:
    end_of_month = 1_748_736_000.0 - 60  # 2025-05-31T23:59Z: a rolling month of 30 days has lost the first day
    old = quotas(Strategy.FIXED, "UTC")
    old.charge(MODEL, Amounts(40, 0, 1), end_of_month - 31 * 86_400 + 120)
    old.charge(MODEL, Amounts(5, 0, 1), end_of_month)
    assert current(restored(old, end_of_month, quotas(Strategy.FIXED, "America/Lima")), end_of_month)["month"] == 45


def test_the_size_of_a_snapshot_does_not_depend_on_the_charges() -> None:
    some = quotas()
    sizes = {len(some.dump())}
    now = 0.0
    for round_ in range(200):
        some.charge(MODEL, Amounts(10**round_ if round_ < 12 else 5, 10**9, 1), now)
        sizes.add(len(some.dump()))
        now = NOON + 3_333.3 * round_
    assert len(sizes) == 1
    assert sizes.pop() < 36_000


def test_models_that_lost_their_limits_are_dropped_and_new_models_start_empty() -> None:
    old = Quotas(TASKS, {"old": TASKS, "kept": TASKS}, Strategy.ROLLING)
    for model in ("old", "kept"):
        old.charge(model, Amounts(10, 0, 1), NOON)
    new = Quotas(TASKS, {"kept": TASKS, "new": TASKS}, Strategy.ROLLING)
    new.restore(old.dump(), NOON)
    assert {(usage.scope, usage.current) for usage in new.usage(NOON)} == {("", 20), ("kept", 10), ("new", 0)}
    new.refund(Receipt(NOON, "old"), Amounts(10, 0, 1), NOON)
    assert {(usage.scope, usage.current) for usage in new.usage(NOON)} == {("", 10), ("kept", 10), ("new", 0)}


def test_a_snapshot_of_version_1_is_read() -> None:
    """It had no buckets after the current one."""
    slots, ring = 121, BUCKETS + 1 + AHEAD
    old = np.zeros((3, 5, slots), np.int64)
    expected = Quota(TASKS, Strategy.ROLLING)
    buckets = RollingBuckets()
    for age in (0.0, 30.0, 60.0):
        expected.charge(Amounts(5, 7, 1), NOON - 60.0 + age)
        for column, period in enumerate(Period):
            old[:, column, buckets.number(period, NOON - 60.0 + age) % slots] += (5, 7, 1)
    fixed = expected.snapshot().fixed
    body = msgspec.msgpack.encode(Snapshot("UTC", {"": ScopeSnapshot(NOON, old.astype("<i8").tobytes(), fixed)}))
    loaded = Quotas(TASKS, {}, Strategy.ROLLING)
    loaded.restore(bytes([1]) + zlib.crc32(body).to_bytes(4, "little") + body, NOON)
    found = np.frombuffer(decode(loaded.dump()).scopes[""].rolling, "<i8").reshape(3, 5, ring)
    assert np.array_equal(found, np.frombuffer(expected.snapshot().rolling, "<i8").reshape(3, 5, ring))
    assert loaded.opens_at(MODEL, 0, NOON) == expected.opens_at(0, NOON)


def test_a_snapshot_of_another_version_is_refused() -> None:
    data = bytes([VERSION + 1]) + quotas().dump()[1:]
    with pytest.raises(QuotaFileError, match="are of version 3, and this service reads version 2"):
        quotas().restore(data, NOON)


@given(st.data())
def test_a_damaged_snapshot_is_refused_and_changes_nothing(data: st.DataObject) -> None:
    some = quotas()
    some.charge(MODEL, Amounts(7, 70, 1), NOON)
    good = some.dump()
    place = data.draw(st.integers(0, len(good) - 1))
    flipped = good[place] ^ data.draw(st.integers(1, 255))
    damaged = data.draw(
        st.sampled_from([good[:place], good[:place] + bytes([flipped]) + good[place + 1 :], good + b"\0"])
    )
    with pytest.raises(QuotaFileError):
        some.restore(damaged, NOON)
    assert some.dump() == good


@given(st.binary(max_size=64))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(QuotaFileError):
        quotas().restore(data, NOON)


@pytest.mark.parametrize(
    "body", [b"\xc1", msgspec.msgpack.encode(["UTC"]), msgspec.msgpack.encode({"timezone": "UTC"})]
)
def test_a_snapshot_with_another_structure_is_refused(body: bytes) -> None:
    data = bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body
    with pytest.raises(QuotaFileError, match="are damaged"):
        quotas().restore(data, NOON)


GOOD = decode(quotas().dump()).scopes[""]


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.structs.replace(GOOD, latest=math.nan),
        msgspec.structs.replace(GOOD, latest=-1.0),
        msgspec.structs.replace(GOOD, latest=1e300),
        msgspec.structs.replace(GOOD, rolling=GOOD.rolling[8:]),
        msgspec.structs.replace(GOOD, fixed=b""),
        msgspec.structs.replace(GOOD, fixed=b"\xff" * len(GOOD.fixed)),
    ],
)
def test_a_snapshot_with_impossible_values_is_refused(bad: ScopeSnapshot) -> None:
    with pytest.raises(QuotaFileError, match="the saved quotas are damaged: scope 'model'"):
        quotas().restore(encode(Snapshot("UTC", {"": GOOD, MODEL: bad})), NOON)
