"""The README is true: its settings are the settings, its files exist, its processes are those of the wiring."""

from __future__ import annotations

import re
from pathlib import Path

from common.settings.settings import NAMES, defaults
from common.wire.wiring import STAGES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def documented() -> set[str]:
    """The variables of the settings table; `_HOUR` beside `RATE_LIMIT_PER_MINUTE` stands for `RATE_LIMIT_PER_HOUR`."""
    found = set()
    for row in re.findall(r"^\| (`[A-Z][^|]+) \|", README.split("## Settings")[1].split("## Watch")[0], re.MULTILINE):
        names = re.findall(r"`([A-Z_0-9]+)`", row)
        found |= {names[0].replace("_MINUTE", name) if name.startswith("_") else name for name in names}
    return found


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    assert documented() == {name.upper() for name in NAMES}


def test_defaults_in_the_table_are_the_defaults() -> None:
    for name, default in defaults().items():
        row = re.search(rf"^\| `{name.upper()}` \| `?([^`|]*?)`? \|", README, re.MULTILINE)
        if row and isinstance(default, int | float) and not isinstance(default, bool):
            assert float(row[1].split()[0]) == default, name


def test_every_process_is_described() -> None:
    for stage in STAGES:
        assert f"| `{stage}`" in README


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / target.partition("#")[0]).exists(), target
