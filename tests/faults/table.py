"""`python -m tests.faults.table`: run the fault tests and print what each fault has cost.

With `--last`, only print the rows of the last run; other arguments go to pytest. The tests write the rows to
`bench/results/faults.json`.
"""

from __future__ import annotations

import json
import sys

import pytest

from tests.faults.ledger import ROWS

COLUMNS = {
    "fault": "fault",
    "tasks": "tasks",
    "lost": "lost",
    "failed": "failed",
    "accepted_twice": "accepted twice",
    "paid_twice": "paid twice",
    "back_at_work": "longest pause",
}


def table() -> str:
    """The rows as Markdown."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    for row in json.loads(ROWS.read_text()):
        shown = [f"{row[name]:.1f} s" if name == "back_at_work" else str(row[name]) for name in COLUMNS]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the tests and print the table; returns the exit status of pytest."""
    status = 0
    if "--last" not in sys.argv[1:]:
        ROWS.unlink(missing_ok=True)
        status = int(pytest.main(["tests/faults", "-q", *sys.argv[1:]]))
    sys.stdout.write(table() + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
