"""docs/operations.md names only log events that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_every_log_event_of_the_table_is_in_the_code() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().split("## Log events")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \| ", section, re.MULTILINE)
    events = {event for row in rows for event in re.findall(r"`(\w+)`", row)}
    code = "".join(path.read_text() for name in ("common", "stages") for path in (ROOT / name).rglob("*.py"))
    assert len(events) > 20
    assert {event for event in events if f'"{event}"' not in code} == set()
