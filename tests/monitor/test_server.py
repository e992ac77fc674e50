"""The HTTP server over real sockets, with normal, slow and malformed clients."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from common.failures.errors import Fatal
from stages.monitor.pages import HttpResponse, page
from stages.monitor.server import LARGEST_CONNECTION_COUNT, PageServer
from tests.waiting import wait_until

SECONDS = 1.0
"""How long a connection may last in these tests."""


def _answer(target: str) -> HttpResponse:
    return page(200 if target == "/health" else 404, {"target": target})


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    server = PageServer(0, _answer, connection_limit_s=SECONDS)
    server.start()
    yield server
    server.stop()


def request(server: PageServer, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body)
    return connection.getresponse()


def send(server: PageServer, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(data)
    return client


def test_get_and_head_are_answered_with_the_page(server: PageServer) -> None:
    response = request(server, "GET", "/health")
    assert (response.status, json.loads(response.read())) == (200, {"target": "/health"})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["server"] == "ai-task-processor"
    head = request(server, "HEAD", "/health")
    assert (head.status, head.read()) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]
    assert request(server, "GET", "/nothing").status == 404


def test_the_server_listens_on_ipv6_too(server: PageServer) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this host has no IPv6")
    connection = http.client.HTTPConnection("::1", server.port, timeout=30)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_methods_other_than_get_and_head_are_refused_with_405(server: PageServer, method: str) -> None:
    response = request(server, method, "/health", b"x" * 50_000 if method == "POST" else None)
    assert (response.status, json.loads(response.read())) == (405, {"error": "method not allowed"})
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /health HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"POST /health HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"405"),
    ],
)
def test_a_malformed_request_is_refused_in_json(server: PageServer, data: bytes, status: bytes) -> None:
    with send(server, data) as client:
        received = b""
        while chunk := client.recv(65_536):
            received += chunk
    assert status in received
    assert b'{"error":' in received
    assert request(server, "GET", "/health").status == 200


def _dribble(client: socket.socket, until: float) -> None:
    while time.monotonic() < until:
        client.sendall(b"X: y\r\n")
        time.sleep(0.02)


def test_slow_clients_do_not_delay_other_clients() -> None:
    server = PageServer(0, _answer, connection_limit_s=60.0)
    server.start()
    silent = [send(server, b"GET /hea") for _ in range(20)]
    assert request(server, "GET", "/health").status == 200  # well before their time is over
    for client in silent:
        client.close()
    server.stop()


def test_slow_clients_are_cut_off(server: PageServer) -> None:
    before = threading.active_count()
    silent = [send(server, b"GET /hea") for _ in range(20)]
    dribbling = send(server, b"GET /health HTTP/1.1\r\n")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        _dribble(dribbling, until=time.monotonic() + 30)
    assert silent[0].recv(100) in {b"", b"HTTP"}
    wait_until(lambda: threading.active_count() <= before)
    for client in (*silent, dribbling):
        client.close()


def test_a_client_that_does_not_read_is_cut_off() -> None:
    large = HttpResponse(200, "text/plain", b"x" * 50_000_000)
    server = PageServer(0, lambda _: large, connection_limit_s=SECONDS)
    server.start()
    before = threading.active_count()
    with send(server, b"GET /metrics HTTP/1.1\r\n\r\n"):
        wait_until(lambda: threading.active_count() > before)
        wait_until(lambda: threading.active_count() <= before)
    server.stop()


def test_the_oldest_connection_is_closed_when_there_are_too_many(server: PageServer) -> None:
    before = threading.active_count()
    clients = [send(server, b"GET /") for _ in range(LARGEST_CONNECTION_COUNT + 10)]
    assert request(server, "GET", "/health").status == 200
    assert clients[0].recv(100) == b""
    wait_until(lambda: threading.active_count() <= before + LARGEST_CONNECTION_COUNT)
    for client in clients:
        client.close()
    wait_until(lambda: threading.active_count() <= before)


def test_the_error_for_a_port_in_use_names_the_variable(server: PageServer) -> None:
    with pytest.raises(Fatal) as raised:
        PageServer(server.port, _answer)
    reason = "Address already in use; free it or set METRICS_PORT to another"
    assert str(raised.value) == f"METRICS_PORT: port {server.port} cannot be used: {reason}"


def test_an_exception_in_a_page_is_logged_and_the_server_continues(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(target: str) -> HttpResponse:
        return page(200, {"ok": 1 / (target != "/bug")})

    server = PageServer(0, broken)
    server.start()
    with pytest.raises(http.client.HTTPException):
        request(server, "GET", "/bug")
    assert request(server, "GET", "/health").status == 200
    server.stop()
    assert "page_failed" in capsys.readouterr().out
