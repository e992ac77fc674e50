"""docs/architecture.md agrees with the code: its life of a task, its rules, its processes, its links."""

from __future__ import annotations

import re
from pathlib import Path

from common.wire.wiring import STAGES
from stages.fetcher.lease_table import TRANSITIONS, Event, Whereabouts
from tests.docs import lifecycle

ROOT = Path(__file__).parent.parent.parent
PAGE = lifecycle.PAGE.read_text()
RULES = PAGE.split("## 3. Rules")[1].split("\n## ")[0]


def test_the_life_of_a_task_is_what_the_transition_table_gives() -> None:
    assert lifecycle.written(PAGE) == PAGE, "run: make lifecycle"


def test_the_tables_below_the_picture_have_every_transition() -> None:
    found: dict[tuple[str, str], str] = {}
    for name, _, moves, stays in re.findall(
        r"^\| (.+?) \| (.+?) \| (.*?) \| (.*?) \|$", lifecycle.section(), re.MULTILINE
    )[1:]:
        for befores, after in re.findall(r"([^;→]+) → \*\*(.+?)\*\*", moves):
            found |= {(before.strip(), name): after for before in befores.split(",")}
        found |= {(state, name): state for state in stays.split(", ") if state}
    assert found == {(before.value, event.value): after.value for (before, event), after in TRANSITIONS.items()}


def test_every_whereabouts_and_event_is_explained() -> None:
    for member in (*Whereabouts, *Event):
        assert re.search(rf"^\| {re.escape(member.value)} \| \S.+ \|$", lifecycle.section(), re.MULTILINE), member


def test_every_process_is_described() -> None:
    for stage in STAGES:
        assert f"| `{stage}`" in PAGE


def test_code_cites_only_rules_that_exist() -> None:
    rules = {int(number) for number in re.findall(r"^(\d+)\. \*\*", RULES, re.MULTILINE)}
    assert rules == set(range(1, len(rules) + 1))
    for folder in ("common", "stages", "sandbox", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for number in re.findall(r"\brule (\d+)\b", path.read_text()):
                assert int(number) in rules, path
