"""Tests the script that measures outages with one of them."""

from __future__ import annotations

from sandbox.client import Sandbox
from tests.edges.outages import OUTAGES, PAGE, SETTINGS, Run
from tests.pipelines import Start


def test_an_outage_of_the_api_loses_fails_and_repeats_no_task(sandbox: Sandbox, start: Start) -> None:
    (outage,) = [outage for outage in OUTAGES if (outage.side, outage.what) == ("API", "answers 503")]
    row = Run(sandbox, start(**SETTINGS)).measure(outage._replace(lasts=1.0), tasks=400)
    assert (row.tasks, row.lost, row.failed, row.paid_twice) == (400, 0, 0, 0)
    assert 0 < row.requests < 100


def test_the_page_has_a_row_for_each_outage() -> None:
    shown = PAGE.read_text()
    assert all(f"| {outage.side} {outage.what} | " in shown for outage in OUTAGES)
