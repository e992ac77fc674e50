"""The edge to the token endpoint, over real HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import queue
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.failures.errors import Permanent, SettingsError, Throttled, Transient
from common.process import metrics
from common.settings.settings import Settings, read
from stages.token_broker import issuer as edge
from stages.token_broker.actions import RequestToken, TokenIssued, TokenRequestFailed
from stages.token_broker.issuer import Issuer
from stages.token_broker.token_response import Grant
from tests import samples
from tests.token_broker.endpoint import Asked, Endpoint, Handler, answers, serving
from tests.waiting import wait_until

SECRET = "canary +/=&%:~ü€😀"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)


def configured(url: str, **changes: Any) -> Settings:
    fields = {
        "oauth2_client_id": "the client: ü",
        "oauth2_client_secret": SECRET,
        "oauth2_token_url": url,
        "request_timeout": 5,
        "runtime_dir": "/tmp/unused",
    }
    return samples.settings(**{**fields, **changes})


def issuer(endpoint: Endpoint, **changes: Any) -> Issuer:
    return Issuer(configured(endpoint.url, **changes), post=lambda _: None, reread=_no_rotation)


def _no_rotation() -> Settings:
    raise SettingsError(["OAUTH2_CLIENT_SECRET_FILE: is gone"])


def count(status: str) -> float:
    return metrics.REGISTRY.get_sample_value("oauth2_token_requests_total", {"status": status}) or 0.0


def basic(asked: Asked) -> tuple[str, str]:
    """What an RFC 6749 server reads from the header."""
    encoded = asked.headers["authorization"].removeprefix("Basic ")
    client_id, _, secret = base64.b64decode(encoded).decode("ascii").partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


# What is sent


def test_id_and_secret_go_form_encoded_into_the_basic_header(endpoint: Endpoint) -> None:
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


def test_client_secret_post_goes_into_the_form_and_nowhere_else(
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
@given(secret=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_any_client_secret_arrives_unchanged(endpoint: Endpoint, method: str, secret: str) -> None:
    endpoint.asked.clear()
    issuer(endpoint, oauth2_auth_method=method, oauth2_client_secret=secret).fetch()
    (asked,) = endpoint.asked
    assert secret == (basic(asked)[1] if method == "client_secret_basic" else asked.form["client_secret"][0])


def test_a_token_response_may_omit_the_lifetime_and_change_the_scope(endpoint: Endpoint) -> None:
    endpoint.replies = [answers(body=b'{"access_token": "t", "scope": "read", "token_type": "Bearer"}')]
    assert issuer(endpoint).fetch() == Grant("t", None)


def test_a_token_response_may_be_compressed_and_chunked(endpoint: Endpoint) -> None:
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


# What goes wrong


def test_statuses_become_the_projects_errors_and_are_counted(endpoint: Endpoint) -> None:
    before = {status: count(status) for status in ("success", "http_503", "invalid_scope", "invalid_answer")}
    endpoint.replies = [
        answers(),
        answers(503, headers={"Retry-After": "9"}),
        answers(400, json.dumps({"error": "invalid_scope"}).encode()),
        answers(200, b"<html>"),
    ]
    broker = issuer(endpoint)
    broker.fetch()
    with pytest.raises(Throttled) as throttled:
        broker.fetch()
    assert throttled.value.delay == 9
    with pytest.raises(Permanent, match="OAUTH2_SCOPE"):
        broker.fetch()
    with pytest.raises(Transient, match="6 bytes of unknown type"):
        broker.fetch()
    assert {status: count(status) - number for status, number in before.items()} == dict.fromkeys(before, 1.0)


def test_a_redirect_is_not_followed_with_the_secret(endpoint: Endpoint) -> None:
    for status in (301, 302, 303, 307, 308):
        endpoint.replies = [answers(status, headers={"Location": endpoint.url + "/elsewhere"})]
        with pytest.raises(Permanent) as raised:
            issuer(endpoint).fetch()
        assert raised.value.code == "redirect"
    assert [asked.path for asked in endpoint.asked] == ["/oauth2/token"] * 5


def _silent(handler: Handler) -> None:
    """Until the client has gone."""
    handler.connection.recv(1)


def _dribbled_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:  # until the client has gone
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [_silent, _dribbled_body])
def test_a_token_response_must_be_complete_within_the_timeout(endpoint: Endpoint, reply: Any) -> None:
    endpoint.replies = [reply]
    before, began = count("timeout"), time.monotonic()
    with pytest.raises(Transient, match=r"did not answer within 0.3 s \(REQUEST_TIMEOUT\)"):
        issuer(endpoint, request_timeout=0.3).fetch()
    assert time.monotonic() - began < 10
    assert count("timeout") == before + 1


def _cut(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"access_token": "half')
    handler.close_connection = True


def _hang_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def _no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def _false_gzip(handler: Handler) -> None:
    answers(200, b"not gzip", headers={"Content-Encoding": "gzip"})(handler)


@pytest.mark.parametrize("reply", [_cut, _hang_up, _no_http, _false_gzip, answers(200, b" " * 2**19)])
def test_broken_token_responses_are_transient_errors(endpoint: Endpoint, reply: Any) -> None:
    endpoint.replies = [reply]
    with pytest.raises(Transient) as raised:
        issuer(endpoint).fetch()
    assert "127.0.0.1" in str(raised.value)


def test_an_unreachable_endpoint_is_named_with_the_cause() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
        with pytest.raises(Transient) as raised:
            Issuer(configured(url), post=lambda _: None).fetch()
    assert str(raised.value) == "the token endpoint 127.0.0.1 cannot be reached: Connection refused"
    with pytest.raises(Transient, match=r"the token endpoint nowhere.invalid cannot be reached: "):
        Issuer(configured("http://nowhere.invalid/token"), post=lambda _: None).fetch()


def test_an_untrusted_tls_certificate_is_explained_with_the_variable_to_set(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = endpoint.url.replace("http://", "https://")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(Transient, match="check SSL_CERT_FILE"):
        Issuer(configured(url), post=lambda _: None).fetch()
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Transient, match="SSL_CERT_FILE"):
        Issuer(configured(url), post=lambda _: None).fetch()


@pytest.mark.parametrize(
    ("address", "refused"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.3", False), ("fd00::1", False), ("::1", False)],
)
def test_http_is_allowed_in_private_networks_only(address: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolves(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolves)
    if not refused:
        edge._refuse_public_http("http://hydra:4444/oauth2/token")
        return
    with pytest.raises(Permanent, match="https://") as raised:
        edge._refuse_public_http("http://hydra:4444/oauth2/token")
    assert raised.value.code == "insecure_url"
    edge._refuse_public_http("https://hydra:4444/oauth2/token")


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
    assert len(endpoint.asked) == 5, "a secret that is the same is not tried twice"


# The thread


def test_the_outcome_of_a_request_is_posted_to_the_loop(endpoint: Endpoint) -> None:
    events: queue.Queue[Any] = queue.Queue()
    broker = Issuer(configured(endpoint.url), post=events.put, reread=_no_rotation)
    broker.start_request(RequestToken(7))
    assert events.get(timeout=30) == TokenIssued(7, "granted", 60)
    endpoint.replies = [answers(500)]
    broker.start_request(RequestToken(8))
    refused = events.get(timeout=30)
    assert isinstance(refused, TokenRequestFailed)
    assert refused.number == 8


def test_a_bug_on_the_request_thread_is_posted_to_the_loop_as_a_failure(
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


def test_neither_secret_nor_token_is_logged_or_in_an_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told = b'{"error": "invalid_request", "error_description": "canary"}'
    replies = [
        answers(200, b'{"access_token": "canary-token", "expires_in": 5}'),
        answers(200, b'{"access_token": ["canary-token"]}'),
        answers(400, told),
        answers(500, told),
        _hang_up,
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
