"""What the token broker decides and reports when the token endpoint fails, without a socket, a request or a clock."""

from __future__ import annotations

import pytest

from common.failures.breaker import State
from common.failures.errors import Permanent, Throttled, Transient
from common.process.actions import Log
from stages.token_broker.actions import RequestToken, TokenIssued
from stages.token_broker.state import REFUSED_INTERVAL_S
from tests.token_broker.broker import REQUEST_LIMIT_S, Broker, sent

# When the endpoint fails


def test_failures_back_off_exponentially_until_a_success() -> None:
    broker = Broker()
    waits = [broker.seconds_to([RequestToken(1)], 1)]
    for number in range(1, 5):
        actions = broker.fail(Transient("it broke"), number)
        assert actions == [
            Log("token_request_failed", {"reason": "it broke", "retry_in": 2.0 ** (number - 1)}, "warning")
        ]
        waits.append(round(broker.seconds_to([RequestToken(number + 1)], 60)))
    assert waits == [0, 1, 2, 4, 8]
    broker.issue("t", 10, 5)
    broker.seconds_to([RequestToken(6)], 10)
    broker.fail(Transient("again"), 6)
    assert round(broker.seconds_to([RequestToken(7)], 60)) == 1


def test_another_request_does_not_shorten_the_back_off() -> None:
    broker = Broker()
    broker.tick()
    broker.fail(Transient("it broke"), 1)
    assert broker.after(0.9).request("a") == []
    assert broker.after(0.1).request("a") == [RequestToken(2)]
    assert sent(broker.issue("t", 100, 2))["a"] == "t"


def test_the_wait_that_the_endpoint_asks_for_is_obeyed() -> None:
    broker = Broker()
    broker.tick()
    broker.fail(Throttled("not now", 120), 1)
    assert round(broker.seconds_to([RequestToken(2)], 130)) == 120


def test_a_failure_that_needs_an_operator_is_retried_at_a_steady_interval() -> None:
    broker = Broker()
    broker.tick()
    for number in (1, 2, 3):
        broker.fail(Permanent("wrong secret", "invalid_client"), number)
        assert broker.state.breaker.state is State.OPEN
        assert round(broker.seconds_to([RequestToken(number + 1)], 130)) == REFUSED_INTERVAL_S


def test_the_open_breaker_allows_a_single_probe() -> None:
    broker = Broker(threshold=2)
    broker.tick()
    broker.fail(Transient("one"), 1)
    states = [broker.state.breaker.state]
    broker.after(1).tick()
    actions = broker.fail(Transient("two"), 2)
    states.append(broker.state.breaker.state)
    wait = actions[0].fields["retry_in"]
    assert wait == round(broker.state.breaker.cooldown.until - broker.now.mono, 1) > 2
    assert broker.seconds_to([RequestToken(3)], 8) == pytest.approx(wait, abs=0.2)
    states.append(broker.state.breaker.state)
    assert broker.after(0.1).request("a") == []
    assert not broker.state.breaker.allows(broker.now.mono)
    broker.issue("t", 3600, 3)
    assert [*states, broker.state.breaker.state] == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_request_that_takes_too_long_is_given_up_and_its_late_outcome_is_ignored() -> None:
    broker = Broker()
    broker.tick()
    assert broker.after(REQUEST_LIMIT_S).tick() == []
    (entry,) = broker.after(0.1).tick()
    assert entry.fields["reason"] == "the token endpoint did not answer within 31 s (REQUEST_TIMEOUT)"
    assert broker.after(1).tick() == [RequestToken(2)]
    assert broker.issue("late", 3600, 1) == []
    assert broker.fail(Transient("late"), 1) == []
    assert broker.tick() == []
    assert sent(broker.issue("t", 3600, 2))["fetcher"] == "t"
    assert broker.issue("twice", 3600, 2) == []


def test_the_current_token_is_used_until_it_expires_while_the_endpoint_is_down() -> None:
    broker = Broker(rand=0.0).holding(life=100)
    broker.after(90).tick()
    broker.fail(Transient("down"), 2)
    assert sent(broker.request("a")) == {"a": "first"}
    report = broker.state.report(broker.now)
    assert report.blockers == []
    assert report.facts == {"token_expires_in": 10, "token_problem": "down"}


# What it reports


def test_a_blocker_is_reported_until_there_is_a_token() -> None:
    broker = Broker()
    first = broker.state.report(broker.now)
    assert first.blockers == ["no access token yet: the token endpoint is being asked for one"]
    assert first.facts == {"token_expires_in": None}
    broker.holding(life=100)
    report = broker.after(30).state.report(broker.now)
    assert report.blockers == []
    assert report.facts == {"token_expires_in": 70}


def test_the_blocker_names_the_problem_and_the_time_of_the_next_request() -> None:
    broker = Broker()
    broker.tick()
    broker.fail(Permanent("check OAUTH2_CLIENT_SECRET", "invalid_client"), 1)
    report = broker.after(20).state.report(broker.now)
    assert report.blockers == ["no access token: check OAUTH2_CLIENT_SECRET; next try in 40 s"]
    broker.after(40).tick()
    broker.issue("t", 3600, 2)
    assert broker.state.report(broker.now).blockers == []
    assert "token_problem" not in broker.state.report(broker.now).facts


def test_no_text_form_shows_a_token() -> None:
    broker = Broker().holding()
    shown = [repr(TokenIssued(1, "canary", 5)), repr(broker.request("a")), repr(broker.state.report(broker.now))]
    assert "canary" not in shown[0]
    assert "first" not in "".join(shown)
