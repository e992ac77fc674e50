"""The access token of a process: requested, used, refused, replaced."""

from __future__ import annotations

import pytest

from common.api.access_token import EARLY_INTERVAL_S, KEPT_S, UNTRIED_INTERVAL_S, AccessToken
from common.process.actions import Instant, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import TOKEN_REQUEST_INTERVAL_S

INBOX = "ipc:///inbox"


def at(seconds: float) -> Instant:
    return Instant(100.0 + seconds, 5_000.0 + seconds)


def token(name: str, expires: float = 3600.0) -> Token:
    return Token(f"secret {name}", 5_000.0 + expires, name)


def request(rejected: str = "", *, has_worked: bool = False) -> list[Send]:
    return [Send("token_broker", TokenRequest(INBOX, rejected, has_worked))]


@pytest.fixture
def access_token() -> AccessToken:
    return AccessToken(INBOX)


def test_a_token_is_requested_once_per_interval_while_there_is_none(access_token: AccessToken) -> None:
    assert access_token.problem(at(0)) == "no access token yet"
    assert list(access_token.ask(at(0))) == request()
    assert list(access_token.ask(at(TOKEN_REQUEST_INTERVAL_S - 0.1))) == []
    assert list(access_token.ask(at(TOKEN_REQUEST_INTERVAL_S))) == request()


def test_a_token_from_the_broker_is_used_and_no_other_is_requested(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    assert access_token.usable(at(0)) == token("one")
    assert access_token.problem(at(0)) == ""
    assert list(access_token.ask(at(0))) == []


def test_an_expired_token_is_not_used_and_another_is_requested(access_token: AccessToken) -> None:
    access_token.take(token("one", expires=10))
    assert access_token.usable(at(9.9)) is not None
    assert access_token.usable(at(10)) is None
    assert list(access_token.ask(at(10))) == request()


def test_a_refused_token_is_not_used_again_and_is_named_to_the_broker(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    assert list(access_token.refused("one", at(0))) == request("one")
    assert access_token.usable(at(0)) is None
    assert access_token.problem(at(0)) == "the API refused the access token (401 or 403)"


def test_a_refused_token_is_reported_to_the_broker_even_just_after_another_request(access_token: AccessToken) -> None:
    list(access_token.ask(at(0)))
    access_token.take(token("one"))
    assert list(access_token.refused("one", at(0.1))) == request("one")
    assert list(access_token.ask(at(0.2))) == []


def test_the_successor_of_a_refused_token_is_used_at_once_the_first_time(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    list(access_token.refused("one", at(0)))
    access_token.take(token("two"))
    assert access_token.usable(at(0)) == token("two")


def test_an_api_that_refuses_every_token_gets_them_with_growing_pauses(access_token: AccessToken) -> None:
    access_token.take(token("0"))
    now, pauses = 0.0, []
    for number in range(8):
        list(access_token.refused(str(number), at(now)))
        access_token.take(token(str(number + 1)))
        begun = now
        while access_token.usable(at(now)) is None:
            now += 0.25
        pauses.append(now - begun)
    assert pauses[0] == 0
    assert all(1.0 <= pause <= 60.5 for pause in pauses[1:])
    assert pauses[-1] >= 30.0


def test_a_refusal_that_several_requests_report_counts_once(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    list(access_token.refused("one", at(0)))
    assert list(access_token.refused("one", at(0.1))) == []
    access_token.take(token("two"))
    assert list(access_token.refused("one", at(0.2))) == []
    assert access_token.usable(at(0.2)) == token("two")


def test_a_refusal_is_ignored_while_there_is_no_token(access_token: AccessToken) -> None:
    assert list(access_token.refused("one", at(0))) == []


def test_a_refused_token_that_the_broker_sends_again_is_tried_after_a_pause(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    list(access_token.refused("one", at(0)))
    access_token.take(token("one"))
    assert access_token.usable(at(0.4)) is None
    assert access_token.usable(at(1.0)) == token("one")
    assert list(access_token.refused("one", at(1.0))) == request("one")


def test_a_refused_token_is_named_in_each_request_until_there_is_another(access_token: AccessToken) -> None:
    access_token.take(token("one", expires=5))
    list(access_token.refused("one", at(0)))
    assert list(access_token.ask(at(6))) == request("one")
    access_token.take(token("two", expires=7))
    assert list(access_token.ask(at(8))) == request()


def test_a_refused_token_that_later_worked_is_not_named_when_it_expires(access_token: AccessToken) -> None:
    access_token.take(token("one", expires=50))
    list(access_token.refused("one", at(0)))
    access_token.worked()
    assert list(access_token.ask(at(60))) == request()
    assert access_token.problem(at(60)) == "no access token yet"


def test_a_token_that_works_resets_the_number_of_refusals(access_token: AccessToken) -> None:
    for number in range(20):
        now = at(number * 100.0)
        access_token.take(token(str(number)))
        assert access_token.usable(now) is not None
        access_token.worked()
        list(access_token.refused(str(number), now))
    access_token.take(token("last"))
    assert access_token.usable(at(1900)) == token("last")


def test_a_dead_token_is_tried_again_early_if_another_process_reaches_the_api(access_token: AccessToken) -> None:
    access_token.take(token("one"))
    list(access_token.refused("one", at(0)))
    access_token.take(token("two"))
    now = 0.0
    for _ in range(6):
        list(access_token.refused("two", at(now)))
        while access_token.usable(at(now)) is None:
            now += 1
    list(access_token.refused("two", at(now)))
    assert access_token.usable(at(now)) is None
    access_token.reachable(at(now))
    assert access_token.usable(at(now)) == token("two")
    list(access_token.refused("two", at(now)))
    access_token.reachable(at(now + EARLY_INTERVAL_S - 0.1))
    assert access_token.usable(at(now + EARLY_INTERVAL_S - 0.1)) is None
    access_token.reachable(at(now + EARLY_INTERVAL_S))
    assert access_token.usable(at(now + EARLY_INTERVAL_S)) == token("two")


def test_a_token_that_stays_dead_is_replaced_after_some_time_also_if_it_is_tried_early(
    access_token: AccessToken,
) -> None:
    access_token.take(token("one"))
    list(access_token.refused("one", at(0)))
    access_token.take(token("two"))
    requested: list[Send] = []
    now = 0.0
    while now <= KEPT_S and not requested:
        requested = list(access_token.refused("two", at(now)))
        now += EARLY_INTERVAL_S
        access_token.reachable(at(now))
    assert requested == request("two")
    assert now >= 4 * EARLY_INTERVAL_S


def renewed(access_token: AccessToken, expires: float = 3600.0) -> AccessToken:
    """Token "one" has worked, "two" is its successor."""
    access_token.take(token("one", expires))
    access_token.worked("one")
    access_token.take(token("two"))
    return access_token


def test_a_new_token_that_is_refused_at_first_leaves_the_work_to_the_one_before(access_token: AccessToken) -> None:
    renewed(access_token)
    assert list(access_token.refused("two", at(0))) == []
    assert access_token.usable(at(0)) == token("one")
    assert access_token.usable(at(UNTRIED_INTERVAL_S)) == token("two")
    assert list(access_token.refused("two", at(UNTRIED_INTERVAL_S))) == []
    assert access_token.usable(at(UNTRIED_INTERVAL_S)) == token("one")
    assert access_token.usable(at(2 * UNTRIED_INTERVAL_S)) == token("two")
    access_token.worked("two")
    assert list(access_token.refused("two", at(10))) == request("two", has_worked=True)


def test_the_token_before_is_not_used_after_its_end(access_token: AccessToken) -> None:
    renewed(access_token, expires=1)
    list(access_token.refused("two", at(0)))
    assert access_token.usable(at(0.9)) == token("one", 1)
    assert access_token.usable(at(1)) == token("two")
    assert list(access_token.refused("two", at(1))) == request("two")
    assert access_token.usable(at(1)) is None


def test_if_both_tokens_are_refused_another_one_is_requested(access_token: AccessToken) -> None:
    renewed(access_token)
    assert list(access_token.refused("two", at(0))) == []
    assert list(access_token.refused("one", at(0))) == request("one", has_worked=True)
    assert access_token.usable(at(0)) is None
    access_token.take(token("two"))
    assert access_token.usable(at(0)) == token("two")
