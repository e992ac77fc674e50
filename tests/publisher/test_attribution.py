"""Whose fault a refused PATCH is: a task that is refused alone hurts no other, and an outage hurts no task."""

from __future__ import annotations

import pytest

from common.api.connection_limit import ConnectionLimit
from common.api.patch_queue import CONNECTIONS, RETRY_CONNECTIONS
from common.failures.breaker import State
from stages.publisher.actions import SendPatch
from tests.decisions import of_type
from tests.publisher.publishing import sending
from tests.publisher.world import HANGS, World, always
from tests.samples import names

WORDS = ": callback failed (requestId r-1)"


@pytest.mark.parametrize("status", [0, 302, 408, 429, 500, 502, 503, 504])
def test_one_task_that_is_always_refused_becomes_a_dead_letter_and_no_other_waits(status: int) -> None:
    world = World(sending(*names(100)), always(status, "t3"), error="" if status else "no response", words=WORDS)
    for number in range(40):
        world.run(1)
        world.results(f"new{number}")
    world.run(1)
    (letter,) = world.letters
    assert (letter.task_id, letter.status) == ("t3", status)
    assert (WORDS in letter.reason) or not status
    assert "API_BASE_URL" not in letter.reason
    assert world.refused == {"t3": 4}
    assert len(world.settled_at) == 139
    assert world.publisher.state.breaker.state is State.CLOSED
    assert world.blockers == set()


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_an_outage_makes_no_dead_letter_however_long_it_lasts(status: int) -> None:
    world = World(sending(*names(40)), lambda _: status)
    world.run(1800)
    assert world.letters == []
    assert world.publisher.state.breaker.state is not State.CLOSED
    assert any("the API does not take results" in blocker for blocker in world.blockers)
    world.respond = always(500)
    world.run(150)
    assert len(world.settled_at) == 40
    assert world.letters == []


def test_an_outage_after_successes_makes_no_dead_letter() -> None:
    world = World(sending(*names(40)), always(500))
    world.run(0.2)
    assert len(world.settled_at) > 0
    world.respond = lambda _: 500
    world.results(*(f"new{number}" for number in range(100)))
    world.run(600)
    assert world.letters == []


def test_eight_of_forty_bad_tasks_delay_the_good_ones_by_one_probe_at_most() -> None:
    bad = names(8)
    world = World(sending(*bad, *(f"good{number}" for number in range(32))), always(500, *bad))
    began = world.now
    world.run(60)
    assert len(world.settled_at) == 32
    assert max(world.settled_at.values()) - began <= 1.5
    assert {letter.task_id for letter in world.letters} == set(bad)


def test_a_good_task_each_second_does_not_wait_for_ten_bad_ones() -> None:
    bad = names(10)
    world = World(sending(*bad), always(500, *bad))
    waits = []
    for number in range(60):
        queued_at = world.now
        world.results(f"good{number}")
        world.run(1)
        if number > 1:
            waits.append(world.settled_at.get(f"good{number}", float("inf")) - queued_at)
    assert max(waits) <= 0.2
    assert {letter.task_id for letter in world.letters} == set(bad)


def test_the_probe_is_the_result_with_the_fewest_tries() -> None:
    publisher = sending("bad", breaker_threshold=1)
    for _ in range(3):
        publisher.respond(500, "bad")
        while not publisher.patched:
            publisher.after(0.1).tick()
    publisher.respond(500, "bad")
    publisher.results("new")
    assert publisher.patched == ["new"]  # at once: only one task was refused so far
    publisher.respond(500, "new")
    publisher.results("newer")
    assert publisher.patched == []
    patches = of_type(SendPatch, publisher.live(61))
    assert patches[0].task_id == "newer"


def test_results_that_were_refused_leave_most_connections_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused results may hang until REQUEST_TIMEOUT: they must not have all connections then."""
    monkeypatch.setattr(ConnectionLimit, "on_ended", lambda *_: None)  # the clock jumps here, the API is not slow
    publisher = sending(*names(20), breaker_threshold=1000)
    assert len(publisher.patched) == CONNECTIONS
    publisher.respond(0, *publisher.patched, error="no complete response")
    publisher.respond(200, *publisher.patched)
    publisher.live(1)
    retried = len(publisher.patched)
    assert retried == CONNECTIONS
    publisher.respond(0, *publisher.patched, error="no complete response")
    publisher.results(*(f"new{number}" for number in range(100)))
    assert len(publisher.patched) == CONNECTIONS
    publisher.after(1.3)
    done = publisher.respond(200, *publisher.patched)
    again = [patch.task_id for patch in of_type(SendPatch, done) if patch.task_id.startswith("t")]
    assert len(again) == RETRY_CONNECTIONS


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_for_one_task_while_others_are_accepted_delays_only_that_task(status: int) -> None:
    world = World(sending(*names(100)), always(200), retry_after=60)
    world.run(0.05)
    world.respond = always(status, "late")
    world.results("late")
    for number in range(100):
        world.results(f"new{number}")
        world.run(1)
        assert f"new{number}" in world.settled_at
    assert world.refused == {"late": 2}
    assert world.blockers == set()


def test_a_pause_that_one_task_was_asked_for_ends_when_another_is_accepted() -> None:
    publisher = sending("a", "b")
    publisher.respond(429, "a", retry_after=60)
    publisher.results("c")
    assert publisher.patched == []
    publisher.respond(200, "b")
    assert publisher.patched == ["c"]
    publisher.live(59)
    assert publisher.patched == []
    publisher.live(2)
    assert publisher.patched == ["a"]


def test_a_pause_that_one_task_was_asked_for_delays_only_that_task_if_another_is_refused_without_one() -> None:
    publisher = sending("a", "b", "c")
    publisher.respond(200, "c")
    publisher.respond(500, "a")
    publisher.respond(503, "b", retry_after=60)
    publisher.results("d")
    assert publisher.patched == ["d"]


def test_all_wait_if_a_second_task_is_asked_for_a_pause() -> None:
    publisher = sending("a", "b", "c")
    publisher.respond(200, "c")
    publisher.respond(503, "a", retry_after=60)
    publisher.respond(503, "b", retry_after=60)
    publisher.results("d")
    assert publisher.patched == []
    publisher.live(59)
    assert publisher.patched == []


@pytest.mark.parametrize("status", [302, 408, 425, 500, 502, 504])
def test_a_retry_after_that_is_not_a_throttles_delays_only_its_task(status: int) -> None:
    publisher = sending("a")
    publisher.respond(status, "a", retry_after=60)
    publisher.results("b")
    assert publisher.patched == ["b"]
    publisher.live(59)
    assert publisher.patched == []
    publisher.live(2)
    assert publisher.patched == ["a"]


@pytest.mark.parametrize("status", [200, 404])
def test_a_response_that_is_not_the_apis_settles_no_task(status: int) -> None:
    publisher = sending("a")
    for _ in range(30):
        publisher.respond(status, "a", from_api=False)
        assert publisher.outbox == {"a"}
        publisher.live(61)
        assert publisher.patched == ["a"]
    publisher.respond(200, "a")
    assert publisher.outbox == set()


def test_random_refusals_make_no_dead_letters() -> None:
    """Refusals that come and go are not the fault of the tasks that they hit."""
    tries: dict[str, int] = {}

    def respond(task_id: str) -> int:
        tries[task_id] = tries.get(task_id, 0) + 1
        return 500 if hash((int(task_id[1:]) * 7919 + tries[task_id] * 104729) % 1000) < 300 else 200

    world = World(sending(*names(2000), breaker_threshold=5), respond)
    world.run(600)
    assert world.letters == []
    assert len(world.settled_at) == 2000


def test_tasks_that_hang_delay_the_good_ones_by_seconds_not_by_the_request_timeout() -> None:
    bad = names(20)
    world = World(sending(*bad, *(f"good{number}" for number in range(100))), always(HANGS, *bad))
    began = world.now
    world.run(120)
    assert len(world.settled_at) == 100
    assert max(world.settled_at.values()) - began <= 16
    for number in range(20):
        queued_at = world.now
        world.results(f"new{number}")
        world.run(6)
        assert world.settled_at[f"new{number}"] - queued_at <= 5.5


def test_a_task_alone_that_is_redirected_becomes_a_dead_letter_while_polls_are_answered() -> None:
    """It was deleted: the API sends clients to a not-found page."""
    world = World(sending("deleted"), always(302, "deleted"))
    for _ in range(60):
        world.run(1)
        world.reachable()
    assert [letter.task_id for letter in world.letters] == ["deleted"]


def test_tasks_that_are_all_redirected_are_no_dead_letters_although_polls_are_answered() -> None:
    world = World(sending(*names(5)), lambda _: 302)
    for _ in range(600):
        world.run(1)
        world.reachable()
    assert world.letters == []
    assert any("the API does not take results" in blocker for blocker in world.blockers)


def test_a_poll_that_is_answered_ends_the_pause_after_an_outage() -> None:
    world = World(sending(*names(5)), lambda _: 503)
    world.run(600)
    world.respond = always(503)
    world.reachable()
    world.run(0.2)
    assert len(world.settled_at) == 5


def test_in_an_outage_answered_polls_cause_at_most_a_few_patches_a_second() -> None:
    world = World(sending(*names(40)), lambda _: 503)
    world.run(60)
    before = sum(world.refused.values())
    for _ in range(600):
        world.run(0.1)
        world.reachable()
    assert sum(world.refused.values()) - before <= 60 * 4
    assert world.letters == []
