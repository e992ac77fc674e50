"""The groups of waiting tasks: which tasks share one, and in which order they are served."""

from __future__ import annotations

from stages.rate_limiter.poison import ALONE_FROM_ATTEMPT
from stages.rate_limiter.waiting import Group, Waiting
from tests.samples import TYPE, task


def group(attempt: int = 1, key: str = "small", **fields: int) -> Group:
    return Group(TYPE, key, attempt, **fields)


def test_tasks_that_are_queued_again_come_before_the_others_of_their_own_group() -> None:
    waiting = Waiting()
    waiting.add([task("c", key="small")])
    waiting.add_first([task("a", key="small"), task("b", key="small")])
    assert list(waiting) == [group()]
    assert waiting.ids() == ["a", "b", "c"]


def test_tasks_of_a_batch_that_was_too_large_are_a_group_of_their_own() -> None:
    waiting = Waiting()
    waiting.add([task("a", key="small")])
    waiting.add_first([task("b", key="small")], 4)
    assert list(waiting) == [group(), group(at_most=4)]


def test_all_later_attempts_share_a_group() -> None:
    waiting = Waiting()
    waiting.add([task("a", key="small", attempt=ALONE_FROM_ATTEMPT), task("b", key="small", attempt=9)])
    assert list(waiting) == [group(ALONE_FROM_ATTEMPT)]


def test_first_attempts_are_served_first_only_when_asked_for() -> None:
    waiting = Waiting()
    waiting.add([task("a", key="small", attempt=2), task("b", key="small"), task("c", key="large")])
    assert waiting.turns(first_attempts_first=False) == [group(2), group(), group(1, "large")]
    assert waiting.turns(first_attempts_first=True) == [group(), group(1, "large"), group(2)]


def test_a_served_group_goes_behind_the_others_and_an_empty_one_disappears() -> None:
    waiting = Waiting()
    waiting.add([task("a", key="small"), task("b", key="large")])
    waiting.end_turn(group(), served=True)
    assert list(waiting) == [group(1, "large"), group()]
    waiting.end_turn(group(1, "large"), served=False)
    assert list(waiting) == [group(1, "large"), group()]
    waiting[group()].popleft()
    waiting.end_turn(group(), served=True)
    assert list(waiting) == [group(1, "large")]
    waiting[group(1, "large")].popleft()
    waiting.end_turn(group(1, "large"), served=False)
    assert list(waiting) == []
