"""Claims: a task is dispatched once the API has accepted `in_progress`, and a lost task is found in progress."""

from __future__ import annotations

import pytest

from common.api.patch_queue import CONNECTIONS, MOST_PROBES
from common.api.responses import ApiResponse, ApiResponses
from common.failures.breaker import State
from common.failures.errors import Transient
from common.wire import messages as m
from stages.fetcher.actions import Claim, DeleteLease, Lease, Poll, PutLease
from stages.fetcher.claiming import REFUSED_FOR_S
from stages.fetcher.lease_expiry import FORGET_LOST_S
from tests import decisions, samples
from tests.fetcher.claiming import A, ClaimingFetching
from tests.fetcher.fetching import INBOX, INTERVAL, LEASE, Fetching, ids


def test_a_task_is_leased_then_claimed_then_dispatched() -> None:
    fetcher = ClaimingFetching()
    done = fetcher.page("a", "b")
    assert fetcher.claims == ["a", "b"]
    assert decisions.kinds(done)[:2] == ["PutLease", "PutLease"]
    assert ids(done) == []
    assert ids(fetcher.answered("b")) == ["b"]
    assert ids(fetcher.answered("a")) == ["a"]


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
def test_a_task_whose_claim_is_refused_is_left_alone_for_a_minute(claiming: ClaimingFetching, status: int) -> None:
    done = claiming.answered("a", status=status)
    assert ids(done) == []
    assert decisions.of_type(DeleteLease, done) == [DeleteLease("a")]
    assert claiming.leased == ["b"]
    claiming.answered("b")
    claiming.page()
    claiming.live(REFUSED_FOR_S / 2, held=["b"])
    claiming.page("a")
    assert claiming.claims == []
    claiming.live(REFUSED_FOR_S, held=["b"])
    claiming.page("a")
    assert claiming.claims == ["a"]


@pytest.mark.parametrize("status", [0, 301, 408, 425, 429, 500, 503])
def test_a_claim_that_meets_an_outage_is_tried_again(claiming: ClaimingFetching, status: int) -> None:
    assert ids(claiming.answered("a", status=status)) == []
    assert claiming.leased == ["a", "b"]
    claims = decisions.of_type(Claim, claiming.live(3))
    assert [claim.task_id for claim in claims] == ["a"]


def test_claims_obey_retry_after(claiming: ClaimingFetching) -> None:
    claiming.answered("a", status=429, retry_after=20)
    assert not decisions.of_type(Claim, claiming.live(19))
    assert decisions.of_type(Claim, claiming.live(2))


@pytest.mark.parametrize(
    ("status", "taken"), [(0, ["a"]), (408, ["a"]), (500, ["a"]), (502, ["a"]), (504, ["a"]), (429, []), (301, [])]
)
def test_a_conflict_counts_as_accepted_only_after_a_claim_that_the_api_may_have_stored(
    claiming: ClaimingFetching, status: int, taken: list[str]
) -> None:
    claiming.answered("a", status=status)
    claiming.live(3)
    assert ids(claiming.answered("a", status=409)) == taken


def test_a_claim_whose_token_is_refused_is_repeated_with_a_new_token(claiming: ClaimingFetching) -> None:
    done = claiming.answered("a", status=401)
    assert decisions.of_type(m.TokenRequest, done) == [m.TokenRequest(INBOX, "one", has_worked=True)]
    assert claiming.claims == []
    claiming.token("two")
    claiming.tick()
    assert claiming.claims == ["a"]


@pytest.mark.parametrize("status", [401, 403])
def test_claims_go_on_with_a_token_that_is_refused_to_one_of_them(claiming: ClaimingFetching, status: int) -> None:
    claiming.answered("a", status=status)
    claiming.page("c", "d")
    assert claiming.claims == ["c", "d"]
    done = claiming.answered("b") + claiming.tick()
    assert [claim.task_id for claim in decisions.of_type(Claim, done) if claim.task_id != "b"] == ["a"]
    assert sorted(ids(claiming.answered("a", "c", "d"))) == ["a", "c", "d"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_claim_that_is_always_refused_with_its_token_delays_no_other(status: int) -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    tasks = samples.names(50)
    fetcher.page(*tasks)
    accepted: list[str] = []
    waiting, requests, refusals = list(fetcher.claims), 0, 0
    for _ in range(200):
        sent, waiting = waiting, []
        for task_id in sent:
            refused = task_id == "t3"
            refusals += refused
            done = fetcher.answered(task_id, status=status if refused else 200)
            accepted += ids(done)
            requests += len(decisions.of_type(m.TokenRequest, done))
            waiting += [claim.task_id for claim in decisions.of_type(Claim, done)]
        waiting += [claim.task_id for claim in decisions.of_type(Claim, fetcher.live(0.1, 0.1))]
        if len(accepted) == 49:
            break
    assert len(accepted) == 49
    assert refusals <= 4
    assert requests <= 2
    assert fetcher.state.breakers[1].state is State.CLOSED


def test_claims_with_a_dead_token_wait_for_another_and_are_sent_again_at_once() -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    fetcher.page(*samples.names(20))
    sent = list(fetcher.claims)
    done = fetcher.answered(*sent, status=401)
    assert decisions.of_type(m.TokenRequest, done) == [m.TokenRequest(INBOX, "one", has_worked=True)]
    fetcher.token("two")
    fetcher.tick()
    assert len(fetcher.claims) == CONNECTIONS
    assert set(fetcher.claims) <= set(samples.names(20))
    assert fetcher.state.breakers[1].state is State.CLOSED


def test_an_api_that_is_down_gets_few_claims_as_probes() -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    tasks = samples.names(50)
    fetcher.page(*tasks)
    assert len(fetcher.claims) == CONNECTIONS
    fetcher.answered(*fetcher.claims, status=0)
    assert fetcher.state.report(fetcher.now).blockers == ["the API does not accept claims: no answer"]
    for probes in (1, 2, MOST_PROBES):
        claims: list[Claim] = []
        while not claims:
            claims = decisions.of_type(Claim, fetcher.live(0.5))
        assert len(claims) == probes
        fetcher.answered(*[claim.task_id for claim in claims], status=503)
    probe, *_ = decisions.of_type(Claim, fetcher.live(70))
    fetcher.answered(probe.task_id)
    assert len(fetcher.claims) == CONNECTIONS
    assert len(fetcher.leased) == 50


def test_a_task_whose_claim_takes_long_is_not_lost(claiming: ClaimingFetching) -> None:
    claiming.live(3 * LEASE)
    assert claiming.leased == ["a", "b"]
    assert ids(claiming.answered("a")) == ["a"]


def test_a_lost_claimed_task_is_searched_for_among_the_tasks_in_progress(claiming: ClaimingFetching) -> None:
    claiming.answered("a", "b")
    claiming.page()
    claiming.live(LEASE + 1, held=["b"])
    assert claiming.poll is not None
    assert claiming.poll.among == A
    done = claiming.in_progress("a")
    assert ids(done) == ["a"]
    assert claiming.claims == []  # it is ours


def test_after_a_restart_claimed_tasks_with_a_lease_are_taken_back() -> None:
    fetcher = ClaimingFetching(leases={"a": Lease(1.0, 2, "text_embedding")})
    fetcher.page()
    done = fetcher.live(LEASE + 1)
    assert decisions.of_type(PutLease, done) == [PutLease("a", Lease(1.0, 2, "text_embedding"))]
    assert fetcher.poll is not None
    assert fetcher.poll.among == A
    (task,) = decisions.of_type(m.Tasks, fetcher.in_progress("a"))[0].tasks
    assert (task.id, task.attempt, task.leased_at) == ("a", 2, 1.0)


def test_a_lost_task_that_is_pending_again_is_claimed_again() -> None:
    fetcher = ClaimingFetching(leases={"a": Lease(1.0)})
    fetcher.page()
    fetcher.live(LEASE + 1)
    fetcher.in_progress()
    fetcher.page("a")
    assert fetcher.claims == ["a"]


def test_a_search_that_fails_is_repeated_and_does_not_delay_pending_tasks() -> None:
    fetcher = ClaimingFetching(leases={"a": Lease(1.0)})
    fetcher.page()
    fetcher.live(LEASE + 1)
    fetcher.failed(Transient("404"))
    fetcher.live(3)
    assert fetcher.poll is not None
    assert fetcher.poll.among is None
    assert ids(fetcher.page("b")) == []
    fetcher.answered("b")
    fetcher.page()
    polls = decisions.of_type(Poll, fetcher.live(INTERVAL, held=["b"]))
    assert A in [poll.among for poll in polls]


def test_a_lost_task_is_not_forgotten_while_the_api_is_down() -> None:
    """An API that is down for hours: what is in progress there must be found afterwards."""
    fetcher = ClaimingFetching(leases={"a": Lease(1.0)})
    for _ in range(30):
        fetcher.failed(Transient("down"))
        fetcher.live(FORGET_LOST_S / 5, step=1)
    assert fetcher.poll is not None
    assert ids(fetcher.in_progress("a")) == ["a"]


def test_a_lost_task_that_no_search_finds_is_forgotten_in_the_end() -> None:
    fetcher = ClaimingFetching(leases={"a": Lease(1.0)})
    fetcher.page()
    done = []
    for _ in range(30):
        done += fetcher.live(INTERVAL, step=1)
        done += fetcher.in_progress() if fetcher.poll and fetcher.poll.among else fetcher.page()
    assert DeleteLease("a") in done
    assert not fetcher.lost


def test_a_claimed_task_that_is_given_back_is_parked_and_dispatched_after_its_time(claiming: ClaimingFetching) -> None:
    claiming.answered("a", "b")
    claiming.page()
    done = claiming.deferred("a", seconds=100)
    assert not decisions.of_type(DeleteLease, done)
    assert (claiming.leased, claiming.given_back) == (["b"], ["a"])
    assert claiming.state.room == 8
    polls = decisions.of_type(Poll, claiming.live(99, held=["b"]))
    assert all(poll.among is None for poll in polls)
    claiming.page()
    claiming.page()  # the one that was overdue
    polls = decisions.of_type(Poll, claiming.live(40, held=["b"]))
    assert A in [poll.among for poll in polls]


def test_a_late_result_settles_a_parked_task(claiming: ClaimingFetching) -> None:
    claiming.answered("a", "b")
    claiming.deferred("a", seconds=100)
    claiming.published("a")
    assert not claiming.given_back


def test_a_draining_fetcher_sends_no_new_claim() -> None:
    fetcher = ClaimingFetching(max_in_flight=50)
    fetcher.page(*samples.names(50))
    list(fetcher.state.on_drain(fetcher.now))
    first, *_ = fetcher.claims
    assert ids(fetcher.answered(first)) == [first]
    assert fetcher.claims == []


def test_a_parked_task_that_is_pending_again_is_not_leased_before_its_time(claiming: ClaimingFetching) -> None:
    claiming.answered("a", "b")
    claiming.deferred("a", seconds=100)
    claiming.page("a")
    assert (claiming.leased, claiming.given_back, claiming.claims) == (["b"], ["a"], [])


def test_a_claim_of_a_task_that_is_given_back_before_it_is_sent_is_dropped() -> None:
    fetcher = ClaimingFetching(max_in_flight=CONNECTIONS + 1)
    tasks = samples.names(CONNECTIONS + 1)
    fetcher.page(*tasks)
    sent = fetcher.claims
    (queued,) = set(tasks) - set(sent)
    fetcher.deferred(queued, seconds=100)
    fetcher.answered(*sent)
    assert fetcher.claims == []
    assert fetcher.state.report(fetcher.now).facts["claiming"] == 0


def test_without_claim_tasks_the_fetcher_ignores_responses_to_claims() -> None:
    fetcher = Fetching()
    responses = ApiResponses([ApiResponse("a", 200, "", 0.0, "one")])
    assert list(fetcher.state.on_api_responses(responses, fetcher.now)) == []
