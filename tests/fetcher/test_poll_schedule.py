"""What a page says about the tasks that it does not show."""

from __future__ import annotations

from typing import Any

import pytest

from stages.fetcher.config import FetcherConfig
from stages.fetcher.page import PendingPage
from stages.fetcher.poll_schedule import PollSchedule
from tests import samples
from tests.decisions import START, after, events
from tests.fetcher.fetching import candidate

MOST = 10


def schedule() -> PollSchedule:
    return PollSchedule(FetcherConfig(MOST, lease_seconds=15, max_dispatches=5, polling_interval_s=30), "ipc://fetcher")


def page(elements: int, *, whole: bool = True, object_key: str = "", **skipped: int) -> PendingPage:
    return PendingPage(0.0, [], elements, whole, skipped, [], object_key=object_key)


def test_no_page_is_known_to_be_full_before_the_first_one() -> None:
    assert not schedule().pages_full
    assert schedule().shows_all(page(3))


@pytest.mark.parametrize(("elements", "is_full"), [(0, False), (1, True), (9, True), (10, True), (11, True)])
def test_the_first_page_with_elements_may_be_cut_off_by_the_api(elements: int, *, is_full: bool) -> None:
    polls = schedule()
    polls.learn(page(elements))
    assert polls.pages_full is is_full


def test_a_page_shorter_than_the_longest_so_far_is_not_full() -> None:
    polls = schedule()
    polls.learn(page(5))
    polls.learn(page(4))
    assert not polls.pages_full
    polls.learn(page(0))
    assert not polls.pages_full


@pytest.mark.parametrize(
    ("fields", "shows_all"),
    [({}, True), ({"whole": False}, False), ({"deferred": 1}, False), ({"malformed": 1}, True)],
)
def test_only_a_page_that_was_read_to_its_end_shows_all_pending_tasks(
    fields: dict[str, Any], *, shows_all: bool
) -> None:
    polls = schedule()
    polls.learn(page(8))
    polls.learn(page(5))
    assert polls.shows_all(page(5, **fields)) is shows_all


def test_a_full_page_does_not_show_all_even_if_it_was_read_to_its_end() -> None:
    polls = schedule()
    polls.learn(page(MOST))
    assert not polls.shows_all(page(MOST))


@pytest.mark.parametrize(("elements", "shows_more"), [(MOST - 1, False), (MOST, True), (MOST + 1, True)])
def test_a_longer_page_shows_more_if_this_one_was_as_long_as_asked_for(elements: int, *, shows_more: bool) -> None:
    polls = schedule()
    assert polls.begin_for_pending(0, START) == MOST
    assert polls.learn(page(elements, malformed=3)) is shows_more


def test_a_page_that_was_not_asked_for_says_nothing_about_longer_ones() -> None:
    assert not schedule().learn(page(0, malformed=1))
    assert not schedule().learn(page(3, malformed=1))


def test_a_page_object_is_noticed_once() -> None:
    polls = schedule()
    assert "page_object_read" in events(polls.log_skipped(page(1, object_key="data")))
    assert "page_object_read" not in events(polls.log_skipped(page(1, object_key="data")))


@pytest.mark.parametrize(("before", "now", "shows_more"), [(0, 3, True), (3, 3, False), (3, 1, False)])
def test_a_longer_page_shows_more_only_if_more_than_before_is_in_the_way(
    before: int, now: int, *, shows_more: bool
) -> None:
    polls = schedule()
    polls.begin_for_pending(0, START)
    polls.learn(page(MOST + before, malformed=before))
    polls.begin_for_pending(0, START)
    assert polls.learn(page(MOST + 5, malformed=now)) is shows_more


@pytest.mark.parametrize(
    ("not_wanted", "malformed", "in_flight", "soon"),
    [(0, 0, 2, True), (0, 0, 3, False), (2, 0, 2, True), (0, 4, 1, True), (0, 4, 2, False), (3, 4, 1, True)],
)
def test_a_page_that_is_full_is_worth_a_poll_when_three_quarters_of_what_it_shows_can_be_new(
    not_wanted: int, malformed: int, in_flight: int, *, soon: bool
) -> None:
    polls = schedule()
    asked = polls.begin_for_pending(not_wanted, START)
    polls.learn(page(asked, malformed=malformed))
    polls.succeeded()
    polls.plan_next(longer_page_shows_more=False, now=START)
    polls.poll_if_worth_it(in_flight, room=MOST)
    polls.access_token.take(samples.token())
    assert (polls.token(after(1.0)) is not None) is soon


@pytest.mark.parametrize(("malformed", "in_flight", "soon"), [(0, 1, True), (0, 2, False), (1, 1, True), (2, 1, False)])
def test_a_short_page_is_worth_a_poll_only_if_most_of_it_is_for_this_pipeline(
    malformed: int, in_flight: int, *, soon: bool
) -> None:
    polls = schedule()
    polls.begin_for_pending(0, START)
    polls.learn(page(8))
    polls.begin_for_pending(0, START)
    found = page(5, malformed=malformed)
    found.candidates.append(candidate("a"))
    polls.learn(found)
    polls.succeeded()
    polls.plan_next(longer_page_shows_more=False, now=START)
    polls.poll_if_worth_it(in_flight, room=MOST)
    polls.access_token.take(samples.token())
    assert (polls.token(after(1.0)) is not None) is soon
