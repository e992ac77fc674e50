"""Whose fault it is that a claim is not carried out: that task alone, or the API."""

from __future__ import annotations

import pytest

from common.api.patch_queue import CONNECTIONS, HANGS_S
from common.failures.breaker import State
from common.wire import messages as m
from stages.fetcher.actions import Claim, Poll
from tests import decisions, samples
from tests.fetcher.claiming import ClaimingFetching
from tests.fetcher.fetching import INTERVAL, ids

# ---- whose fault a claim that is not carried out is ----


def run(fetcher: ClaimingFetching, seconds: float, status_of: dict[str, int], step: float = 0.1) -> dict[str, float]:
    """The API answers every claim within a step; returns when each task was dispatched."""
    dispatched_at: dict[str, float] = {}
    waiting = list(fetcher.claims)
    for _ in range(round(seconds / step)):
        now, waiting = waiting, []
        for task_id in now:
            for one in ids(fetcher.answered(task_id, status=status_of.get(task_id, 200))):
                dispatched_at[one] = fetcher.now.mono
            waiting += fetcher.claims
        done = fetcher.live(step, step)
        waiting += [claim.task_id for claim in decisions.of_type(Claim, done)]
    return dispatched_at


@pytest.mark.parametrize("status", [0, 302, 429, 500, 503])
def test_a_claim_that_is_refused_while_others_are_accepted_delays_no_other(status: int) -> None:
    bad = samples.names(8, "bad")
    fetcher = ClaimingFetching(max_in_flight=40)
    fetcher.page(*bad, *samples.names(32))
    began = fetcher.now.mono
    dispatched_at = run(fetcher, 20, dict.fromkeys(bad, status))
    assert set(dispatched_at) == set(samples.names(32))
    assert max(dispatched_at.values()) - began <= 1.5
    assert fetcher.state.report(fetcher.now).blockers == []
    assert fetcher.state.breakers[1].state is State.CLOSED


def test_tasks_whose_claims_are_refused_leave_their_room_to_others() -> None:
    bad = samples.names(10, "bad")
    fetcher = ClaimingFetching(max_in_flight=10)
    fetcher.page(*bad)
    run(fetcher, 20, dict.fromkeys(bad, 500))
    assert fetcher.state.room == 10
    assert fetcher.poll is None
    fetcher.page(*samples.names(10))
    assert set(run(fetcher, 5, dict.fromkeys(bad, 500))) == set(samples.names(10))


def test_claims_that_are_refused_stop_no_poll() -> None:
    fetcher = ClaimingFetching(max_in_flight=10)
    fetcher.page(*samples.names(8))
    fetcher.answered(*fetcher.claims, status=500)
    polls = decisions.of_type(Poll, fetcher.live(INTERVAL + 1))
    assert len(polls) == 1


def test_a_throttle_of_one_claim_delays_only_this_one_while_others_are_accepted() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a", "b", "c")
    fetcher.answered("a")
    fetcher.answered("b", status=429, retry_after=60)
    fetcher.page("d")
    assert fetcher.claims == ["d"]
    fetcher.answered("c", status=429, retry_after=60)
    fetcher.answered("d", status=429, retry_after=60)
    assert "throttles claims" in fetcher.state.report(fetcher.now).blockers[0]


def test_a_throttle_of_one_claim_delays_no_other_when_another_one_fails_for_its_own_reasons() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("good", "broken", "throttled")
    fetcher.answered("good")
    fetcher.answered("broken", status=500)
    fetcher.answered("throttled", status=503, retry_after=60.0)
    fetcher.after(1).page("next", known=3)
    assert "next" in fetcher.claims


def test_a_poll_that_succeeds_lets_a_claim_go_before_the_cooldown_is_over() -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    fetcher.page(*samples.names(40))
    fetcher.answered(*fetcher.claims, status=503)
    assert fetcher.claims == []
    fetcher.page()
    fetcher.tick()
    assert len(fetcher.claims) == 1
    fetcher.answered(*fetcher.claims)
    assert len(fetcher.claims) == CONNECTIONS


@pytest.mark.parametrize("status", [401, 403])
def test_a_claim_that_is_refused_with_a_fresh_token_too_is_that_tasks_own(
    claiming: ClaimingFetching, status: int
) -> None:
    claiming.answered("a", status=status)
    claiming.token("two")
    claiming.tick()
    assert claiming.claims == ["a"]
    claiming.answered("b")
    done = claiming.answered("a", status=status, token="two")
    assert decisions.of_type(m.TokenRequest, done) == []
    assert decisions.events(done) == ["claim_failed"]
    claiming.page("c")
    assert claiming.claims == ["c"]


def test_claims_that_hang_keep_the_others_waiting_only_for_a_moment() -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    fetcher.page(*samples.names(CONNECTIONS), "good")
    assert "good" not in fetcher.claims
    claims = decisions.of_type(Claim, fetcher.live(HANGS_S, 0.1))
    assert [claim.task_id for claim in claims] == ["good"]


def test_a_claim_that_is_under_way_decides_for_a_task_that_is_leased_again() -> None:
    fetcher = ClaimingFetching()
    fetcher.page("a")
    fetcher.deferred("a", seconds=0.2)
    fetcher.live(1)
    fetcher.page("a")
    assert fetcher.claims == []
    assert ids(fetcher.answered("a")) == ["a"]
