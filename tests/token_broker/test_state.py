"""What the token broker decides, without a socket, a request or a clock."""

from __future__ import annotations

from typing import Any

import pytest

from common.failures.breaker import Breaker, State
from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process.actions import Actions, Instant, Log, Send
from common.wire.messages import Token, TokenRequest
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.state import (
    DEFAULT_LIFETIME_S,
    LONGEST_LIFETIME_S,
    REFUSED_INTERVAL_S,
    TokenBroker,
    fingerprint,
)

REQUEST_LIMIT_S = 31.0


class Broker:
    """A token broker with a clock that the test turns; no jitter unless asked for."""

    def __init__(self, rand: float = 1.0, threshold: int = 100) -> None:
        self.state = TokenBroker(
            clients=["fetcher", "publisher"],
            breaker=Breaker("oauth2", threshold, Backoff(first=7.0, factor=1.0, longest=7.0)),
            backoff=Backoff(first=1.0, factor=2.0),
            request_limit_s=REQUEST_LIMIT_S,
            rand=lambda: rand,
        )
        self.now = Instant(1000.0, 5_000_000.0)

    def after(self, seconds: float) -> Broker:
        self.now = Instant(self.now.mono + seconds, self.now.wall + seconds)
        return self

    def tick(self) -> list[Any]:
        return done(self.state.on_tick(self.now))

    def request(self, reply_to: str = "asker", rejected: str = "") -> list[Any]:
        return done(self.state.on_request(TokenRequest(reply_to, rejected), self.now))

    def issue(self, token: str, life: float | None, number: int) -> list[Any]:
        return done(self.state.on_issued(TokenIssued(number, token, life), self.now))

    def refuse(self, error: Transient | Permanent, number: int) -> list[Any]:
        return done(self.state.on_request_failed(TokenRequestFailed(number, error), self.now))

    def holding(self, life: float | None = 3600.0) -> Broker:
        """With its first token, `first`."""
        assert self.tick() == [RequestToken(1)]
        self.issue("first", life, 1)
        return self

    def seconds_to(self, actions: list[Any], at_most: float, step: float = 0.1) -> float:
        """How long until a tick returns these actions."""
        began = self.now.mono
        while (found := self.tick()) != actions:
            assert found == [], found
            assert self.now.mono - began <= at_most, "never"
            self.after(step)
        return self.now.mono - began


def done(actions: Actions) -> list[Any]:
    return list(actions)


def sent(actions: list[Any]) -> dict[str, str]:
    """Inbox → access token."""
    return {a.to: a.message.access_token for a in actions if isinstance(a, Send) and isinstance(a.message, Token)}


def said(actions: list[Any]) -> list[Log]:
    return [action for action in actions if isinstance(action, Log)]


# Getting a token and handing it out


def test_a_token_is_requested_at_the_start_and_sent_to_its_users() -> None:
    broker = Broker()
    assert broker.tick() == [RequestToken(1)]
    actions = broker.after(2).issue("t", 3600, 1)
    assert sent(actions) == {"fetcher": "t", "publisher": "t"}
    token = next(action.message for action in actions if isinstance(action, Send))
    assert token == Token("t", 5_000_000.0 + 3600, fingerprint("t"))
    assert said(actions) == [Log("token_issued", {"fingerprint": fingerprint("t"), "expires_in": 3600})]


def test_one_request_answers_all_who_ask_while_it_runs_once_each() -> None:
    broker = Broker()
    assert broker.request("a") == [RequestToken(1)]
    assert broker.request("b") == []
    assert broker.request("a") == []
    assert broker.request("fetcher") == []
    assert broker.tick() == []
    assert sent(broker.issue("t", 3600, 1)) == {"a": "t", "b": "t", "fetcher": "t", "publisher": "t"}
    assert len([a for a in broker.after(3600).tick() + broker.issue("u", 3600, 2) if isinstance(a, Send)]) == 2


def test_a_valid_token_is_given_out_without_a_request() -> None:
    broker = Broker().holding()
    actions = broker.request("a")
    assert sent(actions) == {"a": "first"}
    assert len(actions) == 1


def test_an_expired_token_is_not_given_out() -> None:
    broker = Broker().holding(life=100)
    assert sent(broker.after(99.9).request("a")) == {"a": "first"}
    assert broker.after(0.1).request("b") == [RequestToken(2)]
    assert sent(broker.issue("second", 100, 2))["b"] == "second"


@pytest.mark.parametrize(("life", "jitter", "renewed_after"), [
    (3600, 0.0, 3240),
    (3600, 1.0, 2916),
    (30, 0.0, 25),
    (5, 0.0, 2.5),
    (5, 1.0, 2.25),
    (10**12, 0.0, LONGEST_LIFETIME_S * 0.9),
])  # fmt: skip
def test_a_token_is_renewed_before_it_expires_with_jitter(life: float, jitter: float, renewed_after: float) -> None:
    broker = Broker(rand=jitter).holding(life=life)
    assert broker.after(renewed_after - 0.01).tick() == []
    assert broker.after(0.02).tick() == [RequestToken(2)]
    assert sent(broker.request("a")) == {"a": "first"}, "the old token serves until the new one is there"


def test_the_lifetime_of_a_token_counts_from_its_request() -> None:
    broker = Broker()
    assert broker.tick() == [RequestToken(1)]
    actions = broker.after(10).issue("t", 100, 1)
    token = next(action.message for action in actions if isinstance(action, Send))
    assert token == Token("t", 5_000_100.0, fingerprint("t"))


def test_a_host_that_slept_renews_its_token_by_the_wall_clock() -> None:
    broker = Broker().holding(life=3600)
    broker.now = Instant(broker.now.mono + 10, broker.now.wall + 4000)
    assert broker.request("a") == [RequestToken(2)]


def test_a_wall_clock_that_is_set_back_does_not_prolong_a_token() -> None:
    broker = Broker().holding(life=3600)
    broker.now = Instant(broker.now.mono + 3601, broker.now.wall - 86_400)
    assert broker.request("a") == [RequestToken(2)]


def test_a_missing_lifetime_is_assumed_and_logged_once() -> None:
    broker = Broker(rand=0.0)
    broker.tick()
    first = broker.issue("t", None, 1)
    assert Log("token_without_expires_in", {"assumed_seconds": DEFAULT_LIFETIME_S}, "warning") in first
    assert broker.after(DEFAULT_LIFETIME_S * 0.9 + 0.1).tick() == [RequestToken(2)]
    assert [entry.event for entry in said(broker.issue("u", None, 2))] == ["token_issued"]


def test_tokens_with_very_short_lifetimes_do_not_flood_the_endpoint() -> None:
    broker = Broker()
    requests = 0
    for _ in range(1000):
        for action in broker.after(0.01).tick():
            requests += 1
            broker.issue("t", 0.001, action.number)
    assert requests <= 11


# Tokens that the API rejects


def test_a_rejected_token_is_replaced_if_it_is_the_current_one() -> None:
    broker = Broker().holding().after(60)
    assert broker.request("a", rejected=fingerprint("first")) == [RequestToken(2)]
    assert broker.request("b", rejected=fingerprint("first")) == []
    assert sent(broker.issue("second", 3600, 2)) == dict.fromkeys(("a", "b", "fetcher", "publisher"), "second")


def test_a_rejection_of_a_token_that_was_already_replaced_is_answered_with_the_current_one() -> None:
    broker = Broker().holding()
    assert sent(broker.request("a", rejected=fingerprint("older"))) == {"a": "first"}
    assert broker.after(60).tick() == []


def test_other_processes_get_the_current_token_while_it_is_replaced() -> None:
    broker = Broker().holding().after(60)
    broker.request("a", rejected=fingerprint("first"))
    assert sent(broker.request("b")) == {"b": "first"}


def test_an_api_that_rejects_every_token_does_not_flood_the_endpoint() -> None:
    broker = Broker().holding().after(60)
    current, waits = "first", []
    for number in range(2, 9):
        asked = broker.request("a", rejected=fingerprint(current))
        waits.append(0.0 if asked else round(broker.seconds_to([RequestToken(number)], 61)))
        current = f"token {number}"
        assert sent(broker.issue(current, 3600, number))["a"] == current
    assert waits == [0, 5, 10, 20, 40, 60, 60]


def test_after_a_quiet_time_a_rejected_token_is_replaced_at_once_again() -> None:
    broker = Broker().holding().after(60)
    for number in (2, 3, 4):
        broker.request("a", rejected=fingerprint("first"))
        broker.after(60).tick()
        broker.issue("first", 3600, number)
    assert broker.after(330).request("a", rejected=fingerprint("first")) == [RequestToken(5)]
    broker.issue("first", 3600, 5)
    assert broker.request("a", rejected=fingerprint("first")) == []
    assert broker.seconds_to([RequestToken(6)], 6) == pytest.approx(5, abs=0.2)


def test_a_rejected_token_is_replaced_at_once_on_a_host_that_has_just_booted() -> None:
    broker = Broker()
    broker.now = Instant(5.0, 5_000_000.0)
    assert broker.holding().after(2).request("a", rejected=fingerprint("first")) == [RequestToken(2)]
    assert sent(broker.issue("second", 3600, 2))["a"] == "second"


def test_a_regular_renewal_does_not_count_as_a_replacement() -> None:
    broker = Broker().holding(life=100)
    broker.after(95).tick()
    broker.issue("second", 3600, 2)
    assert broker.after(1).request("a", rejected=fingerprint("second")) == [RequestToken(3)]
    broker.issue("third", 3600, 3)
    assert broker.after(60).tick() == [], "the third was not rejected"


# When the endpoint fails


def test_failures_back_off_exponentially_until_a_success() -> None:
    broker = Broker()
    waits = [broker.seconds_to([RequestToken(1)], 1)]
    for number in range(1, 5):
        actions = broker.refuse(Transient("it broke"), number)
        assert actions == [
            Log("token_request_failed", {"reason": "it broke", "retry_in": 2.0 ** (number - 1)}, "warning")
        ]
        waits.append(round(broker.seconds_to([RequestToken(number + 1)], 60)))
    assert waits == [0, 1, 2, 4, 8]
    broker.issue("t", 10, 5)
    broker.seconds_to([RequestToken(6)], 10)
    broker.refuse(Transient("again"), 6)
    assert round(broker.seconds_to([RequestToken(7)], 60)) == 1


def test_asking_again_does_not_shorten_the_back_off() -> None:
    broker = Broker()
    broker.tick()
    broker.refuse(Transient("it broke"), 1)
    assert broker.after(0.9).request("a") == []
    assert broker.after(0.1).request("a") == [RequestToken(2)]
    assert sent(broker.issue("t", 100, 2))["a"] == "t"


def test_retry_after_of_the_endpoint_is_obeyed() -> None:
    broker = Broker()
    broker.tick()
    broker.refuse(Throttled("not now", 120), 1)
    assert round(broker.seconds_to([RequestToken(2)], 130)) == 120


def test_an_error_that_needs_an_operator_is_retried_slowly_and_steadily() -> None:
    broker = Broker()
    broker.tick()
    for number in (1, 2, 3):
        broker.refuse(Permanent("wrong secret", "invalid_client"), number)
        assert broker.state.breaker.state is State.OPEN
        assert round(broker.seconds_to([RequestToken(number + 1)], 130)) == REFUSED_INTERVAL_S


def test_the_circuit_breaker_opens_and_allows_one_probe_at_a_time() -> None:
    broker = Broker(threshold=2)
    broker.tick()
    broker.refuse(Transient("one"), 1)
    states = [broker.state.breaker.state]
    broker.after(1).tick()
    actions = broker.refuse(Transient("two"), 2)
    states.append(broker.state.breaker.state)
    wait = actions[0].fields["retry_in"]
    assert wait == round(broker.state.breaker.cooldown.until - broker.now.mono, 1) > 2
    assert broker.seconds_to([RequestToken(3)], 8) == pytest.approx(wait, abs=0.2)
    states.append(broker.state.breaker.state)
    assert broker.after(0.1).request("a") == []
    assert not broker.state.breaker.allows(broker.now.mono)
    broker.issue("t", 3600, 3)
    assert [*states, broker.state.breaker.state] == [State.CLOSED, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_stalled_request_is_given_up_and_its_late_outcome_is_ignored() -> None:
    broker = Broker()
    broker.tick()
    assert broker.after(REQUEST_LIMIT_S).tick() == []
    (entry,) = broker.after(0.1).tick()
    assert entry.fields["reason"] == "the token endpoint did not answer within 31 s (REQUEST_TIMEOUT)"
    assert broker.after(1).tick() == [RequestToken(2)]
    assert broker.issue("late", 3600, 1) == []
    assert broker.refuse(Transient("late"), 1) == []
    assert broker.tick() == []
    assert sent(broker.issue("t", 3600, 2))["fetcher"] == "t"
    assert broker.issue("twice", 3600, 2) == []


def test_the_old_token_is_used_until_it_expires_while_the_endpoint_is_down() -> None:
    broker = Broker(rand=0.0).holding(life=100)
    broker.after(90).tick()
    broker.refuse(Transient("down"), 2)
    assert sent(broker.request("a")) == {"a": "first"}
    report = broker.state.report(broker.now)
    assert report.blockers == []
    assert report.facts == {"token_expires_in": 10, "token_problem": "down"}


# What it reports


def test_the_report_has_a_blocker_until_there_is_a_token() -> None:
    broker = Broker()
    first = broker.state.report(broker.now)
    assert first.blockers == ["no access token yet: the token endpoint is being asked for one"]
    assert first.facts == {"token_expires_in": None}
    broker.holding(life=100)
    report = broker.after(30).state.report(broker.now)
    assert report.blockers == []
    assert report.facts == {"token_expires_in": 70}


def test_the_blocker_names_the_problem_and_the_next_try() -> None:
    broker = Broker()
    broker.tick()
    broker.refuse(Permanent("check OAUTH2_CLIENT_SECRET", "invalid_client"), 1)
    report = broker.after(20).state.report(broker.now)
    assert report.blockers == ["no access token: check OAUTH2_CLIENT_SECRET; next try in 40 s"]
    broker.after(40).tick()
    broker.issue("t", 3600, 2)
    assert broker.state.report(broker.now).blockers == []
    assert "token_problem" not in broker.state.report(broker.now).facts


def test_no_token_appears_in_the_repr_of_an_action_or_event() -> None:
    broker = Broker().holding()
    shown = [repr(TokenIssued(1, "canary", 5)), repr(broker.request("a")), repr(broker.state.report(broker.now))]
    assert "canary" not in shown[0]
    assert "first" not in "".join(shown)
