"""Whose fault a 401 or 403 is: the token's, one task's, or the API's. The reference application answers 403 for all."""

from __future__ import annotations

import pytest

from tests.publisher.publishing import sending
from tests.publisher.world import World, always
from tests.samples import names


@pytest.mark.parametrize("status", [401, 403])
def test_one_task_that_is_always_refused_becomes_a_dead_letter_and_delays_no_other(status: int) -> None:
    world = World(sending(*names(100)), always(status, "t3"))
    for number in range(60):
        queued_at = world.now
        world.results(f"new{number}")
        world.run(1)
        if number:
            assert world.settled_at[f"new{number}"] - queued_at <= 0.2
    assert [letter.task_id for letter in world.letters] == ["t3"]
    assert len(world.settled_at) == 159
    assert world.blockers == set()
    assert world.token_requests <= 7  # at most one in ten seconds


@pytest.mark.parametrize("status", [401, 403])
def test_a_few_tasks_that_are_always_refused_become_dead_letters_and_delay_no_other_for_long(status: int) -> None:
    bad = names(12)
    world = World(sending(*bad, *(f"good{number}" for number in range(200))), always(status, *bad))
    for number in range(90):
        queued_at = world.now
        world.results(f"new{number}")
        world.run(1)
        if number > 2:
            assert world.settled_at[f"new{number}"] - queued_at <= 1.0
    assert {letter.task_id for letter in world.letters} == set(bad)
    assert world.token_requests <= 20


def test_a_refusal_of_every_fortieth_patch_costs_little() -> None:
    sent = 0

    def respond(_: str) -> int:
        nonlocal sent
        sent += 1
        return 403 if sent % 40 == 0 else 200

    world = World(sending(*names(4000)), respond)
    began = world.now
    while len(world.settled_at) < 4000:
        world.run(0.05)
        if world.now - began > 120:
            break
    without = 4000 / 16 * 0.05
    assert world.now - began <= 1.2 * without
    assert world.letters == []
    assert world.blockers == set()
    assert world.token_requests <= 2 + (world.now - began) / 10


def test_an_outage_of_the_apis_check_of_tokens_fails_nothing_and_ends_with_the_next_probe() -> None:
    world = World(sending(*names(100)), always(403))
    world.run(0.1)
    world.tokens_refused = True
    world.run(8)
    assert world.letters == []
    assert world.token_requests <= 4
    assert any("401 or 403" in blocker or "403" in blocker for blocker in world.blockers)
    settled = len(world.settled_at)
    assert settled < 100
    world.tokens_refused = False
    world.run(20)
    assert len(world.settled_at) == 100
    assert world.letters == []


def test_an_api_that_refuses_every_token_for_hours_fails_nothing_and_gets_few_token_requests() -> None:
    world = World(sending(*names(50)), lambda _: 403)
    world.run(3600)
    assert world.letters == []
    assert world.settled_at == {}
    assert world.token_requests <= 40
    world.respond = always(403)
    world.run(130)
    assert len(world.settled_at) == 50


def test_results_are_tried_again_soon_after_an_outage_of_hours_if_polls_succeed() -> None:
    """A token may do less for results than for polls."""
    world = World(sending(*names(50)), lambda _: 403)
    for _ in range(720):
        world.run(5)
        world.reachable()
    assert world.letters == []
    assert world.token_requests <= 40
    assert sum(world.refused.values()) <= 3600 / 5 * 4
    world.respond = always(403)
    for _ in range(3):
        world.run(5)
        world.reachable()
    world.run(1)
    assert len(world.settled_at) == 50


def test_refusals_of_a_burst_while_the_token_is_rotated_cost_only_their_repetition() -> None:
    world = World(sending(*names(2000)), always(401))
    world.run(1)
    sent = 0

    def respond(_: str) -> int:
        nonlocal sent
        sent += 1
        return 401 if 100 < sent <= 150 else 200

    world.respond = respond
    world.new_token()
    world.run(2000 / 16 * 0.05 + 1.5)
    assert len(world.settled_at) == 2000
    assert world.letters == []
    assert world.token_requests <= 2


def test_a_token_that_is_not_valid_yet_is_tried_again_instead_of_replaced_in_a_circle() -> None:
    """The clock of the token endpoint is 3 s ahead of the API's (`nbf`)."""
    world = World(sending(*names(20)), always(401))
    issued_at = {world.token: world.now}

    def respond(_: str) -> int:
        issued = issued_at.setdefault(world.shown, world.now)
        return 200 if world.now - issued >= 3 else 401

    world.respond = respond
    world.run(15)
    assert len(world.settled_at) == 20
    assert world.token_requests <= 3


def test_renewals_with_a_clock_ahead_cost_nothing_while_the_token_before_lasts() -> None:
    world = World(sending(*names(20)), always(401))
    world.run(1)
    issued_at = {world.token: world.now - 100}

    def respond(_: str) -> int:
        return 200 if world.now - issued_at.setdefault(world.shown, world.now) >= 3 else 401

    world.respond = respond
    for number in range(60):
        if number % 10 == 5:
            world.new_token()
        queued_at = world.now
        world.results(f"new{number}")
        world.run(1)
        if number % 10 < 5:
            assert world.settled_at[f"new{number}"] - queued_at <= 0.2
    world.run(3)
    assert len(world.settled_at) == 80
    assert world.token_requests == 0
    assert world.blockers == set()


def test_a_revoked_token_is_replaced_within_moments_and_nothing_waits_for_a_breaker() -> None:
    world = World(sending(*names(200)), always(401))
    world.run(0.1)
    revoked = world.token
    world.respond = lambda _: 401 if world.shown == revoked else 200
    world.run(1.5)
    assert len(world.settled_at) == 200
    assert not any("does not take results" in blocker for blocker in world.blockers)
