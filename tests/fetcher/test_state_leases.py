"""Leases that expire, and tasks that kill their embedders."""

from __future__ import annotations

from common.wire import messages as m
from stages.fetcher.actions import DeleteLease, Lease, Poll, PutLease
from stages.fetcher.lease_expiry import FORGET_LOST_S
from tests.decisions import START, counted, log_fields, of_type, sent_to
from tests.fetcher.fetching import LEASE, Fetching, candidate, dispatched, ids, with_leased


def lose(fetcher: Fetching) -> list[object]:
    """Let time pass in which no lease is renewed."""
    done = fetcher.live(LEASE + 1.5)
    assert fetcher.leased == []
    return done


# ---- lost ----


def test_a_lease_that_is_renewed_lasts() -> None:
    fetcher = with_leased("a")
    fetcher.live(100 * LEASE, 5, held=["a"])
    assert fetcher.leased == ["a"]


def test_a_lease_that_is_not_renewed_expires_after_its_time_and_not_before() -> None:
    fetcher = with_leased("a")
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]
    done = fetcher.live(1.5)
    assert fetcher.leased == []
    assert log_fields("leases_expired", done) == {"level": "warning", "task_id": "a"}
    assert counted("leases_expired_total", done) == [((), 1)]
    assert fetcher.state.report(fetcher.now).facts["lost"] == 1


def test_a_lost_task_is_a_reason_to_poll_at_once() -> None:
    fetcher = with_leased("a")
    assert len(of_type(Poll, lose(fetcher))) == 1
    assert fetcher.poll is not None
    assert "a" not in fetcher.poll.known


def test_a_lost_task_that_is_still_pending_is_dispatched_again_with_the_same_lease_time() -> None:
    fetcher = with_leased("a")
    leased_at = START.wall
    lose(fetcher)
    (task,) = dispatched(fetcher.page("a"))
    assert (task.leased_at, task.attempt) == (leased_at, 1)


def test_the_attempt_of_a_lost_task_rises_only_if_an_embedder_had_it() -> None:
    fetcher = with_leased("a", "b")
    fetcher.holding("b", embedding=["a"])
    done = lose(fetcher)
    stored = {put.task_id: put.lease.attempt for put in of_type(PutLease, done)}
    assert stored == {"a": 2, "b": 1}
    assert {task.id: task.attempt for task in dispatched(fetcher.page("a", "b"))} == {"a": 2, "b": 1}


def test_the_attempt_of_a_task_does_not_rise_once_the_publisher_has_its_result() -> None:
    fetcher = with_leased("a")
    fetcher.holding(embedding=["a"])
    fetcher.holding("a", stage="publisher")
    fetcher.live(LEASE + 1)
    fetcher.holding(stage="publisher")
    fetcher.live(1.5)
    assert dispatched(fetcher.page("a"))[0].attempt == 1


def test_the_fetcher_alone_never_gives_up_a_task_that_is_lost_again_and_again() -> None:
    """Only the rate limiter can tell whether the task or something else killed the embedder."""
    fetcher = with_leased("a", max_dispatches=3)
    for attempt in (2, 3, 3, 3):
        fetcher.holding(embedding=["a"])
        lose(fetcher)
        assert dispatched(fetcher.page("a"))[0].attempt == attempt
        fetcher.page(known=1)


def test_a_task_that_the_rate_limiter_gives_up_goes_to_the_publisher_as_failed() -> None:
    fetcher = with_leased("a", "b", max_dispatches=3)
    done = fetcher.deferred("a", seconds=0, reason="poison")
    ((result,),) = [message.results for message in sent_to("publisher", done)]
    assert result.id == "a"
    assert result.type == "text_embedding"
    assert result.leased_at == START.wall
    assert result.failure is not None
    assert result.failure.code == "poison_task"
    assert "3 dispatches" in result.failure.message
    assert log_fields("task_poison", done)["dispatches"] == 3
    assert of_type(DeleteLease, done) == []
    assert fetcher.leased == ["a", "b"]


def test_a_task_that_was_given_up_is_failed_again_if_its_result_is_lost() -> None:
    fetcher = with_leased("a")
    (stored,) = of_type(PutLease, fetcher.deferred("a", seconds=0, reason="poison"))
    restarted = Fetching(leases={"a": stored.lease})
    lose(restarted)
    done = restarted.page("a", "b", "c")
    assert ids(done) == ["b", "c"]
    assert len(sent_to("publisher", done)) == 1
    assert restarted.leased == ["a", "b", "c"]


def test_a_lost_task_can_be_given_up_and_given_back() -> None:
    fetcher = with_leased("a", "b")
    lose(fetcher)
    assert len(sent_to("publisher", fetcher.deferred("a", seconds=0, reason="poison"))) == 1
    assert of_type(DeleteLease, fetcher.deferred("b", seconds=900)) == [DeleteLease("b")]
    assert ids(fetcher.page("a", "b")) == []


def test_a_task_whose_result_is_stored_is_neither_given_back_nor_given_up() -> None:
    fetcher = with_leased("a", "b")
    fetcher.holding("a", stage="publisher")
    done = fetcher.deferred("a", "b", seconds=0, reason="provider")
    assert of_type(DeleteLease, done) == [DeleteLease("b")]
    assert fetcher.deferred("a", seconds=0, reason="poison") == []
    assert fetcher.leased == ["a"]


def test_a_lost_task_that_a_holder_lists_again_is_leased_again() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    fetcher.holding("a")
    assert fetcher.leased == ["a"]
    assert ids(fetcher.page("a")) == []
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]


def test_a_listed_task_that_was_never_leased_is_ignored() -> None:
    fetcher = with_leased()
    fetcher.holding("a", embedding=["b"])
    assert fetcher.leased == []


def test_a_lost_task_that_is_not_pending_any_more_is_forgotten() -> None:
    fetcher = with_leased("a", "b", "c")
    lose(fetcher)
    done = fetcher.page("c")
    assert of_type(DeleteLease, done) == [DeleteLease("a"), DeleteLease("b")]
    assert fetcher.leased == ["c"]
    assert fetcher.lost == []


def test_a_lost_task_is_not_forgotten_if_the_page_may_have_hidden_it() -> None:
    for page in ({"whole": False}, {"deferred": 1}, {"elements": 3}):
        fetcher = with_leased("a", "b", "c")
        fetcher.holding(embedding=["a"])
        lose(fetcher)
        assert of_type(DeleteLease, fetcher.page("b", **page)) == [], page
        fetcher.holding("b")
        assert dispatched(fetcher.page("a"))[0].attempt == 2


def test_a_lost_task_that_no_page_shows_is_forgotten_after_ten_minutes() -> None:
    fetcher = with_leased("a", "b", "c")
    lose(fetcher)
    fetcher.page(known=3)
    assert of_type(DeleteLease, fetcher.live(FORGET_LOST_S - 5, 5)) == []
    assert [gone.task_id for gone in of_type(DeleteLease, fetcher.live(10, 5))] == ["a", "b", "c"]


def test_a_lost_task_whose_result_is_accepted_is_settled() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    assert of_type(DeleteLease, fetcher.published("a")) == [DeleteLease("a")]
    assert fetcher.lost == []
    assert ids(fetcher.page("a")) == []


def test_leases_do_not_expire_because_the_fetcher_itself_was_stopped() -> None:
    fetcher = with_leased("a")
    fetcher.after(3600).tick()
    assert fetcher.leased == ["a"]
    fetcher.live(LEASE - 1)
    assert fetcher.leased == ["a"]


def test_a_stop_of_the_fetcher_does_not_extend_a_lease_that_was_just_renewed() -> None:
    fetcher = with_leased("a")
    fetcher.after(3600).holding("a")  # read before the first tick after the stop
    fetcher.tick()
    lose(fetcher)


def test_after_a_restart_holders_have_a_full_lease_to_list_their_tasks() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall - 9999, 2, "text_embedding")})
    fetcher.page(known=1)
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]
    fetcher.live(1.5)
    (task,) = dispatched(fetcher.page("a"))
    assert (task.attempt, task.leased_at) == (2, START.wall - 9999)


def test_a_lost_task_that_has_become_invalid_fails_with_its_old_lease_time() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    done = fetcher.page(candidate("a", failure=m.Failure("invalid_content", "empty")))
    ((result,),) = [message.results for message in sent_to("publisher", done)]
    assert result.leased_at == START.wall
