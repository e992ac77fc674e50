"""What a refused result costs the others: its place in the in-flight limit, a connection, and the probes."""

from __future__ import annotations

import pytest

from common.api.patch_queue import CONNECTIONS, HANGS_S, MOST_PROBES, RETRY_CONNECTIONS, SPARE_CONNECTIONS
from common.failures.breaker import EARLY_INTERVAL_S, PROBE_HANGS_S, State
from common.wire import messages as m
from stages.publisher.actions import MoveToDeadLetters, SendPatch
from tests.decisions import of_type
from tests.publisher.publishing import Publishing, sending
from tests.samples import names


def listed(publisher: Publishing) -> m.Holding:
    """The next full list of what the publisher holds."""
    return [holding for holding in of_type(m.Holding, publisher.live(16)) if holding.dead is not None][-1]


def failing(*ids: str) -> Publishing:
    """A publisher whose breaker is open: the API refused all results that it was sent."""
    publisher = sending(*ids, breaker_threshold=1)
    publisher.respond(500, *publisher.patched)
    assert publisher.state.breaker.state is State.OPEN
    return publisher


# ---- the in-flight limit ----


def test_a_result_that_was_refused_is_parked_at_once() -> None:
    publisher = sending("a", "b")
    assert of_type(m.Holding, publisher.respond(500, "a")) == [m.Holding("publisher", [], parked=["a"])]
    assert of_type(m.Holding, publisher.respond(200, "b")) == []


def test_refused_results_are_listed_as_parked_until_they_are_accepted() -> None:
    publisher = sending("a", "b", "c")
    publisher.respond(500, "a")
    publisher.respond(200, "b")
    holding = listed(publisher)
    assert (holding.ids, holding.parked) == (["c"], ["a"])
    publisher.respond(200, "a")
    publisher.live(1)
    holding = listed(publisher)
    assert (holding.ids, holding.parked) == (["c"], [])


def test_a_replayed_dead_letter_is_not_parked() -> None:
    publisher = sending("a")
    publisher.respond(422, "a")
    publisher.letters(replay=["a"])
    holding = listed(publisher)
    assert (holding.ids, holding.parked) == (["a"], [])


# ---- connections ----


def test_a_few_tasks_that_hang_keep_new_results_waiting_only_for_a_moment() -> None:
    publisher = sending(*names(20, "hanging"))
    assert len(publisher.patched) == CONNECTIONS
    publisher.results("good")
    assert publisher.patched == []
    patched = [patch.task_id for patch in of_type(SendPatch, publisher.live(HANGS_S))]
    assert patched == [*names(20, "hanging")[CONNECTIONS:], "good"]


def test_results_that_are_sent_again_on_all_connections_do_not_keep_a_new_one_waiting() -> None:
    publisher = sending(*names(16), breaker_threshold=1000)
    publisher.respond(0, *publisher.patched, error="no complete response")
    publisher.live(1)
    assert len(publisher.patched) == CONNECTIONS
    publisher.results(*names(20, "new"))
    assert publisher.patched == names(CONNECTIONS - RETRY_CONNECTIONS, "new")


def test_however_many_hang_the_number_of_connections_is_bounded() -> None:
    publisher = sending(*names(100))
    publisher.live(60)
    assert len(publisher.state._queue.sending) == CONNECTIONS + SPARE_CONNECTIONS


def test_results_that_were_refused_before_get_no_spare_connection() -> None:
    publisher = sending(*names(20), breaker_threshold=1000)
    publisher.respond(0, *publisher.patched, error="no complete response")
    publisher.respond(0, *publisher.patched, error="no complete response")
    publisher.live(60)
    assert len(publisher.state._queue.sending) == CONNECTIONS


# ---- probes ----


def test_the_newest_result_is_a_probe_before_a_series_of_older_ones() -> None:
    publisher = failing(*names(40))
    publisher.results("newest")
    patches = of_type(SendPatch, publisher.live(1.1))
    assert [patch.task_id for patch in patches] == ["newest"]


def test_a_probe_that_hangs_does_not_keep_the_other_results_waiting() -> None:
    publisher = failing(*names(40))
    patches = of_type(SendPatch, publisher.live(1.1))
    assert len(patches) == 1
    patches = of_type(SendPatch, publisher.live(10 * PROBE_HANGS_S))
    assert len(patches) == MOST_PROBES - 1


def test_a_poll_that_succeeds_lets_a_probe_go_before_the_cooldown_is_over() -> None:
    publisher = failing(*names(20))
    publisher.polled()
    assert len(publisher.patched) == 1
    assert publisher.state.breaker.state is State.HALF_OPEN
    assert publisher.state.report(publisher.now).blockers != []  # only a probe closes the breaker
    publisher.respond(200, *publisher.patched)
    assert publisher.state.report(publisher.now).blockers == []


def test_polls_that_succeed_all_the_time_cause_few_probes() -> None:
    publisher = failing(*names(400))
    sent = 0
    for _ in range(600):
        publisher.after(0.1).polled()
        while publisher.patched:
            sent += len(publisher.patched)
            publisher.respond(500, *publisher.patched)
    assert sent <= MOST_PROBES * 60 / EARLY_INTERVAL_S + 20


def test_a_poll_does_not_shorten_a_pause_that_the_api_asked_for() -> None:
    publisher = sending(*names(20), breaker_threshold=1)
    publisher.respond(429, *publisher.patched, retry_after=60)
    publisher.polled()
    assert of_type(SendPatch, publisher.live(59)) == []
    assert of_type(SendPatch, publisher.live(2)) != []


def test_a_new_token_lets_a_probe_go() -> None:
    publisher = failing(*names(20))
    publisher.token("two")
    assert len(publisher.patched) == 1


# ---- redirects ----


def redirect_between_polls(publisher: Publishing, *ids: str, times: int) -> list[MoveToDeadLetters]:
    """The PATCHes of these tasks are redirected, and before each try a poll succeeds."""
    done = publisher.respond(302, *ids)
    for _ in range(times):
        done += publisher.after(61).polled()
        assert set(publisher.patched) <= set(ids)
        done += publisher.respond(302, *publisher.patched)
    return of_type(MoveToDeadLetters, done)


def test_a_task_that_is_redirected_while_polls_succeed_becomes_a_dead_letter() -> None:
    publisher = sending("deleted")
    (letter,) = redirect_between_polls(publisher, "deleted", times=3)
    assert (letter.task_id, letter.reason) == ("deleted", "PATCH answered 302")
    assert publisher.state.report(publisher.now).blockers == []


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_poll_is_no_evidence_against_a_task_that_meets_an_outage_of_its_own_route(status: int) -> None:
    publisher = sending("a")
    for _ in range(10):
        publisher.respond(status, "a", error="" if status else "no response")
        publisher.after(61).polled()
    assert publisher.outbox == {"a"}


def test_redirects_of_several_tasks_are_no_tasks_own_while_none_is_accepted() -> None:
    publisher = sending("a", "b")
    assert redirect_between_polls(publisher, "a", "b", times=10) == []
    assert publisher.outbox == {"a", "b"}


def test_a_redirected_task_without_polls_waits_and_the_remedy_is_named() -> None:
    publisher = sending("a")
    for _ in range(10):
        publisher.respond(302, "a")
        publisher.live(61)
    assert publisher.outbox == {"a"}
    assert "set API_BASE_URL" in publisher.state.report(publisher.now).blockers[0]
