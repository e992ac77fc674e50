"""The table of hashes: what was added is found with its last number, in a bounded number of bytes."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.recently_settled import BUCKET_S, RecentlySettled, Record, decode
from common.settled_hashes import SettledHashes, hash_of, hashes_of

SECRET = b"0123456789abcdef"
NOW = 1_750_000_000.0
MOST_BYTES = 24
"""For each remembered task."""


def hashed(value: int) -> bytes:
    return value.to_bytes(8, "little")


def swept(table: SettledHashes, oldest: int) -> None:
    for _ in range(1000):
        table.drop_before(oldest)


@given(st.lists(st.lists(st.integers(0, 300), max_size=200), max_size=30), st.integers(0, 30))
def test_the_last_number_of_each_hash_is_found_until_it_is_dropped(batches: list[list[int]], oldest: int) -> None:
    table = SettledHashes()
    expected: dict[int, int] = {}
    for number, batch in enumerate(batches):
        table.add([hashed(value) for value in batch], number)
        expected |= dict.fromkeys(batch, number)
    assert {value: table.last_number(hashed(value)) for value in expected} == expected
    swept(table, oldest)
    kept = {value: number for value, number in expected.items() if number >= oldest}
    assert {value: table.last_number(hashed(value)) for value in expected} == {
        value: kept.get(value) for value in expected
    }


def test_a_match_across_two_entries_is_none() -> None:
    table = SettledHashes()
    first, second = hashed(0x1122334455667788), hashed(0x99AABBCCDDEEFF00)
    table.add([first], 1)
    table.add([second], 1)
    (chain,) = table._chains
    for start in range(1, 13):
        assert table.last_number(chain[start : start + 8]) is None


def test_a_table_that_grew_shrinks_again() -> None:
    table = SettledHashes()
    ids = [str(number) for number in range(20_000)]
    table.add(hashes_of(SECRET, ids), 1)
    table.add(hashes_of(SECRET, ["last"]), 2)
    assert len(table._chains) > 500
    swept(table, 2)
    assert len(table._chains) == 1
    assert table.last_number(hash_of(SECRET, "last")) == 2
    assert table.last_number(hash_of(SECRET, "5")) is None


@pytest.mark.parametrize("in_a_record", [1, 100])
def test_a_remembered_task_takes_at_most_24_bytes(in_a_record: int) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        settled = RecentlySettled(60.0)
        number = 0
        for turn in range(30_000 // in_a_record):
            ids = [f"{number + each:024x}" for each in range(in_a_record)]
            number += in_a_record
            settled.settle(NOW + turn * in_a_record * 0.002, ids)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used / number < MOST_BYTES
    assert len(settled) == number


def test_what_is_forgotten_leaves_the_memory_too() -> None:
    settled = RecentlySettled(60.0)
    for turn in range(3000):
        settled.settle(NOW + turn / 10, [f"{turn}-{each}" for each in range(10)])
        settled.forget(NOW + turn / 10)
    for tick in range(2000):
        settled.forget(NOW + 300 + tick / 10)
    assert (len(settled), settled._hashes._count, settled._hashes._chains) == (0, 0, [b""])


def test_a_record_on_disk_holds_no_ids_and_is_known_after_a_restart() -> None:
    before = RecentlySettled(60.0)
    records = [before.settle(NOW + number, [f"task-{number}", "always"]) for number in range(20)]
    assert all(b"task" not in record.stored and len(record.stored) < 60 for record in records)
    after = RecentlySettled(60.0)
    after.restore(decode(record.stored) for record in records)
    assert [after.at(f"task-{number}") for number in range(20)] == [NOW + number for number in range(20)]
    assert after.at("always") == NOW + 19
    assert after.at("another") is None
    assert after.settle(NOW + 30, ["new"]).secret == records[0].secret, "what both wrote can be read together"
    assert after.forget(NOW + 19 + 60 + BUCKET_S) == [record.key for record in records]


def test_records_of_older_versions_hold_ids_and_are_read_too() -> None:
    new = RecentlySettled(60.0).settle(NOW + 1, ["new"])
    older = [decode(b"\x92\xcb" + b"A\xda\x13\xb2\xe0\x00\x00\x00" + b"\x92\xa1a\xa1b"), Record(NOW, ["c"])]
    settled = RecentlySettled(60.0)
    settled.restore([*older, decode(new.stored)])
    assert older[0].ids == ["a", "b"]
    assert settled.at("a") == older[0].at
    assert (settled.at("c"), settled.at("new")) == (NOW, NOW + 1)
