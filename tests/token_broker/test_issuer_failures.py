"""The edge to the token endpoint, over real HTTP: responses and connections that are not usable."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from common.failures.errors import Permanent, Throttled, Transient
from stages.token_broker import issuer as edge
from stages.token_broker.issuer import Issuer
from tests.token_broker.endpoint import Endpoint, Handler, answers
from tests.token_broker.issuing import configured, count, hang_up, issuer

pytestmark = pytest.mark.usefixtures("environment")

# What goes wrong


def test_each_status_becomes_an_error_of_the_project_and_is_counted(endpoint: Endpoint) -> None:
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


def test_a_redirect_is_not_followed(endpoint: Endpoint) -> None:
    for status in (301, 302, 303, 307, 308):
        endpoint.replies = [answers(status, headers={"Location": endpoint.url + "/elsewhere"})]
        with pytest.raises(Permanent) as raised:
            issuer(endpoint).fetch()
        assert raised.value.code == "redirect"
    assert [asked.path for asked in endpoint.asked] == ["/oauth2/token"] * 5


def _silent(handler: Handler) -> None:
    """Send nothing until the client disconnects."""
    handler.connection.recv(1)


def _dribbled_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:  # until the client disconnects
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [_silent, _dribbled_body])
def test_the_timeout_limits_the_whole_response(endpoint: Endpoint, reply: Any) -> None:
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


def _no_http(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def _false_gzip(handler: Handler) -> None:
    answers(200, b"not gzip", headers={"Content-Encoding": "gzip"})(handler)


@pytest.mark.parametrize("reply", [_cut, hang_up, _no_http, _false_gzip, answers(200, b" " * 2**19)])
def test_a_broken_response_is_a_transient_error(endpoint: Endpoint, reply: Any) -> None:
    endpoint.replies = [reply]
    with pytest.raises(Transient) as raised:
        issuer(endpoint).fetch()
    assert "127.0.0.1" in str(raised.value)


def test_the_error_for_an_unreachable_endpoint_names_it_and_the_cause() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
        with pytest.raises(Transient) as raised:
            Issuer(configured(url), post=lambda _: None).fetch()
    assert str(raised.value) == "the token endpoint 127.0.0.1 cannot be reached: Connection refused"
    with pytest.raises(Transient, match=r"the token endpoint nowhere.invalid cannot be reached: "):
        Issuer(configured("http://nowhere.invalid/token"), post=lambda _: None).fetch()


def test_the_error_for_an_untrusted_certificate_names_the_variable(
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
