"""What the publisher does when the API does not accept a result: send it again now, later, or never."""

from __future__ import annotations

import pytest

from common.api.patch_queue import MOST_PROBES
from common.api.status import Meaning, meaning
from common.failures.wait_hints import LONGEST_WAIT_S
from common.wire import messages as m
from stages.publisher.actions import MoveToDeadLetters
from tests.decisions import log_fields, of_type, sent_to
from tests.publisher.publishing import INBOX, Publishing, sending
from tests.samples import names

OUTAGES = [0, 301, 302, 408, 425, 429, 500, 502, 503, 504, 599]
REFUSALS = [402, 405, 409, 410, 411, 413, 415, 418, 422, 431, 451, 499]


def probing() -> Publishing:
    """A publisher whose circuit breaker is half-open, with "a" as the probe."""
    publisher = sending("a", breaker_threshold=1)
    publisher.respond(503, "a")
    publisher.live(2)
    assert publisher.patched == ["a"]
    return publisher


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([200, 201, 204], Meaning.OK),
        ([404], Meaning.GONE),
        ([401], Meaning.TOKEN_REFUSED),
        ([400], Meaning.DOUBTFUL),
        ([403], Meaning.TOKEN_REFUSED),
        ([409], Meaning.CONFLICT),
        (OUTAGES, Meaning.UNAVAILABLE),
        ([status for status in REFUSALS if status != 409], Meaning.REFUSED),
    ],
)
def test_every_status_has_its_meaning(statuses: list[int], expected: Meaning) -> None:
    assert {meaning(status) for status in statuses} == {expected}


# ---- 401, 403 ----


def test_a_401_requests_a_new_token_and_the_result_is_sent_again_with_it() -> None:
    publisher = sending("a")
    done = publisher.respond(401, "a")
    assert sent_to("token_broker", done) == [m.TokenRequest(INBOX, "one")]
    assert publisher.patched == []
    publisher.token("two")
    assert publisher.patched == ["a"]
    assert publisher.shown == "two"


def test_many_refusals_of_one_token_request_only_one_new_token() -> None:
    publisher = sending(*names(10))
    done = publisher.respond(401, *names(10))
    assert len(of_type(m.TokenRequest, done)) == 1
    publisher.token("two")
    assert sorted(publisher.patched) == names(10)


def test_a_late_refusal_of_the_old_token_is_sent_again_at_once_with_the_new_token() -> None:
    publisher = sending("a", "b")
    publisher.respond(401, "a")
    publisher.token("two")
    publisher.shown = "one"
    assert of_type(m.TokenRequest, publisher.respond(401, "b")) == []
    assert publisher.patched == ["b"]


def test_a_refused_token_never_counts_against_the_result() -> None:
    publisher = sending("a", max_retries=0)
    for number in range(30):
        publisher.respond(401, "a")
        publisher.token(f"token {number}")
        if not publisher.patched:
            publisher.live(61)
        assert publisher.patched == ["a"]
    assert publisher.state.dead == {}


def test_a_probe_that_is_answered_401_is_sent_again_with_the_new_token() -> None:
    publisher = probing()
    publisher.respond(401, "a")
    publisher.token("two")
    assert publisher.patched == ["a"]


def test_a_probe_that_is_answered_400_closes_the_circuit_breaker() -> None:
    publisher = probing()
    publisher.respond(400, "a")
    publisher.results("b")
    assert publisher.patched == ["b"]


def test_a_token_that_worked_before_it_was_refused_is_replaced_at_once() -> None:
    publisher = sending("a")
    for name in ("two", "three", "four"):
        publisher.respond(401, "a")
        publisher.token(name)
        assert publisher.patched == ["a"]
        publisher.respond(200, "a")
        publisher.after(200).tick()
        publisher.results("a")


@pytest.mark.parametrize("status", [401, 403])
def test_a_result_refused_with_the_token_is_sent_again_at_once_with_the_next_token(status: int) -> None:
    publisher = sending("a")
    done = publisher.respond(status, "a")
    assert sent_to("token_broker", done) == [m.TokenRequest(INBOX, "one")]
    assert publisher.patched == []
    publisher.token("two")
    assert publisher.patched == ["a"]
    assert publisher.state.report(publisher.now).blockers == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_result_refused_again_with_a_new_token_backs_off(status: int) -> None:
    publisher = sending("a")
    publisher.respond(status, "a")
    publisher.token("two")
    publisher.respond(status, "a")
    assert publisher.patched == []
    publisher.live(2)
    assert publisher.patched == ["a"]


def test_a_result_refused_with_a_token_that_others_are_served_with_is_sent_again_at_once() -> None:
    publisher = sending("a", "b")
    publisher.respond(403, "a")
    assert publisher.patched == []
    publisher.respond(200, "b")
    assert publisher.patched == ["a"]


# ---- an outage ----


@pytest.mark.parametrize("status", OUTAGES)
def test_an_outage_never_makes_a_dead_letter(status: int) -> None:
    publisher = sending("a")
    for _ in range(30):
        done = publisher.respond(status, "a", error="" if status else "no answer")
        assert log_fields("patch_failed", done)["status"] == status
        publisher.live(61)
        assert publisher.patched == ["a"]
    publisher.respond(200, "a")
    assert publisher.outbox == set()
    assert publisher.state.dead == {}


def test_the_back_off_grows_with_each_try() -> None:
    publisher = sending("a", "b", breaker_threshold=1000)
    waits = []
    for _ in range(10):
        publisher.respond(503, "a")
        begun = publisher.now.mono
        while not publisher.patched:
            publisher.after(0.05).tick()
        waits.append(publisher.now.mono - begun)
    assert 0.2 <= waits[0] <= 0.6
    assert all(waits[i] < waits[i + 3] for i in range(5))
    assert 30 <= waits[-1] <= 60.1


def test_many_failures_open_the_circuit_breaker_and_then_few_probes_are_sent() -> None:
    publisher = sending(*names(40), breaker_threshold=5)
    publisher.respond(503, *publisher.patched)
    assert publisher.patched == []
    assert "the API does not take results" in publisher.state.report(publisher.now).blockers[0]
    for probes in (1, 2, MOST_PROBES, MOST_PROBES):
        while not publisher.patched:
            publisher.after(0.1).tick()
        assert len(publisher.patched) == probes
        publisher.respond(503, *publisher.patched)
    while not publisher.patched:
        publisher.after(0.1).tick()
    publisher.respond(200, *publisher.patched)
    assert len(publisher.patched) == 16
    assert publisher.state.report(publisher.now).blockers == []


def test_a_probe_that_is_answered_401_decides_nothing_and_is_sent_again_with_the_next_token() -> None:
    publisher = sending(*names(20), breaker_threshold=1)
    publisher.respond(503, *publisher.patched)
    while not publisher.patched:
        publisher.after(0.1).tick()
    (probe,) = publisher.patched
    publisher.respond(401, probe)
    (next_probe,) = publisher.patched
    publisher.token("two")
    assert publisher.patched == []
    publisher.respond(200, next_probe)
    assert len(publisher.patched) == 16
    assert probe in publisher.patched


def test_the_report_shows_how_long_the_api_asked_to_wait() -> None:
    publisher = sending("a", "b")
    publisher.respond(429, "a", retry_after=30)
    (blocker,) = publisher.state.report(publisher.now).blockers
    assert blocker == "the API asks to wait: PATCH answered 429; next PATCH in 30 s"
    publisher.live(31)
    assert publisher.state.report(publisher.now).blockers == []


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_delays_every_patch(status: int) -> None:
    publisher = sending("a", "b", "d")
    publisher.respond(status, "a", "d", retry_after=30)
    publisher.results("c")
    assert publisher.patched == []
    publisher.respond(200, "b")  # it was sent before the API asked to wait
    publisher.live(29.5)
    assert publisher.patched == []
    publisher.live(1)
    assert sorted(publisher.patched) == ["a", "c", "d"]


def test_retry_after_is_obeyed_up_to_the_longest_wait() -> None:
    publisher = sending("a")
    publisher.respond(503, "a", retry_after=10 * 86_400)
    publisher.live(LONGEST_WAIT_S - 1, step=1)
    assert publisher.patched == []
    publisher.live(2, step=1)
    assert publisher.patched == ["a"]


def test_a_result_that_waits_for_its_next_try_does_not_delay_others() -> None:
    publisher = sending("a")
    publisher.respond(500, "a")
    publisher.results("b")
    assert publisher.patched == ["b"]


# ---- 400 ----


def test_a_result_that_was_answered_400_is_sent_again_and_can_be_accepted() -> None:
    publisher = sending("a", max_retries=3)
    publisher.respond(400, "a")
    assert publisher.patched == []
    publisher.live(0.6)
    assert publisher.patched == ["a"]
    publisher.respond(200, "a")
    assert publisher.outbox == set()


def test_a_result_that_is_answered_400_too_often_becomes_a_dead_letter() -> None:
    publisher = sending("a", max_retries=3)
    for _ in range(3):
        assert of_type(MoveToDeadLetters, publisher.respond(400, "a")) == []
        publisher.live(10)
        assert publisher.patched == ["a"]
    done = publisher.respond(400, "a")
    assert of_type(MoveToDeadLetters, done) == [MoveToDeadLetters("a", 400, "PATCH answered 400", publisher.now.wall)]
    assert sent_to("fetcher", done) == [m.Published([], ["a"])]
    assert log_fields("result_dead_lettered", done)["level"] == "error"
    assert set(publisher.state.dead) == {"a"}
    publisher.live(100)
    assert publisher.patched == []


def test_an_outage_between_two_400s_does_not_count_as_a_400() -> None:
    publisher = sending("a", max_retries=1)
    for status in (400, 503, 503, 503):
        assert of_type(MoveToDeadLetters, publisher.respond(status, "a")) == []
        publisher.live(61)
    assert of_type(MoveToDeadLetters, publisher.respond(400, "a")) != []


def test_the_circuit_breaker_stays_closed_after_many_400s() -> None:
    publisher = sending(*names(10), breaker_threshold=2)
    publisher.respond(400, *names(10))
    publisher.results("b")
    assert publisher.patched == ["b"]


# ---- refused for good ----


@pytest.mark.parametrize("status", REFUSALS)
def test_a_result_that_is_refused_for_good_becomes_a_dead_letter_at_once(status: int) -> None:
    publisher = sending("a", "b")
    done = publisher.respond(status, "a")
    (moved,) = of_type(MoveToDeadLetters, done)
    assert (moved.task_id, moved.status) == ("a", status)
    assert sent_to("fetcher", done) == [m.Published([], ["a"])]
    assert publisher.outbox == {"b"}


def test_a_refused_result_counts_as_a_success_for_the_circuit_breaker() -> None:
    publisher = sending(*names(3), breaker_threshold=2)
    publisher.respond(503, "t0")
    publisher.respond(422, "t1")
    publisher.respond(503, "t2")
    assert publisher.state.report(publisher.now).blockers == []
