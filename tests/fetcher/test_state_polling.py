"""When the fetcher polls, and how many tasks it asks for."""

from __future__ import annotations

import pytest

from common.process.actions import Count
from common.wire import messages as m
from stages.fetcher.actions import Poll
from stages.fetcher.poll_schedule import HELD_INTERVALS, SETTLED_POLL_INTERVAL_S
from tests.decisions import of_type, sent_to
from tests.fetcher.fetching import INBOX, INTERVAL, Fetching, settled
from tests.samples import names, token

# ---- the first poll ----


def test_the_fetcher_polls_as_soon_as_it_has_a_token() -> None:
    fetcher = Fetching(token=False)
    assert not fetcher.polling
    fetcher.token("one")
    assert fetcher.poll == Poll(10, 10, frozenset(), frozenset(), token("one", fetcher.now.wall + 1e9))


def test_without_a_token_the_fetcher_requests_one_each_second() -> None:
    fetcher = Fetching(token=False)
    assert sent_to("token_broker", fetcher.live(3)) == [m.TokenRequest(INBOX)] * 3
    fetcher.token("one", expires_in=10)
    fetcher.page()
    assert len(sent_to("token_broker", fetcher.live(11))) == 2


def test_only_one_poll_is_under_way_at_a_time() -> None:
    fetcher = Fetching()
    assert of_type(Poll, fetcher.live(300)) == []


def test_a_poll_asks_for_max_in_flight_tasks_to_see_new_ones_behind_those_in_flight() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page("a", "b", "c")
    fetcher.live(INTERVAL, held=["a", "b", "c"])
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 10
    assert fetcher.poll.known == {"a", "b", "c"}


def test_a_poll_wants_what_there_is_room_for_plus_a_full_buffer_while_pages_are_used_in_time() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(*names(10))
    assert settled(fetcher, *names(8))
    assert fetcher.poll is not None
    assert fetcher.poll.wanted == 8 + 10


def test_a_poll_wants_only_what_there_is_room_for_when_the_last_page_was_not_used_in_time() -> None:
    """A buffer would be dropped before it is used, and the same tasks read again."""
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(*names(10))
    fetcher.live(INTERVAL, held=names(10))
    assert settled(fetcher, *names(8))
    assert fetcher.poll is not None
    assert fetcher.poll.wanted == 8


# ---- the next one ----


def test_while_pages_bring_new_tasks_the_next_poll_follows_as_soon_as_most_of_them_are_settled() -> None:
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(12))
    assert not settled(fetcher, *names(8))
    assert settled(fetcher, "t8")
    fetcher.page(*names(2, "u"), known=3)
    assert not settled(fetcher, "t9")
    assert settled(fetcher, "t10", "t11", "u0")


def test_a_page_that_brings_new_tasks_is_not_asked_for_again_at_once() -> None:
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(12))
    assert of_type(Poll, fetcher.live(INTERVAL - 0.5, held=names(12))) == []


def test_a_page_without_new_tasks_is_followed_by_a_poll_after_the_interval() -> None:
    fetcher = Fetching()
    fetcher.page()
    assert not fetcher.polling
    assert of_type(Poll, fetcher.live(INTERVAL - 0.5)) == []
    assert len(of_type(Poll, fetcher.live(0.5))) == 1


def test_the_polling_interval_counts_from_the_request() -> None:
    fetcher = Fetching()
    fetcher.after(20).page()
    assert len(of_type(Poll, fetcher.live(INTERVAL - 20))) == 1


def test_an_idle_api_is_polled_once_per_interval() -> None:
    fetcher = Fetching()
    polls = 0
    for _ in range(600):
        if fetcher.poll:
            polls += 1
            fetcher.page()
        fetcher.live(0.5)
    assert polls == 300 / INTERVAL


def test_the_fetcher_does_not_poll_while_max_in_flight_tasks_are_leased() -> None:
    fetcher = Fetching(max_in_flight=2)
    fetcher.page("a", "b", elements=1000)
    assert of_type(Poll, fetcher.live(3 * INTERVAL, held=["a", "b"])) == []
    assert settled(fetcher, "a", "b")


def test_settled_tasks_are_a_reason_to_poll_after_a_full_page() -> None:
    """The page was as long as asked for, so there is more where it came from."""
    fetcher = Fetching(max_in_flight=4)
    fetcher.page(*names(4))
    assert not fetcher.polling
    assert settled(fetcher, "t0", "t1", "t2")


def test_settled_tasks_are_a_reason_to_poll_an_api_that_caps_its_pages() -> None:
    """The in-flight tasks fill every page, so only settling shows what is behind them."""
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(10))
    fetcher.live(INTERVAL, held=names(10))
    fetcher.page(known=10)
    assert not settled(fetcher, *names(7))
    assert settled(fetcher, "t7")


def test_settled_tasks_cause_at_most_ten_polls_a_second() -> None:
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(10))
    fetcher.after(SETTLED_POLL_INTERVAL_S - 0.01).published(*names(10))
    assert not fetcher.polling
    fetcher.after(0.02).tick()
    assert fetcher.polling


def test_settled_tasks_are_no_reason_to_poll_while_a_quarter_of_max_in_flight_is_leased() -> None:
    fetcher = Fetching(max_in_flight=16)
    fetcher.page(*names(16))
    assert not settled(fetcher, *names(11))
    assert settled(fetcher, "t11")


def test_tasks_that_are_not_for_this_pipeline_do_not_hold_polls_back() -> None:
    """An API that caps its pages at 10 shows 6 of them each time: four can be new."""
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(4), unknown_type=6)
    assert not settled(fetcher, "t0", "t1")
    assert settled(fetcher, "t2")


def test_after_a_full_page_polls_are_held_back_for_a_bounded_time() -> None:
    fetcher = Fetching(max_in_flight=4)
    fetcher.page(*names(4))
    fetcher.published("t0")
    held = ["t1", "t2", "t3"]
    assert of_type(Poll, fetcher.live(HELD_INTERVALS * INTERVAL - 1, 1, held=held)) == []
    assert len(of_type(Poll, fetcher.live(1, held=held))) == 1


@pytest.mark.parametrize("ended_at_once", [1, 10, 100, 1000])
def test_each_task_of_a_long_backlog_is_read_at_most_one_and_a_half_times(ended_at_once: int) -> None:
    fetcher = Fetching(max_in_flight=512)
    backlog, read_count = dict.fromkeys(names(3_000)), 0
    while backlog:
        if fetcher.poll is not None:
            page, in_flight = list(backlog)[: fetcher.poll.limit], set(fetcher.leased)
            read_count += len(page)
            fetcher.page(*(task_id for task_id in page if task_id not in in_flight), elements=len(page))
        ended = fetcher.leased[:ended_at_once]
        for task_id in ended:
            del backlog[task_id]
        fetcher.after(0.05).holding()
        fetcher.holding(*fetcher.leased)
        if not settled(fetcher, *ended):
            fetcher.tick()
    assert read_count <= 1.5 * 3_000


def test_settled_tasks_are_no_reason_to_poll_while_the_buffer_has_tasks() -> None:
    fetcher = Fetching(max_in_flight=4)
    fetcher.page(*names(7))
    assert not settled(fetcher, "t0", "t1")
    assert not settled(fetcher, "t2")
    assert settled(fetcher, "t3", "t4", "t5")


def test_a_settled_task_is_no_reason_to_poll_after_a_page_without_new_tasks_that_was_not_full() -> None:
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(*names(10))
    assert settled(fetcher, *names(8))
    fetcher.page(known=2)
    assert not settled(fetcher, "t8", "t9")


def test_a_page_that_was_read_in_part_does_not_count_as_capped() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(*names(10), elements=5000, whole=False)
    assert settled(fetcher, *names(10))
    fetcher.page(*names(4, "u"))
    fetcher.page(known=4)
    assert not settled(fetcher, "u0")


def test_what_pages_show_and_what_is_leased_are_counted() -> None:
    fetcher = Fetching(max_in_flight=2)
    done = fetcher.page("a", "b", "c", known=4, unknown_type=1)
    assert [action for action in of_type(Count, done) if action.metric != "ai_tasks_skipped_total"] == [
        Count("ai_tasks_listed_total", (), 8),
        Count("ai_tasks_leased_total", (), 2),
    ]


# ---- what is in the way ----


def test_a_poll_asks_for_dead_letters_on_top_of_max_in_flight() -> None:
    """Otherwise an API that obeys `limit` and sorts by age would show nothing else, for ever."""
    fetcher = Fetching(max_in_flight=10, dead=["d1", "d2"])
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 12
    assert fetcher.poll.known == {"d1", "d2"}


def test_a_poll_asks_for_deferred_tasks_on_top_of_max_in_flight() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page("a", "b")
    fetcher.deferred("a", "b", seconds=600)
    fetcher.live(INTERVAL)
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 12
    assert fetcher.poll.known == {"a", "b"}


@pytest.mark.parametrize("reason", ["unknown_type", "deferred", "malformed", "no_id", "not_pending"])
def test_a_page_full_of_what_is_not_for_us_is_followed_at_once_by_a_longer_one(reason: str) -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(**{reason: 10})
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 20
    fetcher.page("a", **{reason: 15})
    assert fetcher.leased == ["a"]


def test_a_page_that_is_shorter_than_asked_for_is_not_followed_at_once() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(unknown_type=10)
    fetcher.page(unknown_type=15)
    assert not fetcher.polling
    fetcher.live(INTERVAL)
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 25


def test_an_api_that_caps_its_pages_is_not_polled_again_at_once_for_skipped_elements() -> None:
    fetcher = Fetching(max_in_flight=100)
    fetcher.page(unknown_type=10)
    assert not fetcher.polling


def test_the_limit_returns_to_max_in_flight_when_the_skipped_elements_are_gone() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(unknown_type=5)
    fetcher.live(INTERVAL)
    fetcher.page()
    fetcher.live(INTERVAL)
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 10
