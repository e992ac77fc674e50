"""Settled tasks, dead letters, and tasks that are queued again."""

from __future__ import annotations

from common.recently_settled import BUCKET_S, DeleteSettled, Record
from common.wire.timing import REQUEUED_AFTER_S
from stages.fetcher.actions import DeleteDead, DeleteLease, Lease, PutDead, PutSettled
from stages.fetcher.state import SLOWEST_PAGE_S
from tests.decisions import START, of_type
from tests.fetcher.fetching import INTERVAL, Fetching, dispatched, ids, with_leased

# ---- settled ----


def test_settled_tasks_are_stored_and_forgotten_when_no_page_can_show_them_any_more() -> None:
    fetcher = with_leased("a")
    (put,) = of_type(PutSettled, fetcher.published("a"))
    assert (put.record.at, put.record.ids) == (fetcher.now.wall, ["a"])
    keep = REQUEUED_AFTER_S + SLOWEST_PAGE_S
    assert of_type(DeleteSettled, fetcher.after(keep).tick()) == []
    assert of_type(DeleteSettled, fetcher.after(BUCKET_S).tick()) == [DeleteSettled(put.record.key)]


def test_two_settled_records_of_one_turn_have_different_keys() -> None:
    fetcher = with_leased("a", "b")
    (first,), (second,) = of_type(PutSettled, fetcher.published("a")), of_type(PutSettled, fetcher.published("b"))
    assert first.record.key != second.record.key


def test_a_page_that_was_asked_for_before_a_task_was_settled_does_not_bring_it_back() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    fetcher.live(INTERVAL, held=["a"])
    assert fetcher.poll is not None
    fetcher.after(5).published("a")
    assert ids(fetcher.page("a")) == []


def test_a_slow_page_does_not_bring_back_a_settled_task() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    fetcher.published("a")
    fetcher.holding()
    fetcher.after(SLOWEST_PAGE_S).holding()
    assert ids(fetcher.page("a", "b")) == ["b"]


def test_a_task_that_is_pending_a_minute_after_it_was_settled_is_processed_again() -> None:
    fetcher = with_leased("a")
    fetcher.published("a")
    polls = 0
    for _ in range(400):
        fetcher.live(0.5)
        if fetcher.poll:
            polls += 1
            taken = dispatched(fetcher.page("a"))
            waited = fetcher.asked_at.wall - START.wall
            assert bool(taken) == (waited > REQUEUED_AFTER_S)
            if taken:
                assert (taken[0].leased_at, taken[0].attempt) == (fetcher.now.wall, 1)
                return
    raise AssertionError("never taken")


def test_tasks_settled_before_a_restart_are_not_leased() -> None:
    fetcher = Fetching()
    fetcher.state.settled.restore([Record(START.wall - 5, ["a"])])
    assert ids(fetcher.page("a", "b")) == ["b"]


# ---- dead letters ----


def test_a_dead_letter_is_remembered_on_disk_and_not_fetched_again() -> None:
    fetcher = with_leased("a")
    done = fetcher.published(dead=["a"])
    assert of_type(PutDead, done) == [PutDead("a")]
    assert of_type(DeleteLease, done) == [DeleteLease("a")]
    assert of_type(PutSettled, done) == []
    assert of_type(PutDead, fetcher.published(dead=["a"])) == []
    assert ids(fetcher.page("a")) == []


def test_a_dead_letter_that_is_accepted_ends() -> None:
    fetcher = Fetching(dead=["a"])
    assert of_type(DeleteDead, fetcher.published("a")) == [DeleteDead("a")]


def test_the_task_of_a_dropped_dead_letter_is_fetched_again() -> None:
    fetcher = Fetching(dead=["a"])
    assert of_type(DeleteDead, fetcher.published(dropped=["a", "other"])) == [DeleteDead("a")]
    assert ids(fetcher.page("a")) == ["a"]


def test_a_dead_letter_that_the_fetcher_missed_is_adopted_from_the_publishers_list() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall), "b": Lease(START.wall)})
    done = fetcher.holding("b", stage="publisher", dead=["a"])
    assert of_type(PutDead, done) == [PutDead("a")]
    assert of_type(DeleteLease, done) == [DeleteLease("a")]
    assert fetcher.leased == ["b"]
    assert ids(fetcher.page("a")) == []


def test_a_dead_letter_that_the_publisher_does_not_list_ends() -> None:
    fetcher = Fetching(dead=["a", "b"])
    assert of_type(DeleteDead, fetcher.holding(stage="publisher", dead=["b"])) == [DeleteDead("a")]
    assert ids(fetcher.page("a", "b")) == ["a"]


def test_the_task_of_a_dead_letter_that_is_being_replayed_is_not_fetched() -> None:
    fetcher = Fetching(dead=["a"])
    assert fetcher.holding("a", stage="publisher", dead=[]) == []
    assert ids(fetcher.page("a")) == []


def test_a_holding_of_the_rate_limiter_does_not_end_dead_letters() -> None:
    fetcher = Fetching(dead=["a"])
    assert fetcher.holding("b") == []
    assert ids(fetcher.page("a")) == []
