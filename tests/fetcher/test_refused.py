"""Tasks whose results the API refuses leave room for others in the in-flight limit, up to as many again."""

from __future__ import annotations

from stages.fetcher.lease_table import Whereabouts
from tests.fetcher.fetching import INTERVAL, LEASE, Fetching, ids
from tests.samples import names

LIMIT = 4


def full(*buffered: str) -> Fetching:
    """A fetcher with as many leased tasks as it may have."""
    fetcher = Fetching(max_in_flight=LIMIT)
    fetcher.page(*names(LIMIT), *buffered)
    assert fetcher.state.room == 0
    return fetcher


def test_a_task_whose_result_is_parked_leaves_its_room_to_a_buffered_task() -> None:
    fetcher = full("next")
    done = fetcher.parked("t0")
    assert ids(done) == ["next"]
    assert fetcher.leased == ["next", *names(LIMIT)]


def test_when_all_are_parked_the_next_poll_asks_for_as_many_others() -> None:
    fetcher = full()
    fetcher.parked(*names(LIMIT))
    fetcher.live(INTERVAL, held=())
    assert fetcher.poll is not None
    assert fetcher.poll.limit == 2 * LIMIT  # the parked ones are pending, and come first
    assert fetcher.poll.known == set(names(LIMIT))
    assert ids(fetcher.page(*names(LIMIT, "good"), known=LIMIT)) == names(LIMIT, "good")


def test_at_most_twice_the_limit_are_leased() -> None:
    fetcher = full(*names(LIMIT, "u"))
    fetcher.parked(*names(LIMIT))
    assert len(fetcher.leased) == 2 * LIMIT
    fetcher.parked(*names(LIMIT), *names(LIMIT, "u"))
    assert fetcher.state.room == 0
    fetcher.live(INTERVAL)
    assert not fetcher.polling


def test_a_parked_task_that_is_settled_is_over() -> None:
    fetcher = full()
    fetcher.parked("t0")
    fetcher.published("t0")
    assert fetcher.state.room == 1
    fetcher.published(dead=["t1"])
    assert fetcher.state.table.whereabouts("t1") is Whereabouts.DEAD
    assert fetcher.state.room == 2


def test_a_parked_task_keeps_its_lease_while_the_publisher_lists_it() -> None:
    fetcher = full()
    for _ in range(6):
        fetcher.parked("t0")
        fetcher.live(LEASE / 3, held=names(LIMIT)[1:])
    assert fetcher.lost == []
    assert fetcher.state.table.whereabouts("t0") is Whereabouts.REFUSED


def test_a_parked_task_is_not_lost_while_the_publisher_is_down() -> None:
    fetcher = full()
    fetcher.parked("t0")
    fetcher.live(10 * LEASE, held=names(LIMIT)[1:])
    assert fetcher.lost == []


def test_a_parked_task_that_a_publisher_does_not_list_any_more_is_lost() -> None:
    fetcher = full()
    fetcher.parked("t0")
    for _ in range(6):
        fetcher.holding(stage="publisher")
        fetcher.live(LEASE / 3, held=names(LIMIT)[1:])
    assert fetcher.lost == ["t0"]


def test_a_restarted_publisher_that_has_not_tried_a_result_lists_it_as_stored() -> None:
    fetcher = full("next")
    fetcher.parked("t0")
    assert fetcher.state.room == 0
    fetcher.parked(stored=["t0"])
    assert fetcher.state.table.whereabouts("t0") is Whereabouts.STORED
    assert fetcher.state.room == 0  # one more than the limit is leased
    fetcher.published("t0")
    assert fetcher.state.room == 0
    fetcher.published("t1")
    assert fetcher.state.room == 1


def test_a_replayed_dead_letter_that_is_refused_remains_a_dead_letter() -> None:
    fetcher = Fetching(dead=["d"])
    fetcher.holding(stage="publisher", dead=[], parked=["d"])
    assert fetcher.state.table.whereabouts("d") is Whereabouts.DEAD


def test_the_heartbeat_shows_how_many_are_refused() -> None:
    fetcher = full()
    fetcher.parked("t0", "t1")
    assert fetcher.state.report(fetcher.now).facts["refused"] == 2
