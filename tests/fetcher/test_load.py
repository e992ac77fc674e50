"""The connection limit and the pace, as the fetcher uses them: polls go first, and claims wait for them."""

from __future__ import annotations

from typing import Any

from common.api.patch_queue import CONNECTIONS
from common.api.request_pace import PACED
from stages.fetcher.actions import Claim, Poll
from stages.fetcher.lease_table import Whereabouts
from tests import decisions, samples
from tests.fetcher.claiming import ClaimingFetching
from tests.fetcher.fetching import Fetching


def paced(per_minute: int, **settings: Any) -> ClaimingFetching:
    return ClaimingFetching(requests_per_minute=per_minute, polling_interval_s=1.0, **settings)


def live(fetcher: Fetching, seconds: float) -> list[Any]:
    """Tick for this many seconds; a poll finds nothing, every claim is accepted, and the rate limiter lives."""
    done: list[Any] = []
    for _ in range(round(seconds * 10)):
        fetcher.after(0.1)
        done += fetcher.holding(*fetcher.state.table.ids(Whereabouts.WAITING))
        ticked = fetcher.did(fetcher.state.on_tick(fetcher.now))
        done += ticked
        if fetcher.poll:
            done += fetcher.page()
        for claim in decisions.of_type(Claim, ticked):
            assert isinstance(fetcher, ClaimingFetching)
            done += fetcher.answered(claim.task_id, check=None)
    return done


def test_polls_of_a_pipeline_without_claims_leave_at_a_twentieth_of_the_pace() -> None:
    fetcher = Fetching(requests_per_minute=200, polling_interval_s=0.1)
    fetcher.page()
    polls = decisions.of_type(Poll, live(fetcher, 60))
    assert 9 <= len(polls) <= 10


def test_polls_that_wait_for_their_turn_are_not_told_because_nothing_new_may_be_there() -> None:
    fetcher = Fetching(requests_per_minute=200, polling_interval_s=0.1)
    fetcher.page()
    live(fetcher, 2)
    report = fetcher.state.report(fetcher.now)
    assert report.blockers == []
    assert "notices" not in report.facts


def test_claims_and_polls_together_have_half_of_the_pace_and_polls_are_not_late() -> None:
    fetcher = paced(120, max_in_flight=200)
    done = fetcher.page(*samples.names(150))
    done += live(fetcher, 60)
    polls, claims = decisions.of_type(Poll, done), decisions.of_type(Claim, done)
    assert 58 <= len(polls) + len(claims) <= 60
    assert len(claims) > 0
    assert len(polls) >= 28, "each second one is due, and each second one request may leave"


def test_claims_that_wait_for_their_turn_are_told() -> None:
    fetcher = paced(120, max_in_flight=200)
    fetcher.page(*samples.names(150))
    live(fetcher, 2)
    report = fetcher.state.report(fetcher.now)
    assert report.blockers == []
    assert report.facts["notices"] == [PACED]
    assert report.facts["paced"] is True


def test_claims_do_not_wait_for_a_poll_that_there_is_no_room_for() -> None:
    fetcher = paced(120, max_in_flight=30)
    done = fetcher.page(*samples.names(30))
    done += live(fetcher, 40)
    assert {claim.task_id for claim in decisions.of_type(Claim, done)} == set(samples.names(30))


def test_claims_have_a_connection_limit_of_their_own() -> None:
    fetcher = ClaimingFetching(max_in_flight=100, connections=3)
    fetcher.page(*samples.names(100))
    assert len(fetcher.claims) == 3
    facts = fetcher.state.report(fetcher.now).facts
    assert (facts["connections"], facts["connections_limit"]) == (3, 3)


def test_fewer_claims_are_sent_at_a_time_while_they_wait_in_the_api_for_each_other() -> None:
    fetcher = ClaimingFetching(max_in_flight=2000)
    fetcher.page(*samples.names(2000))
    sent = fetcher.claims
    assert len(sent) == CONNECTIONS
    for _ in range(60):
        fetcher.after(0.02 * len(sent))
        fetcher.answered(*sent, check=None)
        sent = fetcher.claims or sent
    assert len(sent) <= CONNECTIONS / 2
