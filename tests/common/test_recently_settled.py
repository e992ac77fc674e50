"""Recently settled tasks: known for a while, then dropped, also on disk."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.recently_settled import BUCKET_S, RecentlySettled, Record

NOW = 1_750_000_000.0
KEEP = 60.0


def test_a_settled_task_is_known_with_its_time() -> None:
    lately = RecentlySettled(KEEP)
    record = lately.settle(NOW, ["a", "b"])
    assert (record.at, record.ids) == (NOW, ["a", "b"])
    assert lately.at("a") == lately.at("b") == NOW
    assert lately.at("c") is None
    assert len(lately) == 2


def test_a_settled_task_is_known_for_the_promised_time_and_then_dropped() -> None:
    lately = RecentlySettled(KEEP)
    record = lately.settle(NOW, ["a"])
    assert list(lately.forget(NOW + KEEP)) == []
    assert lately.at("a") == NOW
    assert list(lately.forget(NOW + KEEP + BUCKET_S)) == [record.key]
    assert lately.at("a") is None
    assert len(lately) == 0
    assert list(lately.forget(NOW + KEEP + BUCKET_S)) == []


def test_a_bucket_holds_what_was_settled_within_five_seconds() -> None:
    lately = RecentlySettled(KEEP)
    first = lately.settle(NOW, ["a"])
    same = lately.settle(NOW + BUCKET_S - 0.1, ["b"])
    other = lately.settle(NOW + BUCKET_S, ["c"])
    assert list(lately.forget(NOW + KEEP + BUCKET_S)) == [first.key, same.key]
    assert list(lately.forget(NOW + KEEP + 2 * BUCKET_S)) == [other.key]


def test_settling_again_counts_from_the_last_time() -> None:
    lately = RecentlySettled(KEEP)
    lately.settle(NOW, ["a"])
    lately.settle(NOW + 30, ["a"])
    lately.forget(NOW + KEEP + BUCKET_S)
    assert lately.at("a") == NOW + 30


def test_records_of_the_same_moment_have_different_keys() -> None:
    """One turn of the loop may settle several times, and a shared key would overwrite all but the last on disk."""
    lately = RecentlySettled(KEEP)
    keys = [lately.settle(NOW, [str(number)]).key for number in range(1000)]
    assert len(set(keys)) == 1000
    assert keys == sorted(keys)
    assert all(lately.at(str(number)) is not None for number in range(1000))


def test_a_restored_record_keeps_its_key_and_no_other_record_gets_it() -> None:
    lately = RecentlySettled(KEEP)
    lately.restore([Record(NOW, ["a"])])
    assert lately.settle(NOW, ["b"]).key != Record(NOW, ["a"]).key
    assert lately.at("a") == NOW


def test_the_key_of_a_dropped_record_may_be_used_again() -> None:
    lately = RecentlySettled(KEEP)
    lately.settle(NOW, ["a"])
    lately.forget(NOW + 2 * KEEP)
    assert lately.settle(NOW, ["b"]).at == NOW


@given(st.lists(st.floats(NOW, NOW + 1e6), min_size=2, max_size=50))
def test_keys_sort_as_times_do(times: list[float]) -> None:
    keys = [Record(at, []).key for at in sorted(times)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(keys))


@pytest.mark.parametrize("step", [-7200.0, -120.0, 120.0, 7200.0])
def test_a_step_of_the_wall_clock_makes_nothing_older_or_younger(step: float) -> None:
    settled = RecentlySettled(60.0)
    list(settled.forget(1_000.0, 10.0))
    record = settled.settle(1_000.0, ["a"])
    assert list(settled.forget(1_001.0 + step, 11.0)) == []
    assert settled.at("a") == 1_000.0 + max(0.0, step)
    assert list(settled.forget(1_064.0 + step, 74.0)) == []
    assert list(settled.forget(1_066.0 + step, 76.0)) == [record.key]
    assert settled.at("a") is None
