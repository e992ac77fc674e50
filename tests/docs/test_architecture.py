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


def test_every_transition_that_moves_a_task_is_in_the_picture_or_below_it() -> None:
    section = lifecycle.section()
    for (before, event), after in TRANSITIONS.items():
        if before is not after:
            arrow = rf"^    {re.escape(before.value)} --> {re.escape(after.value)}: .*{re.escape(event.value)}"
            below = f"From everywhere, *{event.value}* leads to `{after.value}`."
            assert re.search(arrow.replace(r"\ ", "_"), section, re.MULTILINE) or below in section, (before, event)


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
