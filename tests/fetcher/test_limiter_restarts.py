"""A rate limiter that was killed: what waited in it is lost within a second of its successor knowing what there is."""

from __future__ import annotations

from typing import Any

from common.wire import messages as m
from common.wire.timing import IN_TRANSIT_S, UNCONFIRMED_S
from stages.fetcher.actions import Lease, Poll, PutLease
from tests.decisions import START, counted, events, of, said
from tests.fetcher.fetching import LEASE, Fetching, dispatched, ids
from tests.fetcher.test_claiming import ClaimingFetching

TICK = 0.1
SOON = UNCONFIRMED_S + 2 * TICK


def waiting(*task_ids: str, fetcher: Fetching | None = None) -> Fetching:
    """These wait in the rate limiter, which said so two seconds ago and was killed then; no poll is under way."""
    fetcher = fetcher or Fetching()
    fetcher.page(*task_ids)
    if fetcher.poll:
        fetcher.page(known=len(task_ids))
    fetcher.holding(*task_ids)
    live(fetcher, 2)
    return fetcher


def live(fetcher: Fetching, seconds: float) -> list[Any]:
    """Tick as the loop does, and hear nothing."""
    done: list[Any] = []
    for _ in range(round(seconds / TICK)):
        done += fetcher.after(TICK).tick()
    return done


def restarted(fetcher: Fetching, *task_ids: str, embedding: tuple[str, ...] = ()) -> list[Any]:
    """The next rate limiter has learnt that this is what there is."""
    return fetcher.holding(*task_ids, embedding=embedding, inventory_complete=True)


def test_what_it_does_not_name_is_lost_a_second_later() -> None:
    fetcher = waiting("a", "b", "c")
    restarted(fetcher, "b", embedding=("c",))
    assert events(live(fetcher, UNCONFIRMED_S - TICK)) == []
    done = live(fetcher, 2 * TICK)
    assert fetcher.leased == ["b", "c"]
    assert said("leases_expired", done) == {"level": "warning", "task_id": "a"}
    assert counted("leases_expired_total", done) == [((), 1)]
    assert of(PutLease, done) == [PutLease("a", Lease(START.wall, 1, "text_embedding"))]


def test_that_is_a_reason_to_poll_and_what_is_still_pending_is_dispatched_again_at_once() -> None:
    fetcher = waiting("a", "b")
    restarted(fetcher)
    assert len(of(Poll, live(fetcher, SOON))) == 1
    fetcher.asked_at = fetcher.now
    assert [(t.id, t.attempt, t.leased_at) for t in dispatched(fetcher.page("a", "b"))] == [
        ("a", 1, START.wall),
        ("b", 1, START.wall),
    ]


def test_what_it_says_before_it_has_learnt_only_renews() -> None:
    fetcher = waiting("a")
    fetcher.holding()
    assert live(fetcher, 5) == []
    assert fetcher.leased == ["a"]


def test_all_that_is_said_later_is_about_what_came_meanwhile() -> None:
    """What it has learnt, it says once: a stop of it is no restart."""
    fetcher = waiting("a")
    restarted(fetcher, "a")
    live(fetcher, 2)
    fetcher.holding()
    live(fetcher, 2)
    assert fetcher.leased == ["a"]


def test_what_was_just_sent_may_lie_in_its_inbox_unread() -> None:
    fetcher = Fetching()
    live(fetcher, 5)
    fetcher.page("a")
    live(fetcher, IN_TRANSIT_S - TICK)
    restarted(fetcher)
    live(fetcher, 5)
    assert fetcher.leased == ["a"]


def test_what_is_sent_after_it_spoke_is_none_of_its_business() -> None:
    fetcher = waiting("a")
    restarted(fetcher)
    fetcher.page("b")
    live(fetcher, SOON)
    assert fetcher.leased == ["b"]


def test_what_it_names_within_the_second_it_had_in_its_inbox() -> None:
    for named in ({"ids": "a"}, {"embedding": "a"}):
        fetcher = waiting("a", "b")
        restarted(fetcher)
        fetcher.after(UNCONFIRMED_S / 2).holding(*named.get("ids", ""), embedding=named.get("embedding", ""))
        live(fetcher, SOON)
        assert fetcher.leased == ["a"]


def test_what_the_publisher_has_stored_is_not_lost_though_nobody_else_names_it() -> None:
    fetcher = waiting("a", "b")
    fetcher.holding("a", stage="publisher")
    restarted(fetcher)
    fetcher.after(UNCONFIRMED_S / 2).holding("b", stage="publisher")  # it came after what was said later
    live(fetcher, SOON)
    assert fetcher.leased == ["a", "b"]


def test_what_a_worker_has_is_not_lost_by_a_restart_of_the_rate_limiter() -> None:
    """Its result may be stored, and the publisher be killed before it said so; or the worker be slow to say `Ready`."""
    fetcher = waiting("a")
    fetcher.holding(embedding=["a"])
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, 5)
    assert fetcher.leased == ["a"]
    fetcher.live(LEASE)
    assert fetcher.leased == []


def test_one_that_a_worker_had_and_that_waits_again_is() -> None:
    fetcher = waiting("a")
    fetcher.holding(embedding=["a"])
    fetcher.holding("a")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == []


def test_a_fetcher_that_restarted_does_not_know_what_waited() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall), "b": Lease(START.wall)})
    fetcher.page(known=2)
    fetcher.holding("b")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["a"]


def test_what_cannot_be_processed_never_waited_there() -> None:
    fetcher = waiting("a", "b")
    fetcher.deferred("a", seconds=0, reason="poison")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["a"]


def test_what_ended_within_the_second_is_over() -> None:
    fetcher = waiting("a", "b")
    restarted(fetcher)
    fetcher.published("a")
    fetcher.deferred("b", seconds=100)
    assert "leases_expired" not in events(live(fetcher, SOON))
    assert fetcher.lost == []


def test_what_is_said_of_nothing_changes_nothing() -> None:
    fetcher = waiting()
    restarted(fetcher)
    assert events(live(fetcher, SOON)) == []


def test_a_stop_of_this_process_is_not_counted_for_news_may_wait_in_its_inbox() -> None:
    fetcher = waiting("a")
    restarted(fetcher)
    live(fetcher, UNCONFIRMED_S / 2)
    fetcher.after(3).tick()
    assert fetcher.leased == ["a"]
    live(fetcher, UNCONFIRMED_S / 2 + TICK)
    assert fetcher.leased == []


def test_one_that_was_gone_for_long_has_lost_no_less() -> None:
    """Nobody could speak meanwhile, so the leases have not expired."""
    fetcher = waiting("a")
    live(fetcher, 100)
    assert fetcher.leased == ["a"]
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == []


def test_a_mistake_is_a_task_that_is_sent_twice() -> None:
    """It lay unread in its inbox: the second copy is ignored there, and here it is found as soon as it is named."""
    fetcher = waiting("a")
    restarted(fetcher)
    live(fetcher, SOON)
    fetcher.holding(embedding=["a"])
    assert fetcher.leased == ["a"]
    assert ids(fetcher.page("a")) == []


def test_what_is_not_claimed_yet_never_waited_there() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a", "b")
    fetcher.answered("a")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["b"]


def test_what_was_claimed_is_looked_for_at_once_among_those_in_progress() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a")
    fetcher.answered("a")
    fetcher.page()
    live(fetcher, 2)
    restarted(fetcher)
    (poll,) = of(Poll, live(fetcher, SOON))
    assert poll.among == frozenset("a")
    assert [task.id for message in of(m.Tasks, fetcher.in_progress("a")) for task in message.tasks] == ["a"]
