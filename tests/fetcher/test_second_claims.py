"""Whether the API refuses a second claim of a task: how it is found out, and told."""

from __future__ import annotations

from typing import Any

import pytest

from stages.fetcher.actions import Claim, Lease, Poll
from stages.fetcher.lease_expiry import FORGET_LOST_S
from stages.fetcher.second_claims import CHECK_INTERVAL_S, NOTICE
from tests import decisions
from tests.fetcher.claiming import ClaimingFetching
from tests.fetcher.fetching import INTERVAL, LEASE, ids

# ---- second claims ----


def second(fetcher: ClaimingFetching, status: int) -> list[Any]:
    """A task comes, its claim is accepted, and a second claim of it is answered with this status."""
    fetcher.page("a")
    done = fetcher.answered("a", check=None)
    assert ids(done) == []
    assert fetcher.claims == ["a"]
    return fetcher.answered("a", status=status, check=None)


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_an_api_that_refuses_a_second_claim_keeps_pipelines_apart(status: int) -> None:
    fetcher = ClaimingFetching()
    done = second(fetcher, status)
    assert ids(done) == ["a"]
    assert decisions.counted("api_second_claims_total", done) == [(("refused",), 1)]
    assert "notices" not in fetcher.state.report(fetcher.now).facts


def test_an_api_that_accepts_a_second_claim_is_told_on_ready_and_in_the_log() -> None:
    fetcher = ClaimingFetching()
    done = second(fetcher, 200)
    assert ids(done) == ["a"]
    assert decisions.counted("api_second_claims_total", done) == [(("accepted",), 1)]
    assert decisions.log_fields("second_claim_accepted", done)["level"] == "warning"
    assert fetcher.state.report(fetcher.now).facts["notices"] == [NOTICE]
    assert fetcher.state.report(fetcher.now).blockers == []


def test_an_error_of_the_server_is_no_answer_to_a_second_claim() -> None:
    fetcher = ClaimingFetching()
    done = second(fetcher, 500)
    assert ids(done) == ["a"]
    assert decisions.counted("api_second_claims_total", done) == []


def test_a_task_is_not_dispatched_while_a_second_claim_may_still_take_effect() -> None:
    fetcher = ClaimingFetching()
    assert ids(second(fetcher, 0)) == []
    claims = decisions.of_type(Claim, fetcher.live(3))
    assert [claim.task_id for claim in claims] == ["a"]
    assert ids(fetcher.answered("a", status=409)) == ["a"]


def test_only_one_claim_in_ten_minutes_is_checked() -> None:
    fetcher = ClaimingFetching()
    second(fetcher, 200)
    fetcher.page("b")
    assert ids(fetcher.answered("b", check=None)) == ["b"]
    fetcher.live(CHECK_INTERVAL_S, step=5, held=["a", "b"])
    fetcher.page("c")
    assert ids(fetcher.answered("c", check=None)) == []
    fetcher.answered("c", status=409, check=None)
    assert "notices" not in fetcher.state.report(fetcher.now).facts


def test_a_response_about_a_task_that_is_over_does_not_hide_the_others(claiming: ClaimingFetching) -> None:
    claiming.published("a")
    assert ids(claiming.answered("a", "b")) == ["b"]
    assert claiming.leased == ["b"]


def test_a_lost_task_that_the_latest_search_found_is_not_forgotten_while_there_is_no_room_for_it() -> None:
    """Without room the fetcher does not search again. The task is in progress in the API: it would stay so for ever."""
    fetcher = ClaimingFetching(max_in_flight=1, leases={"a": Lease(1.0), "b": Lease(1.0)})
    fetcher.page()
    fetcher.live(LEASE + 1)
    assert fetcher.lost == ["a", "b"]
    fetcher.in_progress("a", "b")
    assert (fetcher.leased, fetcher.lost) == (["a"], ["b"])
    fetcher.live(3 * FORGET_LOST_S, step=2, held=["a"])
    assert fetcher.lost == ["b"]
    polls = decisions.of_type(Poll, [*fetcher.published("a"), *fetcher.live(INTERVAL + 1)])
    assert frozenset("b") in [poll.among for poll in polls]
