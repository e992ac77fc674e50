"""Whose pause a `Retry-After` is: one item's while others are served, everyone's when two are asked to wait."""

from __future__ import annotations

from common.failures.throttle import Throttle


def test_one_item_that_is_asked_to_wait_while_others_are_served_waits_alone() -> None:
    throttle = Throttle()
    for now in (0.0, 60.0, 120.0):
        assert not throttle.asked("a", now + 60, "busy", are_others_served=True)
        assert throttle.cooldown.is_over(now)


def test_a_second_item_that_is_asked_before_anything_is_served_makes_all_wait() -> None:
    throttle = Throttle()
    throttle.asked("a", 60, "busy", are_others_served=True)
    assert throttle.asked("b", 61, "busy", are_others_served=True)
    assert (throttle.cooldown.remaining_s(1), throttle.cooldown.reason) == (60, "busy")
    throttle.served(2)  # of two that were asked, neither waits alone
    assert not throttle.cooldown.is_over(2)


def test_the_pause_that_one_item_was_asked_for_ends_when_another_is_served() -> None:
    throttle = Throttle()
    assert throttle.asked("a", 60, "busy", are_others_served=False)
    throttle.served(1)
    assert throttle.cooldown.is_over(1)
    assert not throttle.asked("b", 61, "busy", are_others_served=True)


def test_a_pause_that_is_over_says_nothing_about_the_next_item() -> None:
    throttle = Throttle()
    throttle.asked("a", 60, "busy", are_others_served=True)
    throttle.asked("b", 60, "busy", are_others_served=True)
    throttle.served(61)
    assert not throttle.asked("c", 130, "busy", are_others_served=True)
