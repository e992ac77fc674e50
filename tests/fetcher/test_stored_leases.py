"""A task whose result the publisher has on disk: a silent publisher does not lose it."""

from __future__ import annotations

from common.wire.messages import Holding
from stages.fetcher.actions import Lease
from stages.fetcher.config import FetcherConfig
from stages.fetcher.lease_table import LEASED, Whereabouts
from stages.fetcher.state import Fetcher
from tests.decisions import START, after
from tests.fetcher.fetching import LEASE, Fetching

TASK = "a"


def fetcher() -> Fetcher:
    config = FetcherConfig(10, lease_seconds=LEASE, max_dispatches=5, polling_interval_s=30.0)
    state = Fetcher(config, "ipc:///inbox", {TASK: Lease(START.wall)}, [], START)
    list(state.on_holding(Holding("publisher", [], dead=[]), START))
    return state


def tick_until(state: Fetcher, begin: float, end: float) -> None:
    """Tick as the loop does, so that no tick looks like a stop of this process."""
    for second in range(int(begin), int(end) + 1):
        list(state.on_tick(after(second)))


def test_a_stored_result_is_not_lost_while_the_publisher_is_silent() -> None:
    state = fetcher()
    list(state.on_holding(Holding("publisher", [TASK]), after(1)))
    list(state.on_holding(Holding("rate_limiter", [], [TASK]), after(2)))  # it has not heard that the batch is finished
    tick_until(state, 3, 10 * LEASE)
    assert TASK in state.table.ids(*LEASED)


def test_a_stored_result_is_lost_when_the_publisher_does_not_list_it_for_a_lease() -> None:
    state = fetcher()
    list(state.on_holding(Holding("publisher", [TASK]), after(0)))
    for second in range(5, 21, 5):
        list(state.on_holding(Holding("publisher", []), after(second)))
        tick_until(state, second, second + 4)
    assert state.table.whereabouts(TASK) is Whereabouts.LOST


def test_a_task_without_stored_result_is_lost_when_the_rate_limiter_does_not_list_it() -> None:
    state = fetcher()
    list(state.on_holding(Holding("rate_limiter", [TASK]), after(1)))
    for second in range(2, int(LEASE) + 3, 5):
        list(state.on_holding(Holding("rate_limiter", []), after(second)))
        tick_until(state, second, second + 4)
    assert state.table.whereabouts(TASK) is Whereabouts.LOST


def test_no_task_is_lost_while_the_rate_limiter_is_gone() -> None:
    state = fetcher()
    list(state.on_holding(Holding("rate_limiter", [TASK]), after(1)))
    tick_until(state, 2, 10 * LEASE)
    assert TASK in state.table.ids(*LEASED)


def test_when_the_rate_limiter_is_back_its_tasks_have_a_full_lease_to_be_listed() -> None:
    state = fetcher()
    tick_until(state, 1, 10 * LEASE)
    for second in range(int(10 * LEASE), int(11 * LEASE) + 1):
        list(state.on_holding(Holding("rate_limiter", []), after(second)))
        list(state.on_tick(after(second)))
    assert TASK in state.table.ids(*LEASED)
    list(state.on_holding(Holding("rate_limiter", []), after(11 * LEASE + 1.1)))
    tick_until(state, 11 * LEASE + 1, 11 * LEASE + 2)
    assert state.table.whereabouts(TASK) is Whereabouts.LOST


def test_after_a_restart_nothing_is_lost_before_the_publisher_has_listed_what_it_holds() -> None:
    """Its result may be on the publisher's disk: dispatched again, it would be paid again."""
    fetcher = Fetching(leases={"a": Lease(1.0), "b": Lease(1.0)}, publisher_lists=False)
    fetcher.live(10 * LEASE)
    assert fetcher.leased == ["a", "b"]
    fetcher.holding("a", stage="publisher", dead=[])
    fetcher.live(2)
    assert (fetcher.leased, fetcher.lost) == (["a"], ["b"])
