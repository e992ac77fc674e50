"""Leases that nobody renews, tasks that kill their workers, and what was settled, dead, or queued again."""

from __future__ import annotations

from typing import Any

from common.recently_settled import BUCKET_S, DeleteSettled, Record
from common.wire import messages as m
from common.wire.timing import REQUEUED_AFTER_S
from stages.fetcher.actions import DeleteDead, DeleteLease, Lease, Poll, PutDead, PutLease, PutSettled
from stages.fetcher.state import FORGET_LOST, SLOWEST_PAGE
from tests.decisions import START, counted, of, said, sent_to
from tests.fetcher.fetching import LEASE, Fetching, candidate, dispatched, ids


def with_leased(*task_ids: str, **limits: Any) -> Fetching:
    """These are leased, and no poll is under way."""
    fetcher = Fetching(**limits)
    fetcher.page(*task_ids)
    if fetcher.poll:
        fetcher.page(known=len(task_ids))
    return fetcher


def lose(fetcher: Fetching) -> list[object]:
    """Let time pass in which nobody renews a lease."""
    done = fetcher.live(LEASE + 1.5)
    assert fetcher.leased == []
    return done


# ---- lost ----


def test_a_lease_that_is_renewed_lasts() -> None:
    fetcher = with_leased("a")
    fetcher.live(100 * LEASE, 5, held=["a"])
    assert fetcher.leased == ["a"]


def test_one_that_is_not_is_lost_after_its_time_and_not_before() -> None:
    fetcher = with_leased("a")
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]
    done = fetcher.live(1.5)
    assert fetcher.leased == []
    assert said("leases_expired", done) == {"level": "warning", "task_id": "a"}
    assert counted("leases_expired_total", done) == [((), 1)]
    assert fetcher.state.report(fetcher.now).facts["lost"] == 1


def test_the_loss_is_a_reason_to_poll_at_once() -> None:
    fetcher = with_leased("a")
    assert len(of(Poll, lose(fetcher))) == 1
    assert fetcher.poll is not None
    assert "a" not in fetcher.poll.known


def test_a_lost_task_that_is_still_pending_is_dispatched_again_as_the_same_processing() -> None:
    fetcher = with_leased("a")
    leased_at = START.wall
    lose(fetcher)
    (task,) = dispatched(fetcher.page("a"))
    assert (task.leased_at, task.attempt) == (leased_at, 1)


def test_its_attempts_count_only_if_a_worker_had_it() -> None:
    fetcher = with_leased("a", "b")
    fetcher.holding("b", embedding=["a"])
    done = lose(fetcher)
    stored = {put.task_id: put.lease.attempt for put in of(PutLease, done)}
    assert stored == {"a": 2, "b": 1}
    assert {task.id: task.attempt for task in dispatched(fetcher.page("a", "b"))} == {"a": 2, "b": 1}


def test_a_worker_that_handed_its_result_on_is_not_suspected() -> None:
    fetcher = with_leased("a")
    fetcher.holding(embedding=["a"])
    fetcher.holding("a", stage="publisher")
    fetcher.live(LEASE + 1)
    fetcher.holding(stage="publisher")
    fetcher.live(1.5)
    assert dispatched(fetcher.page("a"))[0].attempt == 1


def test_one_that_is_lost_again_and_again_is_tried_for_the_last_time_but_not_given_up() -> None:
    """Here nobody can tell whether it was its fault: whoever kills the rate limiter too would fail it."""
    fetcher = with_leased("a", max_dispatches=3)
    for attempt in (2, 3, 3, 3):
        fetcher.holding(embedding=["a"])
        lose(fetcher)
        assert dispatched(fetcher.page("a"))[0].attempt == attempt
        fetcher.page(known=1)


def test_the_rate_limiter_gives_up_poison() -> None:
    fetcher = with_leased("a", "b", max_dispatches=3)
    done = fetcher.deferred("a", seconds=0, reason="poison")
    ((result,),) = [message.results for message in sent_to("publisher", done)]
    assert result.id == "a"
    assert result.type == "text_embedding"
    assert result.leased_at == START.wall
    assert result.failure is not None
    assert result.failure.code == "poison_task"
    assert "3 dispatches" in result.failure.message
    assert said("task_poison", done)["dispatches"] == 3
    assert of(DeleteLease, done) == []
    assert fetcher.leased == ["b", "a"]


def test_its_verdict_stands_even_if_the_result_is_lost_on_its_way() -> None:
    fetcher = with_leased("a")
    (stored,) = of(PutLease, fetcher.deferred("a", seconds=0, reason="poison"))
    restarted = Fetching(leases={"a": stored.lease})
    lose(restarted)
    done = restarted.page("a", "b", "c")
    assert ids(done) == ["b", "c"]
    assert len(sent_to("publisher", done)) == 1
    assert restarted.leased == ["a", "b", "c"]


def test_and_even_if_the_task_was_already_lost() -> None:
    fetcher = with_leased("a", "b")
    lose(fetcher)
    assert len(sent_to("publisher", fetcher.deferred("a", seconds=0, reason="poison"))) == 1
    assert of(DeleteLease, fetcher.deferred("b", seconds=900)) == [DeleteLease("b")]
    assert ids(fetcher.page("a", "b")) == []


def test_whoever_gives_back_what_the_publisher_has_stored_had_it_of_a_worker_that_died_afterwards() -> None:
    fetcher = with_leased("a", "b")
    fetcher.holding("a", stage="publisher")
    done = fetcher.deferred("a", "b", seconds=0, reason="provider")
    assert of(DeleteLease, done) == [DeleteLease("b")]
    assert fetcher.deferred("a", seconds=0, reason="poison") == []
    assert fetcher.leased == ["a"]


def test_a_holder_that_was_only_silent_still_has_it() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    fetcher.holding("a")
    assert fetcher.leased == ["a"]
    assert ids(fetcher.page("a")) == []
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]


def test_nobody_can_hold_what_was_never_leased() -> None:
    fetcher = with_leased()
    fetcher.holding("a", embedding=["b"])
    assert fetcher.leased == []


def test_a_lost_task_that_is_not_pending_any_more_is_forgotten() -> None:
    fetcher = with_leased("a", "b", "c")
    lose(fetcher)
    done = fetcher.page("c")
    assert of(DeleteLease, done) == [DeleteLease("a"), DeleteLease("b")]
    assert fetcher.leased == ["c"]
    assert fetcher.state.lost == {}


def test_but_not_if_the_page_may_have_hidden_it() -> None:
    for page in ({"whole": False}, {"deferred": 1}, {"elements": 3}):
        fetcher = with_leased("a", "b", "c")
        fetcher.holding(embedding=["a"])
        lose(fetcher)
        assert of(DeleteLease, fetcher.page("b", **page)) == [], page
        fetcher.holding("b")
        assert dispatched(fetcher.page("a"))[0].attempt == 2


def test_nor_is_it_kept_for_ever() -> None:
    fetcher = with_leased("a", "b", "c")
    lose(fetcher)
    fetcher.page(known=3)
    assert of(DeleteLease, fetcher.live(FORGET_LOST - 5, 5)) == []
    assert [gone.task_id for gone in of(DeleteLease, fetcher.live(10, 5))] == ["a", "b", "c"]


def test_one_that_is_published_after_all_is_settled() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    assert of(DeleteLease, fetcher.published("a")) == [DeleteLease("a")]
    assert fetcher.state.lost == {}
    assert ids(fetcher.page("a")) == []


def test_a_stop_of_this_process_says_nothing_about_the_holders() -> None:
    fetcher = with_leased("a")
    fetcher.after(3600).tick()
    assert fetcher.leased == ["a"]
    fetcher.live(LEASE - 1)
    assert fetcher.leased == ["a"]


def test_nor_does_it_prolong_a_lease_that_was_just_renewed() -> None:
    fetcher = with_leased("a")
    fetcher.after(3600).holding("a")  # read before the first tick after the stop
    fetcher.tick()
    lose(fetcher)


def test_leases_of_an_earlier_life_have_their_full_time_to_be_claimed() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall - 9999, 2, "text_embedding")})
    fetcher.page(known=1)
    fetcher.live(LEASE)
    assert fetcher.leased == ["a"]
    fetcher.live(1.5)
    (task,) = dispatched(fetcher.page("a"))
    assert (task.attempt, task.leased_at) == (2, START.wall - 9999)


def test_a_lost_task_found_malformed_is_failed_as_the_same_processing() -> None:
    fetcher = with_leased("a")
    lose(fetcher)
    done = fetcher.page(candidate("a", failure=m.Failure("invalid_content", "empty")))
    ((result,),) = [message.results for message in sent_to("publisher", done)]
    assert result.leased_at == START.wall


# ---- settled ----


def test_what_was_settled_is_stored_and_forgotten_when_no_page_can_show_it_any_more() -> None:
    fetcher = with_leased("a")
    (put,) = of(PutSettled, fetcher.published("a"))
    assert put == PutSettled(Record(fetcher.now.wall, ["a"]))
    keep = REQUEUED_AFTER_S + SLOWEST_PAGE
    assert of(DeleteSettled, fetcher.after(keep).tick()) == []
    assert of(DeleteSettled, fetcher.after(BUCKET_S).tick()) == [DeleteSettled(put.record)]


def test_records_of_one_turn_do_not_overwrite_one_another() -> None:
    fetcher = with_leased("a", "b")
    (first,), (second,) = of(PutSettled, fetcher.published("a")), of(PutSettled, fetcher.published("b"))
    assert first.record.key != second.record.key


def test_a_page_that_was_asked_for_before_a_task_was_settled_does_not_bring_it_back() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    assert fetcher.poll is not None
    fetcher.after(5).published("a")
    assert ids(fetcher.page("a")) == []


def test_however_slow_the_page_is() -> None:
    fetcher = Fetching()
    fetcher.page("a")
    fetcher.published("a")
    fetcher.holding()
    fetcher.after(SLOWEST_PAGE).holding()
    assert ids(fetcher.page("a", "b")) == ["b"]


def test_a_task_that_is_pending_more_than_a_minute_after_it_was_settled_was_queued_again_on_purpose() -> None:
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


def test_what_was_settled_before_a_restart_is_known() -> None:
    fetcher = Fetching()
    fetcher.state.settled.add(Record(START.wall - 5, ["a"]))
    assert ids(fetcher.page("a", "b")) == ["b"]


# ---- dead letters ----


def test_a_dead_letter_is_remembered_on_disk_and_not_fetched_again() -> None:
    fetcher = with_leased("a")
    done = fetcher.published(dead=["a"])
    assert of(PutDead, done) == [PutDead("a")]
    assert of(DeleteLease, done) == [DeleteLease("a")]
    assert of(PutSettled, done) == []
    assert of(PutDead, fetcher.published(dead=["a"])) == []
    assert ids(fetcher.page("a")) == []


def test_when_it_is_accepted_after_all_it_is_dead_no_more() -> None:
    fetcher = Fetching(dead=["a"])
    assert of(DeleteDead, fetcher.published("a")) == [DeleteDead("a")]


def test_when_it_is_dropped_its_task_is_fetched_again() -> None:
    fetcher = Fetching(dead=["a"])
    assert of(DeleteDead, fetcher.published(dropped=["a", "other"])) == [DeleteDead("a")]
    assert ids(fetcher.page("a")) == ["a"]


def test_one_that_was_told_to_a_fetcher_as_it_died_is_heard_of_again() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall), "b": Lease(START.wall)})
    done = fetcher.holding("b", stage="publisher", dead=["a"])
    assert of(PutDead, done) == [PutDead("a")]
    assert of(DeleteLease, done) == [DeleteLease("a")]
    assert fetcher.leased == ["b"]
    assert ids(fetcher.page("a")) == []


def test_so_is_the_end_of_one() -> None:
    fetcher = Fetching(dead=["a", "b"])
    assert of(DeleteDead, fetcher.holding(stage="publisher", dead=["b"])) == [DeleteDead("a")]
    assert ids(fetcher.page("a", "b")) == ["a"]


def test_one_that_is_being_replayed_is_not_fetched_meanwhile() -> None:
    fetcher = Fetching(dead=["a"])
    assert fetcher.holding("a", stage="publisher", dead=[]) == []
    assert ids(fetcher.page("a")) == []


def test_the_rate_limiter_knows_nothing_of_dead_letters() -> None:
    fetcher = Fetching(dead=["a"])
    assert fetcher.holding("b") == []
    assert ids(fetcher.page("a")) == []
