"""Every log line is short, whatever an event has in it, and at DEBUG no id is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process.log_lines import LONGEST_LINE_BYTES, bounded, serialize

LEADING = ("time", "level", "stage", "event")
HEAD = {"time": "2026-11-25T12:00:00.000000Z", "level": "info", "stage": "publisher", "event": "results_accepted"}
IDS = [f"{number:024x}" for number in range(4096)]

plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=3000)
values = (
    plain | st.lists(st.text(max_size=200), max_size=300) | st.dictionaries(st.text(max_size=50), plain, max_size=20)
)


ODD = st.recursive(
    plain
    | st.integers()
    | st.floats()
    | st.binary(max_size=5000)
    | st.just("\ud800" * 3000)
    | st.lists(st.sampled_from(["\ud800", 10**30, "\x00" * 500, None]), max_size=900),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=80) | st.integers(), inner, max_size=8)
    ),
    max_leaves=6,
)


def lines(event: dict[str, Any], *, with_rest: bool = False) -> list[dict[str, Any]]:
    return list(bounded({**HEAD, **event}, LEADING, with_rest=with_rest))


@given(st.dictionaries(st.sampled_from(["reason", "task_id", "models", "count", "x"]), values))
def test_no_line_is_longer_than_the_limit(event: dict[str, Any]) -> None:
    for line in [*lines(event), *lines(event, with_rest=True)]:
        assert len(serialize(line)) <= LONGEST_LINE_BYTES
        assert {name: line[name] for name in LEADING} == HEAD


@given(st.dictionaries(st.text(max_size=500), ODD, max_size=70), ODD)
def test_no_event_is_too_long_or_stops_the_process(event: dict[str, Any], ids: object) -> None:
    for line in [*lines({**event, "task_ids": ids}), *lines({**event, "task_ids": ids}, with_rest=True)]:
        written = serialize(line)
        assert len(written) <= LONGEST_LINE_BYTES
        json.loads(written)


def test_a_traceback_keeps_its_end() -> None:
    (line,) = lines({"exception": "Traceback\n" + "  File x\n" * 2000 + "ValueError: why"})
    assert line["exception"].endswith("ValueError: why")


@pytest.mark.parametrize(("level", "all_are_found"), [("INFO", False), ("DEBUG", True)])
def test_a_process_shows_each_id_of_a_long_event_at_debug(level: str, all_are_found: bool) -> None:
    program = f"""
import structlog
from common.process import logs
logs.set_up("publisher", {level!r})
structlog.get_logger().info("results_stored", task_ids={IDS!r}, count=4096)
"""
    done = subprocess.run([sys.executable, "-"], input=program.encode(), capture_output=True, check=True)
    written = done.stdout.splitlines()
    assert all(len(line) <= LONGEST_LINE_BYTES for line in written)
    found = [json.loads(line) for line in written]
    assert {(line["event"], line["stage"]) for line in found} == {("results_stored", "publisher")}
    assert ({task_id for line in found for task_id in line["task_ids"]} == set(IDS)) == all_are_found


def test_a_short_event_is_unchanged() -> None:
    assert lines({"task_id": IDS[:100], "count": 3}) == [{**HEAD, "task_id": IDS[:100], "count": 3}]


def test_a_list_that_is_too_long_shows_its_first_values_and_how_many_more_there_are() -> None:
    (line,) = lines({"task_id": IDS})
    shown = line["task_id"]
    assert shown == IDS[: len(shown)]
    assert len(shown) >= 50
    assert line["task_id_more"] == len(IDS) - len(shown)


def test_with_the_rest_each_value_is_in_exactly_one_line() -> None:
    found = lines({"task_id": IDS, "count": 4096}, with_rest=True)
    assert [task_id for line in found for task_id in line["task_id"]] == IDS
    assert [line.get("count") for line in found] == [4096] + [None] * (len(found) - 1)


def test_a_long_text_is_cut() -> None:
    (line,) = lines({"reason": "x" * 100_000})
    assert line["reason"].startswith("xxx")
    assert line["reason"].endswith("…")
