"""A cooldown: not before a time, for a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.cooldown import Cooldown

times = st.floats(0, 2e9)


def test_a_new_cooldown_is_over_and_has_no_reason() -> None:
    none = Cooldown()
    assert none.is_over(0.0)
    assert none.remaining_s(0.0) == 0.0
    assert none.reason == ""


@pytest.mark.parametrize(("now", "over", "left"), [(0.0, False, 10.0), (9.5, False, 0.5), (10.0, True, 0.0)])
def test_a_cooldown_lasts_until_its_end(now: float, over: bool, left: float) -> None:
    cooldown = Cooldown(10.0, "the API asked for a pause")
    assert cooldown.is_over(now) == over
    assert cooldown.remaining_s(now) == left


def test_the_remaining_time_is_never_negative() -> None:
    assert Cooldown(10.0, "down").remaining_s(1e9) == 0.0


def test_a_later_end_replaces_end_and_reason() -> None:
    assert Cooldown(10.0, "first").extended(20.0, "second") == Cooldown(20.0, "second")


@pytest.mark.parametrize("until", [5.0, 10.0])
def test_an_earlier_or_equal_end_changes_nothing(until: float) -> None:
    assert Cooldown(10.0, "first").extended(until, "second") == Cooldown(10.0, "first")


@given(times, times, times)
def test_extending_never_shortens_a_cooldown(first: float, second: float, now: float) -> None:
    extended = Cooldown(first, "a").extended(second, "b")
    assert extended.until == max(first, second)
    assert extended.is_over(now) == (Cooldown(first).is_over(now) and Cooldown(second).is_over(now))


@given(times, times)
def test_a_cooldown_is_over_exactly_when_nothing_remains(until: float, now: float) -> None:
    cooldown = Cooldown(until)
    assert cooldown.is_over(now) == (cooldown.remaining_s(now) == 0.0)
