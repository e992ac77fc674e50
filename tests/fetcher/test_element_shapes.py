"""Ids and dates as real APIs write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.fetcher.element_shapes import UNKNOWN_AGE, created_at, task_id

OBJECT_ID = "65f0c0ffee65f0c0ffee65f0"


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ({"_id": OBJECT_ID}, OBJECT_ID),
        ({"_id": {"$oid": OBJECT_ID}}, OBJECT_ID),
        ({"_id": None, "id": "b"}, "b"),
        ({"_id": "", "id": "b"}, "b"),
        ({"id": 42}, "42"),
        ({"id": 42.0}, "42"),
        ({"_id": {"$numberLong": "9007199254740993"}}, "9007199254740993"),
        ({"id": "0b0c4ac6-6c3a-4b6f-9d5e-1f1f7a6f6f6f"}, "0b0c4ac6-6c3a-4b6f-9d5e-1f1f7a6f6f6f"),
        ({"_id": "a", "id": "b"}, "a"),
    ],
)
def test_the_id_is_read_from_each_shape(element: dict[str, Any], expected: str) -> None:
    assert task_id(element) == expected


@pytest.mark.parametrize(
    "element",
    [
        {},
        {"_id": None},
        {"_id": True},
        {"_id": []},
        {"_id": {}},
        {"_id": 1.5},
        {"_id": "  "},
        {"id": "a\nb"},
        {"id": "x" * 2000},
    ],
)
def test_what_cannot_be_sent_back_in_a_path_is_not_an_id(element: dict[str, Any]) -> None:
    assert task_id(element) == ""


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-25T08:00:00.000Z",
        "2026-11-25T09:00:00+01:00",
        "2026-11-25T08:00:00",
        {"$date": "2026-11-25T08:00:00Z"},
        {"$date": {"$numberLong": "1795593600000"}},
        {"$date": 1795593600000},
        1795593600,
        1795593600000,
        1795593600000000,
        "1795593600",
        "1795593600000",
    ],
)
def test_the_same_moment_is_read_from_each_shape(value: Any) -> None:
    assert created_at(value) == 1795593600.0


@pytest.mark.parametrize(
    "value", [None, "", "yesterday", {}, [], True, -5, 0, float("inf"), float("nan"), 10**400, {"$date": None}]
)
def test_what_cannot_be_read_is_of_unknown_age(value: Any) -> None:
    assert created_at(value) == UNKNOWN_AGE


KEYS = st.sampled_from(["$oid", "$date", "$numberLong", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_an_id_and_a_date_or_neither(value: Any) -> None:
    assert isinstance(task_id({"_id": value}), str)
    assert created_at(value) > 0
