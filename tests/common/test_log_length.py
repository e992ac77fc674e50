"""No log line is longer than 4 kB, whatever an event contains; what is left out is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process.log_length import LONGEST_LINE_BYTES, encode, in_lines, shorten

IDS = [f"6650f1c2a9b3c4d5e6f7{number:04d}" for number in range(900)]

TEXT = st.text(max_size=50) | st.builds(
    lambda piece, times: piece * times, st.text(min_size=1, max_size=5), st.integers(1, 5000)
)
LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=5000) | st.just("\ud800" * 3000)
)
LONG_LIST = st.builds(
    lambda value, times: [value] * times, LEAF.filter(lambda v: len(str(v)) < 100), st.integers(0, 2000)
)
ANYTHING = st.recursive(
    LEAF | LONG_LIST,
    lambda inner: (
        st.lists(inner, max_size=8) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=80), inner, max_size=8)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=500), ANYTHING, max_size=70), ANYTHING)
def test_no_line_is_too_long_whatever_the_event_contains(fields: dict[str, Any], ids: object) -> None:
    line = encode(shorten({**fields, "event": "results_stored", "task_ids": ids})[0])
    assert len(line) <= LONGEST_LINE_BYTES
    json.loads(line)


@given(st.lists(TEXT, max_size=300))
def test_the_line_and_the_further_lines_together_have_each_id_that_fits_a_line(ids: list[str]) -> None:
    short, omitted = shorten({"event": "results_stored", "reason": "x" * 5000, "task_ids": ids})
    lines = list(in_lines({"event": "task_ids_continued"}, "task_ids", omitted))
    assert all(len(encode(line)) <= LONGEST_LINE_BYTES for line in lines)
    shown = [known for line in (short, *lines) for known in line["task_ids"]]
    assert {known for known in ids if len(encode(known)) < 3000} <= set(shown)


def test_ids_that_do_not_fit_are_counted() -> None:
    short, omitted = shorten({"event": "results_stored", "task_ids": IDS})
    *shown, words = short["task_ids"]
    assert shown == IDS[: len(shown)]
    assert len(shown) > 100
    assert words == f"and {900 - len(shown)} more"
    assert omitted == IDS[len(shown) :]


def test_a_short_field_beside_a_long_one_is_whole() -> None:
    short, _ = shorten({"event": "patch_failed", "status": 502, "reason": "é" * 10_000, "task_ids": IDS})
    assert short["status"] == 502
    assert "more characters" in short["reason"]
    assert len(short["task_ids"]) > 50


def test_a_traceback_keeps_its_end() -> None:
    short, _ = shorten({"event": "page_failed", "exception": "Traceback\n" + "  File x\n" * 2000 + "ValueError: why"})
    assert short["exception"].startswith("Traceback")
    assert short["exception"].endswith("ValueError: why")


@pytest.mark.parametrize(("level", "all_are_found"), [("INFO", False), ("DEBUG", True)])
def test_with_debug_each_id_of_a_long_event_is_in_some_line(level: str, all_are_found: bool) -> None:
    program = f"""
import structlog
from common.process import logs
logs.set_up("publisher", {level!r})
structlog.get_logger().info("results_stored", task_ids={IDS!r}, count=900)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    lines = done.stdout.splitlines()
    assert all(len(line) <= LONGEST_LINE_BYTES for line in lines)
    first, *further = [json.loads(line) for line in lines]
    assert (first["event"], first["count"], first["level"]) == ("results_stored", 900, "info")
    found = {known for line in (first, *further) for known in line["task_ids"]}
    assert (found >= set(IDS)) == all_are_found == bool(further)
    assert {(line["event"], line["of"], line["stage"]) for line in further} <= {
        ("task_ids_continued", "results_stored", "publisher")
    }
