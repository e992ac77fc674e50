"""What the token broker decides about issued tokens and rejected tokens, without a socket, a request or a clock."""

from __future__ import annotations

import pytest

from common.process.actions import Instant, Log, Send
from common.wire.messages import Token
from stages.token_broker.actions import RequestToken
from stages.token_broker.state import DEFAULT_LIFETIME_S, LONGEST_LIFETIME_S, fingerprint
from tests.token_broker.broker import Broker, logged, sent

# Getting a token and handing it out


def test_a_token_is_requested_at_the_start_and_sent_to_the_clients() -> None:
    broker = Broker()
    assert broker.tick() == [RequestToken(1)]
    actions = broker.after(2).issue("t", 3600, 1)
    assert sent(actions) == {"fetcher": "t", "publisher": "t"}
    token = next(action.message for action in actions if isinstance(action, Send))
    assert token == Token("t", 5_000_000.0 + 3600, fingerprint("t"))
    assert logged(actions) == [Log("token_issued", {"fingerprint": fingerprint("t"), "expires_in": 3600})]


def test_all_who_ask_during_a_request_get_its_token_once() -> None:
    broker = Broker()
    assert broker.request("a") == [RequestToken(1)]
    assert broker.request("b") == []
    assert broker.request("a") == []
    assert broker.request("fetcher") == []
    assert broker.tick() == []
    assert sent(broker.issue("t", 3600, 1)) == {"a": "t", "b": "t", "fetcher": "t", "publisher": "t"}
    assert len([a for a in broker.after(3600).tick() + broker.issue("u", 3600, 2) if isinstance(a, Send)]) == 2


def test_a_valid_token_is_sent_without_a_new_request() -> None:
    broker = Broker().holding()
    actions = broker.request("a")
    assert sent(actions) == {"a": "first"}
    assert len(actions) == 1


def test_an_expired_token_is_not_sent() -> None:
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


def test_the_lifetime_of_a_token_starts_with_its_request() -> None:
    broker = Broker()
    assert broker.tick() == [RequestToken(1)]
    actions = broker.after(10).issue("t", 100, 1)
    token = next(action.message for action in actions if isinstance(action, Send))
    assert token == Token("t", 5_000_100.0, fingerprint("t"))


def test_a_token_is_renewed_by_the_wall_clock_after_the_host_slept() -> None:
    broker = Broker().holding(life=3600)
    broker.now = Instant(broker.now.mono + 10, broker.now.wall + 4000)
    assert broker.request("a") == [RequestToken(2)]


def test_a_wall_clock_that_is_set_back_does_not_extend_the_lifetime_of_a_token() -> None:
    broker = Broker().holding(life=3600)
    broker.now = Instant(broker.now.mono + 3601, broker.now.wall - 86_400)
    assert broker.request("a") == [RequestToken(2)]


def test_a_missing_lifetime_is_assumed_and_logged_once() -> None:
    broker = Broker(rand=0.0)
    broker.tick()
    first = broker.issue("t", None, 1)
    assert Log("token_without_expires_in", {"assumed_seconds": DEFAULT_LIFETIME_S}, "warning") in first
    assert broker.after(DEFAULT_LIFETIME_S * 0.9 + 0.1).tick() == [RequestToken(2)]
    assert [entry.event for entry in logged(broker.issue("u", None, 2))] == ["token_issued"]


def test_very_short_lifetimes_do_not_flood_the_endpoint() -> None:
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


def test_a_request_that_rejects_an_older_token_gets_the_current_one() -> None:
    broker = Broker().holding()
    assert sent(broker.request("a", rejected=fingerprint("older"))) == {"a": "first"}
    assert broker.after(60).tick() == []


def test_other_requests_get_the_current_token_while_it_is_replaced() -> None:
    broker = Broker().holding().after(60)
    broker.request("a", rejected=fingerprint("first"))
    assert sent(broker.request("b")) == {"b": "first"}


def test_replacements_back_off_while_the_api_rejects_every_token() -> None:
    broker = Broker().holding().after(60)
    current, waits = "first", []
    for number in range(2, 9):
        asked = broker.request("a", rejected=fingerprint(current))
        waits.append(0.0 if asked else round(broker.seconds_to([RequestToken(number)], 61)))
        current = f"token {number}"
        assert sent(broker.issue(current, 3600, number))["a"] == current
    assert waits == [0, 5, 10, 20, 40, 60, 60]


def test_tokens_that_worked_before_they_were_rejected_are_replaced_within_seconds_each_time() -> None:
    broker = Broker().holding().after(60)
    current, waits = "first", []
    for number in range(2, 9):
        asked = broker.request("a", rejected=fingerprint(current), has_worked=True)
        waits.append(0.0 if asked else broker.seconds_to([RequestToken(number)], 61))
        current = f"token {number}"
        assert sent(broker.issue(current, 3600, number))["a"] == current
    assert waits[0] == 0
    assert all(2.5 <= wait <= 5.1 for wait in waits[1:])
    for number in range(9, 12):
        waits.append(
            0.0 if broker.request("a", rejected=fingerprint(current)) else broker.seconds_to([RequestToken(number)], 61)
        )
        current = f"token {number}"
        broker.issue(current, 3600, number)
    assert [round(wait) for wait in waits[-2:]] == [10, 20]


def test_a_rejected_token_is_replaced_at_once_after_a_time_without_rejections() -> None:
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


def test_a_renewal_does_not_count_as_a_replacement() -> None:
    broker = Broker().holding(life=100)
    broker.after(95).tick()
    broker.issue("second", 3600, 2)
    assert broker.after(1).request("a", rejected=fingerprint("second")) == [RequestToken(3)]
    broker.issue("third", 3600, 3)
    assert broker.after(60).tick() == [], "the third was not rejected"
