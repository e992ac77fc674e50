"""A process's copy of the access token: asked for, used, refused, replaced."""

from __future__ import annotations

import pytest

from common.api.access_token import AccessToken
from common.process.actions import Instant, Send
from common.wire.messages import Token, TokenRequest
from common.wire.timing import TOKEN_REQUEST_INTERVAL_S

INBOX = "ipc:///inbox"


def at(seconds: float) -> Instant:
    return Instant(100.0 + seconds, 5_000.0 + seconds)


def token(name: str, expires: float = 3600.0) -> Token:
    return Token(f"secret {name}", 5_000.0 + expires, name)


def request(rejected: str = "") -> list[Send]:
    return [Send("token_broker", TokenRequest(INBOX, rejected))]


@pytest.fixture
def bearer() -> AccessToken:
    return AccessToken(INBOX)


def test_it_asks_while_it_has_none_but_not_all_the_time(bearer: AccessToken) -> None:
    assert bearer.problem(at(0)) == "no access token yet"
    assert list(bearer.ask(at(0))) == request()
    assert list(bearer.ask(at(TOKEN_REQUEST_INTERVAL_S - 0.1))) == []
    assert list(bearer.ask(at(TOKEN_REQUEST_INTERVAL_S))) == request()


def test_it_uses_what_it_is_given_and_asks_no_more(bearer: AccessToken) -> None:
    bearer.take(token("one"))
    assert bearer.usable(at(0)) == token("one")
    assert bearer.problem(at(0)) == ""
    assert list(bearer.ask(at(0))) == []


def test_an_expired_token_is_not_shown_and_another_is_asked_for(bearer: AccessToken) -> None:
    bearer.take(token("one", expires=10))
    assert bearer.usable(at(9.9)) is not None
    assert bearer.usable(at(10)) is None
    assert list(bearer.ask(at(10))) == request()


def test_a_refused_token_is_not_shown_again_and_the_broker_hears_which(bearer: AccessToken) -> None:
    bearer.take(token("one"))
    assert list(bearer.refused("one", at(0))) == request("one")
    assert bearer.usable(at(0)) is None
    assert bearer.problem(at(0)) == "the API refused the access token (401 or 403)"


def test_even_if_it_asked_just_now(bearer: AccessToken) -> None:
    list(bearer.ask(at(0)))
    bearer.take(token("one"))
    assert list(bearer.refused("one", at(0.1))) == request("one")
    assert list(bearer.ask(at(0.2))) == []


def test_its_successor_is_used_at_once_the_first_time(bearer: AccessToken) -> None:
    bearer.take(token("one"))
    list(bearer.refused("one", at(0)))
    bearer.take(token("two"))
    assert bearer.usable(at(0)) == token("two")


def test_but_an_api_that_refuses_every_token_gets_them_with_growing_pauses(bearer: AccessToken) -> None:
    bearer.take(token("0"))
    now, pauses = 0.0, []
    for number in range(8):
        list(bearer.refused(str(number), at(now)))
        bearer.take(token(str(number + 1)))
        begun = now
        while bearer.usable(at(now)) is None:
            now += 0.25
        pauses.append(now - begun)
    assert pauses[0] == 0
    assert all(1.0 <= pause <= 60.5 for pause in pauses[1:])
    assert pauses[-1] >= 30.0


def test_many_requests_may_report_the_same_refusal(bearer: AccessToken) -> None:
    bearer.take(token("one"))
    list(bearer.refused("one", at(0)))
    assert list(bearer.refused("one", at(0.1))) == []
    bearer.take(token("two"))
    assert list(bearer.refused("one", at(0.2))) == []
    assert bearer.usable(at(0.2)) == token("two")


def test_a_refusal_without_any_token_is_news_from_an_earlier_life(bearer: AccessToken) -> None:
    assert list(bearer.refused("one", at(0))) == []


def test_the_same_token_again_is_tried_after_a_pause_since_the_refusal_may_be_a_hiccup(bearer: AccessToken) -> None:
    bearer.take(token("one"))
    list(bearer.refused("one", at(0)))
    bearer.take(token("one"))
    assert bearer.usable(at(0.4)) is None
    assert bearer.usable(at(1.0)) == token("one")
    assert list(bearer.refused("one", at(1.0))) == request("one")


def test_it_goes_on_naming_the_refused_token_until_there_is_another(bearer: AccessToken) -> None:
    bearer.take(token("one", expires=5))
    list(bearer.refused("one", at(0)))
    assert list(bearer.ask(at(6))) == request("one")
    bearer.take(token("two", expires=7))
    assert list(bearer.ask(at(8))) == request()


def test_a_token_that_worked_since_is_not_named_when_it_expires(bearer: AccessToken) -> None:
    bearer.take(token("one", expires=50))
    list(bearer.refused("one", at(0)))
    bearer.worked()
    assert list(bearer.ask(at(60))) == request()
    assert bearer.problem(at(60)) == "no access token yet"


def test_a_token_that_works_ends_the_row_of_refusals(bearer: AccessToken) -> None:
    for number in range(20):
        now = at(number * 100.0)
        bearer.take(token(str(number)))
        assert bearer.usable(now) is not None
        bearer.worked()
        list(bearer.refused(str(number), now))
    bearer.take(token("last"))
    assert bearer.usable(at(1900)) == token("last")
