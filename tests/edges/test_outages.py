"""The script that measures outages, with one of them."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.edges.outages import OUTAGES, PAGE, SETTINGS, Run


def test_an_outage_costs_nothing(outside: Sandbox, tmp_path: Path) -> None:
    chosen = [outage for outage in OUTAGES if outage.what == "answers 503"]
    with Pipeline(outside, tmp_path, **SETTINGS) as pipeline:
        run = Run(outside, pipeline)
        for outage in chosen:
            row = run.measure(outage._replace(lasts=min(outage.lasts, 1.0)), tasks=400)
            assert (row.tasks, row.lost, row.failed, row.paid_twice) == (400, 0, 0, 0)
            assert 0 < row.requests < 100


def test_the_page_has_a_row_for_each() -> None:
    shown = PAGE.read_text()
    assert all(f"| {outage.side} {outage.what} | " in shown for outage in OUTAGES)
