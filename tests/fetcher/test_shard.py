"""Shards of the tasks: disjoint, complete, of about equal size, and the same in every version."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.fetcher.shard import Shard


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 64))
def test_each_task_belongs_to_exactly_one_shard(task_id: str, count: int) -> None:
    assert sum(Shard(index, count).owns(task_id) for index in range(count)) == 1


@pytest.mark.parametrize("count", [2, 3, 8])
def test_ids_that_count_up_spread_evenly_over_the_shards(count: int) -> None:
    ids = [f"66f1a2b3c4d5e6f7{number:08x}" for number in range(10_000)]
    parts = Counter(index for task_id in ids for index in range(count) if Shard(index, count).owns(task_id))
    assert min(parts.values()) > 0.9 * len(ids) / count


def test_a_single_shard_owns_every_task() -> None:
    assert Shard().owns("anything")


def test_the_shard_of_a_task_never_changes_between_versions() -> None:
    """Two versions of this service may share an API: these numbers are a promise."""
    ids = ("66f1a2b3c4d5e6f700000000", "66f1a2b3c4d5e6f700000001", "ä")
    assert [next(index for index in range(7) if Shard(index, 7).owns(task_id)) for task_id in ids] == [4, 3, 1]
