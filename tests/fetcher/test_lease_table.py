"""The transition table of a task's whereabouts, and the table of leases that obeys it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.process.actions import Instant
from stages.fetcher.actions import Lease
from stages.fetcher.lease_table import LEASED, TRANSITIONS, Event, IllegalEvent, LeaseTable, Whereabouts
from tests.decisions import START, after

TASK = "a"
LEGAL = sorted(TRANSITIONS, key=str)
ILLEGAL = sorted(set(product(Whereabouts, Event)) - set(TRANSITIONS), key=str)
LISTED = (Event.LISTED_WAITING, Event.LISTED_EMBEDDING, Event.LISTED_STORED)


def shortest_paths() -> dict[Whereabouts, list[Event]]:
    """The events that bring a new task to each place; only a restart brings one to RESTORED."""
    paths: dict[Whereabouts, list[Event]] = {Whereabouts.NEW: []}
    reached = list(paths)
    for place in reached:
        for (before, event), then in TRANSITIONS.items():
            if before is place and then not in paths:
                paths[then] = [*paths[place], event]
                reached.append(then)
    return paths | {Whereabouts.RESTORED: []}


PATHS = shortest_paths()


def with_task(whereabouts: Whereabouts, now: Instant = START) -> LeaseTable:
    """A table with one task, which is there."""
    restored = {TASK: Lease(1.0)} if whereabouts is Whereabouts.RESTORED else {}
    table = LeaseTable(restored, [], now)
    for event in PATHS[whereabouts]:
        table.move(TASK, event, now)
    assert table.whereabouts(TASK) is whereabouts
    return table


def assert_consistent(table: LeaseTable, ids: set[str]) -> None:
    """Each task is listed in exactly the one place where it is."""
    for task_id in ids:
        places = [each for each in Whereabouts if task_id in table.ids(each)]
        expected = table.whereabouts(task_id)
        assert places == ([] if expected is Whereabouts.NEW else [expected])
        for place in places:
            assert table.entry(task_id).whereabouts is place
    assert table.leased_count == len(table.ids(*LEASED)) == sum(table.count(each) for each in LEASED)


def test_every_place_can_be_reached_and_only_a_restart_makes_a_task_restored() -> None:
    assert set(PATHS) == set(Whereabouts)
    assert Whereabouts.RESTORED not in TRANSITIONS.values()


def test_every_event_is_legal_somewhere() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_every_task_can_be_settled_and_can_become_a_dead_letter_wherever_it_is() -> None:
    """The API's word is final: a result may be accepted, or refused for good, at any time."""
    for whereabouts in Whereabouts:
        assert TRANSITIONS[whereabouts, Event.SETTLED] is Whereabouts.NEW
        assert TRANSITIONS[whereabouts, Event.DEAD_LETTERED] is Whereabouts.DEAD


def test_a_message_of_another_process_is_legal_wherever_the_task_is() -> None:
    """Messages may come late, so none of them may raise in the middle of a turn."""
    given_back = (Event.GIVEN_UP, Event.TASK_DEFERRED, Event.KEY_DEFERRED, Event.CLAIM_DEFERRED)
    for whereabouts, event in product(Whereabouts, (*LISTED, *given_back)):
        assert (whereabouts, event) in TRANSITIONS


def test_a_stored_result_is_not_given_back_or_given_up_by_the_rate_limiter() -> None:
    for event in (*LISTED, Event.GIVEN_UP, Event.TASK_DEFERRED, Event.KEY_DEFERRED, Event.CLAIM_DEFERRED):
        assert TRANSITIONS[Whereabouts.STORED, event] is Whereabouts.STORED


def test_a_task_that_is_claimed_by_the_fetcher_itself_does_not_expire() -> None:
    assert (Whereabouts.CLAIMING, Event.EXPIRED) not in TRANSITIONS


@pytest.mark.parametrize(("before", "event"), LEGAL, ids=str)
def test_a_legal_event_moves_the_task_as_the_table_says(before: Whereabouts, event: Event) -> None:
    table = with_task(before)
    expected = TRANSITIONS[before, event]
    assert table.move(TASK, event, after(1)) is (expected is not before)
    assert table.whereabouts(TASK) is expected
    assert_consistent(table, {TASK})


@pytest.mark.parametrize(("before", "event"), ILLEGAL, ids=str)
def test_an_illegal_event_raises_and_changes_nothing(before: Whereabouts, event: Event) -> None:
    table = with_task(before)
    with pytest.raises(IllegalEvent, match=f"{event.value}.*{before.value}"):
        table.move(TASK, event, after(1))
    assert table.whereabouts(TASK) is before
    assert_consistent(table, {TASK})


@pytest.mark.parametrize(("before", "event"), list(product(Whereabouts, LISTED)), ids=str)
def test_a_renewal_of_many_tasks_moves_each_as_a_single_event_does(before: Whereabouts, event: Event) -> None:
    table = with_task(before)
    table.renew([TASK, "unknown"], event, after(7))
    assert table.whereabouts(TASK) is TRANSITIONS[before, event]
    assert table.whereabouts("unknown") is Whereabouts.NEW
    if before is not Whereabouts.NEW:
        assert table.entry(TASK).heard_at_s == after(7).mono
    assert_consistent(table, {TASK, "unknown"})


def test_a_lost_task_keeps_its_lease_and_a_new_one_gets_its_own() -> None:
    table = with_task(Whereabouts.NEW)
    lease = table.lease_for(TASK, "text_embedding", START)
    assert lease == Lease(START.wall, 1, "text_embedding")
    table.begin(TASK, lease, Event.DISPATCHED, START)
    table.move(TASK, Event.EXPIRED, after(20))
    assert table.lease_for(TASK, "text_embedding", after(30)) is lease
    table.move(TASK, Event.FORGOTTEN, after(40))
    assert table.lease_for(TASK, "text_embedding", after(50)).leased_at == after(50).wall


def test_a_dead_letter_on_disk_outweighs_a_lease_on_disk() -> None:
    table = LeaseTable({TASK: Lease(1.0)}, [TASK], START)
    assert table.whereabouts(TASK) is Whereabouts.DEAD
    assert table.leased_count == 0


def test_a_deferral_of_a_task_that_is_deferred_already_changes_nothing() -> None:
    table = with_task(Whereabouts.WAITING)
    assert table.defer(TASK, Event.TASK_DEFERRED, 99.0, START)
    assert table.entry(TASK).not_before_s == 99.0
    assert not table.defer(TASK, Event.TASK_DEFERRED, 200.0, START)
    assert table.entry(TASK).not_before_s == 99.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(Event)), max_size=60), st.booleans())
def test_any_events_leave_each_task_in_one_place(events: list[tuple[str, Event]], restored: bool) -> None:
    table = LeaseTable({"a": Lease(1.0)} if restored else {}, ["b"], START)
    model = {task_id: table.whereabouts(task_id) for task_id in "abc"}
    for second, (task_id, event) in enumerate(events):
        expected = TRANSITIONS.get((model[task_id], event))
        if expected is None:
            with pytest.raises(IllegalEvent):
                table.move(task_id, event, after(second))
        else:
            table.move(task_id, event, after(second))
            model[task_id] = expected
        assert {name: table.whereabouts(name) for name in "abc"} == model
        assert_consistent(table, set("abc"))
