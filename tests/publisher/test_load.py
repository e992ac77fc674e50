"""The connection limit and the pace, as the publisher uses them."""

from __future__ import annotations

from common.api.patch_queue import CONNECTIONS, HANGS_S, MOST_PROBES, SPARE_CONNECTIONS
from common.api.request_pace import PACED
from common.api.responses import ApiResponse, ApiResponses
from common.failures.breaker import State
from stages.publisher.actions import SendPatch
from tests.decisions import of_type
from tests.publisher.publishing import Publishing, sending
from tests.samples import names


def test_api_connections_is_the_most_that_are_under_way() -> None:
    publisher = sending(*names(100), connections=5)
    assert len(publisher.patched) == 5
    publisher.respond(200, *publisher.patched)
    assert len(publisher.patched) == 5


def test_of_few_connections_no_more_are_lent_than_there_are() -> None:
    publisher = sending(*names(100), connections=5)
    publisher.live(60)
    assert len(publisher.state._queue.sending) == 2 * 5
    publisher = sending(*names(300), connections=100)
    publisher.live(60)
    assert len(publisher.state._queue.sending) == 100 + SPARE_CONNECTIONS


def test_with_one_connection_a_refused_result_that_hangs_does_not_keep_a_new_one_waiting() -> None:
    publisher = sending("bad", connections=1, breaker_threshold=1000)
    publisher.respond(503, "bad")
    publisher.live(1)
    assert publisher.patched == ["bad"]
    publisher.results("new")
    assert publisher.patched == ["new"]


def test_with_one_connection_new_results_do_not_keep_a_refused_one_waiting() -> None:
    publisher = sending("bad", *names(50), connections=1, breaker_threshold=1000)
    publisher.respond(503, "bad")
    patched = []
    for _ in range(20):
        patched += publisher.patched
        publisher.after(0.1).respond(200, *publisher.patched)
    assert "bad" in patched


def test_fewer_are_sent_at_a_time_while_patches_wait_in_the_api_for_each_other() -> None:
    publisher = sending(*names(1000))
    for _ in range(60):
        sent = list(publisher.state._queue.sending)
        publisher.after(0.02 * len(sent)).respond(200, *sent)
    assert len(publisher.state._queue.sending) <= CONNECTIONS / 2


def test_a_slow_but_steady_api_has_all_connections() -> None:
    publisher = sending(*names(1000))
    for _ in range(20):
        publisher.after(2.0).respond(200, *publisher.state._queue.sending)
    assert len(publisher.state._queue.sending) == CONNECTIONS


def test_time_that_passes_in_this_process_does_not_count_as_the_apis() -> None:
    """A PATCH may leave late, because its result is stored first, and its response may be read late."""
    publisher = sending(*names(1000))
    for round_number in range(20):
        publisher.after(0.1 if round_number % 2 else 2.0)
        responses = [
            ApiResponse(task_id, 200, "", 0.0, publisher.shown, took_s=0.01)
            for task_id in publisher.state._queue.sending
        ]
        publisher.did(publisher.state.on_responses(ApiResponses(responses), publisher.now))
        assert publisher.state._queue.limit.now == CONNECTIONS


def test_an_outage_costs_no_connection() -> None:
    publisher = sending(*names(100))
    publisher.respond(503, *publisher.patched)
    for _ in range(1000):
        publisher.respond(503, *publisher.after(0.1).live(0.1) and publisher.patched)
    assert publisher.state.breaker.state is not State.CLOSED
    assert publisher.state._queue.limit.now == CONNECTIONS


def test_probes_have_their_own_limit_even_if_only_one_connection_is_left() -> None:
    publisher = Publishing()
    publisher.state._queue.limit.now = 1
    publisher.state._refusals.breaker.failed(publisher.now.mono, "an outage", at_once=True)
    publisher.results(*names(20))
    patches = of_type(SendPatch, publisher.live(HANGS_S * 4))
    assert MOST_PROBES <= len(patches) <= 2 * MOST_PROBES


def test_results_are_spread_over_the_minute() -> None:
    publisher = sending(*names(1000), patches_per_minute=60)
    assert publisher.patched == ["t0"]
    publisher.respond(200, "t0")
    assert publisher.patched == []
    sent = 0
    for _ in range(600):
        publisher.live(0.1)
        sent += len(publisher.patched)
        publisher.respond(200, *publisher.patched)
    assert 57 <= 1 + sent <= 60
    assert publisher.state.report(publisher.now).blockers == []
    assert publisher.state.report(publisher.now).facts["notices"] == [PACED]


def test_the_notice_ends_when_nothing_waits() -> None:
    publisher = sending("a", "b", patches_per_minute=60)
    assert "notices" in publisher.state.report(publisher.now).facts
    publisher.live(1.1)
    assert publisher.patched == ["b"]
    publisher.respond(200, "a", "b")
    publisher.live(5)
    assert "notices" not in publisher.state.report(publisher.now).facts
