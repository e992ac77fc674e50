"""A rate limiter that was killed: the tasks that waited in it are lost a second after its successor's inventory."""

from __future__ import annotations

from typing import Any

from common.wire import messages as m
from common.wire.timing import IN_TRANSIT_S, UNCONFIRMED_S
from stages.fetcher.actions import Lease, Poll, PutLease
from tests.decisions import START, counted, events, log_fields, of_type
from tests.fetcher.claiming import ClaimingFetching
from tests.fetcher.fetching import LEASE, Fetching, dispatched, ids

TICK = 0.1
SOON = UNCONFIRMED_S + 2 * TICK


def waiting(*task_ids: str, fetcher: Fetching | None = None) -> Fetching:
    """A fetcher whose tasks wait in a rate limiter that listed them two seconds ago, and was killed then."""
    fetcher = fetcher or Fetching()
    fetcher.page(*task_ids)
    if fetcher.poll:
        fetcher.page(known=len(task_ids))
    fetcher.holding(*task_ids)
    live(fetcher, 2)
    return fetcher


def live(fetcher: Fetching, seconds: float) -> list[Any]:
    """Tick as the loop does, without any message."""
    done: list[Any] = []
    for _ in range(round(seconds / TICK)):
        done += fetcher.after(TICK).tick()
    return done


def restarted(fetcher: Fetching, *task_ids: str, embedding: tuple[str, ...] = ()) -> list[Any]:
    """A new rate limiter sends its complete inventory."""
    return fetcher.holding(*task_ids, embedding=embedding, inventory_complete=True)


def test_a_waiting_task_that_the_inventory_does_not_list_is_lost_a_second_later() -> None:
    fetcher = waiting("a", "b", "c")
    restarted(fetcher, "b", embedding=("c",))
    assert events(live(fetcher, UNCONFIRMED_S - TICK)) == []
    done = live(fetcher, 2 * TICK)
    assert fetcher.leased == ["b", "c"]
    assert log_fields("leases_expired", done) == {"level": "warning", "task_id": "a"}
    assert counted("leases_expired_total", done) == [((), 1)]
    assert of_type(PutLease, done) == [PutLease("a", Lease(START.wall, 1, "text_embedding"))]


def test_tasks_lost_with_a_rate_limiter_are_polled_and_dispatched_again_at_once() -> None:
    fetcher = waiting("a", "b")
    restarted(fetcher)
    assert len(of_type(Poll, live(fetcher, SOON))) == 1
    fetcher.asked_at = fetcher.now
    assert [(t.id, t.attempt, t.leased_at) for t in dispatched(fetcher.page("a", "b"))] == [
        ("a", 1, START.wall),
        ("b", 1, START.wall),
    ]


def test_a_holding_before_the_complete_inventory_only_renews_leases() -> None:
    fetcher = waiting("a")
    fetcher.holding()
    assert live(fetcher, 5) == []
    assert fetcher.leased == ["a"]


def test_a_holding_after_the_complete_inventory_loses_nothing() -> None:
    """A rate limiter sends its complete inventory once, and not again after it was stopped for a while."""
    fetcher = waiting("a")
    restarted(fetcher, "a")
    live(fetcher, 2)
    fetcher.holding()
    live(fetcher, 2)
    assert fetcher.leased == ["a"]


def test_a_task_that_was_just_sent_is_not_lost_because_it_may_be_in_the_inbox() -> None:
    fetcher = Fetching()
    live(fetcher, 5)
    fetcher.page("a")
    live(fetcher, IN_TRANSIT_S - TICK)
    restarted(fetcher)
    live(fetcher, 5)
    assert fetcher.leased == ["a"]


def test_a_task_that_is_sent_after_the_inventory_is_not_lost() -> None:
    fetcher = waiting("a")
    restarted(fetcher)
    fetcher.page("b")
    live(fetcher, SOON)
    assert fetcher.leased == ["b"]


def test_a_task_that_is_listed_within_a_second_of_the_inventory_is_not_lost() -> None:
    for named in ({"ids": "a"}, {"embedding": "a"}):
        fetcher = waiting("a", "b")
        restarted(fetcher)
        fetcher.after(UNCONFIRMED_S / 2).holding(*named.get("ids", ""), embedding=named.get("embedding", ""))
        live(fetcher, SOON)
        assert fetcher.leased == ["a"]


def test_a_task_whose_result_is_stored_is_not_lost_by_an_inventory_without_it() -> None:
    fetcher = waiting("a", "b")
    fetcher.holding("a", stage="publisher")
    restarted(fetcher)
    fetcher.after(UNCONFIRMED_S / 2).holding("b", stage="publisher")  # it came after what was said later
    live(fetcher, SOON)
    assert fetcher.leased == ["a", "b"]


def test_a_task_that_an_embedder_has_is_not_lost_by_a_restart_of_the_rate_limiter() -> None:
    """Its result may be stored by a publisher that was killed since, or the embedder may be slow to send `Ready`."""
    fetcher = waiting("a")
    fetcher.holding(embedding=["a"])
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, 5)
    assert fetcher.leased == ["a"]
    fetcher.live(LEASE)
    assert fetcher.leased == []


def test_a_task_that_an_embedder_had_and_that_waits_again_is_lost_by_the_restart() -> None:
    fetcher = waiting("a")
    fetcher.holding(embedding=["a"])
    fetcher.holding("a")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == []


def test_after_its_own_restart_the_fetcher_does_not_take_an_unlisted_task_for_lost() -> None:
    fetcher = Fetching(leases={"a": Lease(START.wall), "b": Lease(START.wall)})
    fetcher.page(known=2)
    fetcher.holding("b")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["a"]


def test_a_task_that_was_given_up_is_not_lost_by_the_restart() -> None:
    fetcher = waiting("a", "b")
    fetcher.deferred("a", seconds=0, reason="poison")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["a"]


def test_a_task_that_ends_within_a_second_of_the_inventory_is_not_lost() -> None:
    fetcher = waiting("a", "b")
    restarted(fetcher)
    fetcher.published("a")
    fetcher.deferred("b", seconds=100)
    assert "leases_expired" not in events(live(fetcher, SOON))
    assert fetcher.lost == []


def test_an_inventory_without_any_lease_changes_nothing() -> None:
    fetcher = waiting()
    restarted(fetcher)
    assert events(live(fetcher, SOON)) == []


def test_a_stop_of_the_fetcher_extends_the_second_after_the_inventory() -> None:
    fetcher = waiting("a")
    restarted(fetcher)
    live(fetcher, UNCONFIRMED_S / 2)
    fetcher.after(3).tick()
    assert fetcher.leased == ["a"]
    live(fetcher, UNCONFIRMED_S / 2 + TICK)
    assert fetcher.leased == []


def test_tasks_are_lost_also_when_the_rate_limiter_was_gone_for_long() -> None:
    """No holder could list its tasks meanwhile, so the leases have not expired."""
    fetcher = waiting("a")
    live(fetcher, 100)
    assert fetcher.leased == ["a"]
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == []


def test_a_task_wrongly_taken_for_lost_is_leased_again_when_it_is_listed() -> None:
    """The rate limiter had it unread in its inbox, and ignores the second copy."""
    fetcher = waiting("a")
    restarted(fetcher)
    live(fetcher, SOON)
    fetcher.holding(embedding=["a"])
    assert fetcher.leased == ["a"]
    assert ids(fetcher.page("a")) == []


def test_a_task_that_is_not_claimed_yet_is_not_lost_by_the_restart() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a", "b")
    fetcher.answered("a")
    live(fetcher, 2)
    restarted(fetcher)
    live(fetcher, SOON)
    assert fetcher.leased == ["b"]


def test_a_claimed_task_lost_with_a_rate_limiter_is_searched_for_at_once() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a")
    fetcher.answered("a")
    fetcher.page()
    live(fetcher, 2)
    restarted(fetcher)
    (poll,) = of_type(Poll, live(fetcher, SOON))
    assert poll.among == frozenset("a")
    assert [task.id for message in of_type(m.Tasks, fetcher.in_progress("a")) for task in message.tasks] == ["a"]
