"""Deferred tasks and batch keys, and a rate limiter that is gone: what is not leased, and when it is again."""

from __future__ import annotations

import pytest

from stages.fetcher.actions import DeleteLease, Poll
from tests.decisions import of_type
from tests.fetcher.fetching import INTERVAL, LEASE, Fetching, candidate
from tests.samples import names

# ---- deferrals ----


def test_deferred_tasks_stay_pending_and_are_not_taken_before_their_time() -> None:
    fetcher = Fetching()
    fetcher.page("a", "b")
    fetcher.deferred("a", seconds=100, reason="provider")
    assert fetcher.leased == ["b"]
    fetcher.page("a")
    assert fetcher.leased == ["b"]


def test_when_a_deferral_ends_there_is_a_poll_at_once_and_the_task_is_leased() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    fetcher.deferred("a", seconds=7)
    assert of_type(Poll, fetcher.live(6.5)) == []
    assert len(of_type(Poll, fetcher.live(1))) == 1
    assert fetcher.poll is not None
    assert fetcher.poll.known == frozenset()
    fetcher.page("a")
    assert fetcher.leased == ["a"]


def test_no_task_of_a_deferred_batch_key_is_leased() -> None:
    fetcher = Fetching()
    fetcher.page(candidate("a", "small"))
    fetcher.deferred("a", seconds=100, key="small")
    fetcher.live(INTERVAL)
    fetcher.page(candidate("a", "small"), candidate("b", "small"), candidate("c", "large"))
    assert fetcher.leased == ["c"]
    fetcher.live(INTERVAL, held=["c"])
    assert fetcher.poll is not None
    assert fetcher.poll.deferred_keys == {"small"}
    assert "a" not in fetcher.poll.known


def test_no_buffered_task_of_a_deferred_batch_key_is_leased() -> None:
    fetcher = Fetching(max_in_flight=1)
    fetcher.page(candidate("a", "small"), candidate("b", "small"), candidate("c", "large"))
    fetcher.deferred("a", seconds=100, key="small")
    fetcher.published()
    assert fetcher.leased == ["c"]


@pytest.mark.parametrize("key", ["*", "small"])
def test_a_task_deferred_with_its_key_is_leased_when_the_deferral_of_the_key_ends(key: str) -> None:
    fetcher = Fetching()
    fetcher.page(candidate("a", "small"))
    fetcher.deferred("a", seconds=100, key=key)
    fetcher.deferred(seconds=5, key=key)
    fetcher.page()
    fetcher.live(6)
    fetcher.page(candidate("a", "small"))
    assert fetcher.leased == ["a"]


def test_while_all_keys_are_deferred_there_is_no_poll_and_nothing_is_leased() -> None:
    fetcher = Fetching(max_in_flight=1)
    fetcher.page("a", "b")
    fetcher.deferred("a", seconds=1000, key="*")
    fetcher.published("a")
    assert fetcher.leased == []
    assert of_type(Poll, fetcher.live(999)) == []
    assert len(of_type(Poll, fetcher.live(1.5))) == 1


def test_the_room_that_deferred_tasks_leave_is_a_reason_to_poll_for_others() -> None:
    fetcher = Fetching(max_in_flight=2)
    fetcher.page(candidate("a", "small"), candidate("b", "large"))
    fetcher.live(INTERVAL + 1, held=["a", "b"])
    assert not fetcher.polling
    fetcher.deferred("a", seconds=100, key="small")
    assert fetcher.polling


def test_deferring_every_task_does_not_cause_more_polls() -> None:
    fetcher = Fetching(max_in_flight=10)
    fetcher.page(*names(3))
    fetcher.deferred(*names(3), seconds=1000, key="model")
    polls = 0
    for _ in range(300):
        if fetcher.poll:
            polls += 1
            fetcher.page(deferred=3)
        fetcher.live(1, 1)
    assert polls <= 1 + 300 / INTERVAL


def test_the_lease_of_a_deferred_task_is_deleted_on_disk() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    assert of_type(DeleteLease, fetcher.deferred("a", "unknown", seconds=9)) == [DeleteLease("a")]


# ---- the rate limiter ----


def test_a_rate_limiter_that_is_gone_gets_no_more_tasks() -> None:
    """They would pile up in its inbox, once more each time that their leases expire."""
    fetcher = Fetching()
    fetcher.page("a")
    fetcher.page(known=1)
    done = []
    for _ in range(600):
        done += fetcher.after(0.5).tick()
    assert of_type(Poll, done) == []
    assert fetcher.state.report(fetcher.now).blockers == [
        "the rate limiter has stopped reporting the tasks that it holds"
    ]


def test_a_rate_limiter_that_is_gone_gets_no_buffered_tasks() -> None:
    fetcher = Fetching(max_in_flight=1)
    fetcher.page("a", "b")
    fetcher.after(LEASE + 0.1).published("a")
    assert fetcher.leased == []


def test_polling_resumes_when_the_rate_limiter_reports_again() -> None:
    fetcher = Fetching()
    fetcher.page()
    for _ in range(60):
        fetcher.after(0.5).tick()
    assert not fetcher.polling
    fetcher.holding(stage="publisher")
    fetcher.tick()
    assert not fetcher.polling
    fetcher.holding(stage="rate_limiter")
    fetcher.tick()
    assert fetcher.polling


def test_a_stop_of_the_fetcher_does_not_make_the_rate_limiter_count_as_gone() -> None:
    fetcher = Fetching()
    fetcher.page()
    fetcher.after(3600).tick()
    assert fetcher.polling
