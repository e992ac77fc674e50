"""Jumps of the wall clock are logged and counted, and a jump back frees no quota."""

from __future__ import annotations

import pytest

from common.process.actions import Instant
from stages.rate_limiter.clock_jumps import JUMP_S, ClockJumps
from tests.decisions import START, after, counted, events, log_fields
from tests.rate_limiter.limiter import PER_HOUR, PER_MINUTE, Limiter
from tests.samples import names


def jumped(seconds: float, start: Instant = START) -> Instant:
    """A tick later, with a wall clock that has jumped by `seconds`."""
    return Instant(start.mono + 0.1, start.wall + 0.1 + seconds)


@pytest.mark.parametrize(("seconds", "direction"), [(3600.0, "ahead"), (-3600.0, "back"), (JUMP_S + 0.1, "ahead")])
def test_a_clock_jump_is_logged_once_and_counted(seconds: float, direction: str) -> None:
    watch = ClockJumps(START.wall, START)
    done = list(watch.look(jumped(seconds)))
    logged = log_fields("clock_jumped", done)
    assert (logged["direction"], logged["level"]) == (direction, "warning")
    assert logged["seconds"] == pytest.approx(abs(seconds), abs=0.1)
    assert counted("clock_leaps_total", done) == [((direction,), 1)]
    assert list(watch.look(after(0.1, jumped(seconds)))) == []


@pytest.mark.parametrize("seconds", [JUMP_S - 0.1, -JUMP_S + 0.1, 0.0])
def test_a_slewed_clock_is_not_reported_as_a_jump(seconds: float) -> None:
    assert list(ClockJumps(START.wall, START).look(jumped(seconds))) == []


def test_a_process_that_was_paused_for_an_hour_reports_no_clock_jump() -> None:
    assert list(ClockJumps(0.0, START).look(after(3600.0))) == []


def test_a_clock_behind_the_stored_windows_is_logged_at_the_start() -> None:
    watch = ClockJumps(START.wall + 500, START)
    assert log_fields("clock_jumped", watch.look(after(0.1)))["seconds"] == 500.0
    assert list(watch.look(after(0.2))) == []


def test_after_a_jump_back_no_quota_opens_and_the_report_shows_the_lag() -> None:
    limiter = Limiter({PER_MINUTE: 2}, hold_seconds=10_000)
    limiter.ready(5)
    limiter.tasks(*names(3))
    for batch in limiter.batches:
        limiter.finished(batch, requests=1)
    limiter.now = Instant(limiter.now.mono + 1, limiter.now.wall - 1800)
    assert events(limiter.tick()) == ["clock_jumped"]
    assert limiter.state.report(limiter.now).facts["clock_behind_windows_seconds"] == pytest.approx(1800, abs=2)
    waited = 0
    while not limiter.batches:
        limiter.after(1.0).ready(5)
        waited += 1
    assert 1858 <= waited <= 1862, "half an hour until the clock has caught up, then the minute of the quota"
    assert "clock_behind_windows_seconds" not in limiter.state.report(limiter.now).facts


def test_a_jump_ahead_is_logged_and_advances_the_windows() -> None:
    limiter = Limiter({PER_HOUR: 1})
    limiter.ready(1)
    limiter.tasks("a")
    limiter.finished(limiter.batch)
    limiter.now = Instant(limiter.now.mono + 1, limiter.now.wall + 7200)
    assert log_fields("clock_jumped", limiter.tick())["direction"] == "ahead"
    assert limiter.used(PER_HOUR) == 0
