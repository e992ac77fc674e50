"""The edge to the token endpoint, over real HTTP: its requests, its thread, and its secrets."""

from __future__ import annotations

import gzip
import logging
import queue
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.failures.errors import Permanent, Transient
from common.settings.settings import read
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.issuer import Issuer
from stages.token_broker.token_response import Grant
from tests.token_broker.endpoint import Endpoint, Handler, answers
from tests.token_broker.issuing import SECRET, basic, configured, hang_up, issuer, no_rotation
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("environment")

# What is sent


def test_client_id_and_secret_are_form_encoded_in_the_basic_header(endpoint: Endpoint) -> None:
    assert issuer(endpoint, oauth2_audience="https://api").fetch() == Grant("granted", 60)
    (asked,) = endpoint.asked
    assert basic(asked) == ("the client: ü", SECRET)
    assert asked.form == {
        "grant_type": ["client_credentials"],
        "scope": ["read write"],
        "audience": ["https://api"],
    }
    assert asked.path == "/oauth2/token"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.headers["accept"] == "application/json"


def test_client_secret_post_sends_the_secret_in_the_form_only(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    issuer(endpoint, oauth2_auth_method="client_secret_post", oauth2_scope="read").fetch()
    (asked,) = endpoint.asked
    assert asked.headers["authorization"] is None
    assert asked.form == {
        "grant_type": ["client_credentials"],
        "scope": ["read"],
        "client_id": ["the client: ü"],
        "client_secret": [SECRET],
    }


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=st.text(st.characters(codec="utf-8").filter(str.isprintable), min_size=1))
def test_every_secret_arrives_unchanged(endpoint: Endpoint, method: str, secret: str) -> None:
    endpoint.asked.clear()
    issuer(endpoint, oauth2_auth_method=method, oauth2_client_secret=secret).fetch()
    (asked,) = endpoint.asked
    assert secret == (basic(asked)[1] if method == "client_secret_basic" else asked.form["client_secret"][0])


def test_a_response_may_omit_the_lifetime_and_change_the_scope(endpoint: Endpoint) -> None:
    endpoint.replies = [answers(body=b'{"access_token": "t", "scope": "read", "token_type": "Bearer"}')]
    assert issuer(endpoint).fetch() == Grant("t", None)


def test_a_response_may_be_compressed_and_chunked(endpoint: Endpoint) -> None:
    content = gzip.compress(b'{"access_token": "t", "expires_in": 0.5}')

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(len(content)):
            handler.wfile.write(b"1\r\n" + content[at : at + 1] + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    endpoint.replies = [reply]
    assert issuer(endpoint).fetch() == Grant("t", 1)


# Rotation


def _accepting(good: str) -> Any:
    def reply(handler: Handler) -> None:
        if basic(handler.endpoint.asked[-1])[1] == good:
            answers()(handler)
        else:
            answers(401, b'{"error": "invalid_client"}')(handler)

    return reply


def test_a_rotated_secret_is_read_again_when_the_client_is_refused(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("old\n")
    for variable, value in {
        "API_BASE_URL": "http://api.invalid",
        "OAUTH2_CLIENT_ID": "client",
        "OAUTH2_CLIENT_SECRET_FILE": str(file),
        "OAUTH2_TOKEN_URL": endpoint.url,
        "PROCESSING_MODE": "mock",
        "RUNTIME_DIR": "/tmp/unused",
    }.items():
        monkeypatch.setenv(variable, value)
    broker = Issuer(read(), post=lambda _: None)
    endpoint.replies = [_accepting("old")]
    broker.fetch()
    file.write_text("new\n")
    endpoint.replies = [_accepting("old")]
    broker.fetch()
    endpoint.replies = [_accepting("new")]
    assert broker.fetch() == Grant("granted", 60)
    assert [basic(asked)[1] for asked in endpoint.asked] == ["old", "old", "old", "new"]
    file.unlink()
    endpoint.replies = [_accepting("newest")]
    with pytest.raises(Permanent) as raised:
        broker.fetch()
    assert raised.value.code == "invalid_client"
    assert len(endpoint.asked) == 5, "an unchanged secret is not tried twice"


# The thread


def test_the_outcome_of_a_request_is_posted_to_the_loop(endpoint: Endpoint) -> None:
    events: queue.Queue[Any] = queue.Queue()
    broker = Issuer(configured(endpoint.url), post=events.put, reread=no_rotation)
    broker.start_request(RequestToken(7))
    assert events.get(timeout=30) == TokenIssued(7, "granted", 60)
    endpoint.replies = [answers(500)]
    broker.start_request(RequestToken(8))
    refused = events.get(timeout=30)
    assert isinstance(refused, TokenRequestFailed)
    assert refused.number == 8


def test_an_unexpected_exception_on_the_thread_is_posted_as_a_failed_request(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint
) -> None:
    events: queue.Queue[Any] = queue.Queue()
    crashes: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda crash: crashes.append(crash.exc_type.__name__))
    broker = Issuer(configured(endpoint.url), post=events.put)
    monkeypatch.setattr(broker, "fetch", lambda: 1 / 0)
    broker.start_request(RequestToken(1))
    assert "an error of this program" in str(events.get(timeout=30).error)
    wait_until(lambda: crashes)
    assert crashes == ["ZeroDivisionError"]


# Secrets


def test_the_secret_and_the_token_appear_in_no_log_and_no_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = b'{"error": "invalid_request", "error_description": "canary"}'
    replies = [
        answers(200, b'{"access_token": "canary-token", "expires_in": 5}'),
        answers(200, b'{"access_token": ["canary-token"]}'),
        answers(400, refusal),
        answers(500, refusal),
        hang_up,
    ]
    shown = []
    contexts: list[BaseException | None] = []
    for method in ("client_secret_basic", "client_secret_post"):
        broker = issuer(endpoint, oauth2_auth_method=method)
        shown.append(repr(broker) + repr(broker._credentials))
        for reply in replies:
            endpoint.replies = [reply]
            try:
                shown.append(repr(TokenIssued(1, broker.fetch().access_token, 5)))
            except (Transient, Permanent) as error:
                shown.append("".join(traceback.format_exception(error)))
                contexts.append(None if error.__suppress_context__ else error.__context__)
    assert contexts == [None] * 8
    encoded = endpoint.asked[0].headers["authorization"].removeprefix("Basic ")
    everything = " ".join([*shown, caplog.text, *capfd.readouterr()])
    assert "canary" not in everything
    assert encoded not in everything


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b'\xef\xbb\xbf{"access_token": "granted", "expires_in": 60}\r\n'),
        ("application/json", b'{"access_token": "granted\\n", "token_type": "BEARER", "expires_in": "60.0"}'),
        ("application/x-www-form-urlencoded", b"access_token=granted&token_type=bearer&expires_in=60"),
        ("text/plain", b"access_token=granted&token_type=bearer&expires_in=60\n"),
    ],
)
def test_a_token_in_an_uncommon_form_is_taken(endpoint: Endpoint, content_type: str, content: bytes) -> None:
    endpoint.replies = [answers(body=content, headers={"Content-Type": content_type})]
    assert issuer(endpoint).fetch() == Grant("granted", 60)


def test_an_absurd_lifetime_breaks_nothing(endpoint: Endpoint) -> None:
    endpoint.replies = [answers(body=b'{"access_token": "granted", "expires_in": 1e308}')]
    assert issuer(endpoint).fetch().access_token == "granted"
