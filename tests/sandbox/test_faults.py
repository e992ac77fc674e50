"""Faults, each seen by a client."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from sandbox.client import Sandbox, SandboxError

RESULT = {"state": "succeeded", "result": [1, 2, 3]}


def patch(sandbox: Sandbox, session: requests.Session, task_id: str) -> requests.Response:
    return session.patch(f"{sandbox.api}/api/ai-tasks/{task_id}", json=RESULT)


def last_patch(sandbox: Sandbox, task_id: str) -> tuple[bool, int]:
    entry = sandbox.task(task_id)["patches"][-1]
    return entry["accepted"], entry["status"]


@contextmanager
def in_background(session: requests.Session, method: str, url: str, **options: Any) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(session.request, method, url, **options)


def raw_tags(sandbox: Sandbox) -> bytes:
    """All bytes received for one GET, until the server closes the connection."""
    address = urlsplit(sandbox.ollama)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"GET /api/tags HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def test_a_fault_can_replace_the_response_by_a_status(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", method="PATCH", status=503, headers={"Retry-After": "7"}, body="busy", times=1)
    response = patch(sandbox, signed_in, task_id)
    assert (response.status_code, response.text, response.headers["retry-after"]) == (503, "busy", "7")
    assert last_patch(sandbox, task_id) == (False, 503)
    assert patch(sandbox, signed_in, task_id).status_code == 200


def test_a_fault_can_apply_to_each_nth_request(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", method="PATCH", status=403, skip=1, every=3, times=2)
    statuses = [patch(sandbox, signed_in, task_id).status_code for _ in range(12)]
    assert statuses == [200, 200, 200, 403, 200, 200, 403, 200, 200, 200, 200, 200]


def test_a_fault_can_respond_with_html_and_status_200(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("api", path="pending", status=200, body="<html>maintenance</html>")
    response = session.get(f"{sandbox.api}/api/ai-tasks/pending")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_a_fault_can_store_a_patch_and_respond_with_an_error(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", method="PATCH", status=500, stored=True)
    assert patch(sandbox, signed_in, task_id).status_code == 500
    assert last_patch(sandbox, task_id) == (True, 500)
    assert sandbox.task(task_id)["state"] == "succeeded"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_can_drop_the_connection_before_or_after_the_request_is_carried_out(
    sandbox: Sandbox, signed_in: requests.Session, when: str, reset: bool
) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", method="PATCH", drop=when, reset=reset)
    with pytest.raises(requests.ConnectionError) as raised:
        patch(sandbox, signed_in, task_id)
    assert ("reset by peer" in str(raised.value)) is reset
    assert last_patch(sandbox, task_id) == (when == "after", 0)
    assert sandbox.summary()["api"]["statuses"]["0"] == 1


def test_a_fault_can_cut_a_response(sandbox: Sandbox) -> None:
    sandbox.fault("ollama", cut=24)
    assert raw_tags(sandbox) == b"HTTP/1.1 200 OK\r\nContent"


def test_a_fault_can_change_the_framing_of_a_response(sandbox: Sandbox, session: requests.Session) -> None:
    expected = session.get(f"{sandbox.ollama}/api/tags").json()
    for framing in ("chunked", "until_close"):
        number = sandbox.fault("ollama", framing=framing)
        response = session.get(f"{sandbox.ollama}/api/tags")
        assert response.json() == expected
        assert "content-length" not in response.headers
        sandbox.clear_faults(number)
    sandbox.fault("ollama", framing="chunked_close")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        session.get(f"{sandbox.ollama}/api/tags")


def test_a_fault_can_send_a_response_slowly(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("ollama", dribble=1000)
    started = time.monotonic()
    response = session.get(f"{sandbox.ollama}/api/tags")
    assert response.json()["models"]
    assert time.monotonic() - started > 0.15  # some 200 bytes


def test_a_fault_can_delay_a_request(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.fault("openai", delay=0.5, body_contains="slow")
    body = {"model": "text-embedding-3-small", "input": "slow"}
    options = {"json": body, "headers": {"Authorization": "Bearer k"}}
    started = time.monotonic()
    with in_background(session, "POST", f"{sandbox.openai}/embeddings", **options) as response:
        assert sandbox.wait_until(lambda summary: summary["openai"]["under_way"] == 1)["openai"]["paid"] == 0
        assert response.result().status_code == 200
    assert time.monotonic() - started >= 0.5
    assert sandbox.summary()["openai"]["paid"] == 1


def test_a_request_is_not_charged_if_its_caller_has_disconnected(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(openai={"latency_seconds": 0.5})
    body = {"model": "text-embedding-3-small", "input": "x"}
    session.headers["Authorization"] = "Bearer k"
    with pytest.raises(requests.ReadTimeout):
        session.post(f"{sandbox.openai}/embeddings", json=body, timeout=(30, 0.02))
    summary = sandbox.wait_until(lambda summary: summary["openai"]["abandoned"] == 1)["openai"]
    assert (summary["paid"], summary["under_way"], summary["under_way_max"]) == (0, 0, 1)


def test_a_held_response_is_sent_on_release(sandbox: Sandbox, signed_in: requests.Session) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", method="PATCH", hold=True, times=1)
    with in_background(signed_in, "PATCH", f"{sandbox.api}/api/ai-tasks/{task_id}", json=RESULT) as response:
        sandbox.wait_until(lambda summary: summary["api"]["held"] == 1)
        assert sandbox.task(task_id)["state"] == "succeeded"
        assert not response.done()
        assert sandbox.release("api") == 1
        assert response.result().status_code == 200
    assert sandbox.summary()["api"]["held"] == 0


def test_a_fault_applies_only_to_the_requests_that_it_selects(sandbox: Sandbox, session: requests.Session) -> None:
    url = f"{sandbox.ollama}/api/tags"
    number = sandbox.fault("ollama", method="GET", path="/tags$", status=503, skip=1, times=2)
    assert [session.get(url).status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    assert session.get(f"{sandbox.ollama}/").status_code == 200
    (fault,) = sandbox.faults()
    assert (fault["number"], fault["matched"], fault["applied"]) == (number, 5, 2)


def test_the_same_seed_selects_the_same_requests(sandbox: Sandbox, session: requests.Session) -> None:
    runs = []
    for _ in range(2):
        sandbox.clear_faults()
        sandbox.fault("ollama", status=503, probability=0.5, seed=7)
        runs.append([session.get(f"{sandbox.ollama}/api/tags").status_code for _ in range(60)])
    assert runs[0] == runs[1]
    assert 15 < runs[0].count(503) < 45


@pytest.mark.parametrize(
    ("service", "fields", "words"),
    [
        ("api", {}, "one effect"),
        ("api", {"status": 500, "drop": "before"}, "one effect"),
        ("api", {"transform": "nan"}, "no transform"),
        ("ollama", {"transform": "shuffled"}, "no transform"),
        ("api", {"delay": 1, "colour": "red"}, "colour"),
        ("api", {"delay": 1, "path": "("}, "regular expression"),
        ("nest", {"delay": 1}, "nest"),
    ],
)
def test_an_invalid_fault_is_rejected_with_the_reason(
    sandbox: Sandbox, service: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(SandboxError, match=words):
        sandbox.fault(service, **fields)
    assert sandbox.faults() == []


def test_down_refuses_connections_and_up_listens_again(sandbox: Sandbox, signed_in: requests.Session) -> None:
    url = f"{sandbox.api}/api/ai-tasks/pending"
    assert signed_in.get(url).status_code == 200
    sandbox.down("api")
    with pytest.raises(requests.ConnectionError):
        signed_in.get(url)
    with pytest.raises(requests.ConnectionError, match="refused"):
        signed_in.get(url)
    sandbox.up("api")
    assert signed_in.get(url).status_code == 200


def test_an_idle_connection_is_closed(sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection(urlsplit(sandbox.api).netloc, timeout=30)
    connection.request("GET", "/api/ai-tasks/pending")
    response = connection.getresponse()
    assert response.headers["Keep-Alive"] == "timeout=5"
    response.read()
    sandbox.settings(api={"keep_alive_seconds": 0.05})
    sandbox.wait_until(lambda summary: summary["api"]["connections"] == 0)
    connection.close()


def test_pipelined_requests_are_answered_in_order(sandbox: Sandbox) -> None:
    sandbox.fault("ollama", path="tags", delay=0.05)
    address = urlsplit(sandbox.ollama)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(
            b"GET /api/tags HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.index(b'"models"') < received.index(b"Ollama is running")


def test_bytes_that_are_not_http_are_answered_with_400(sandbox: Sandbox) -> None:
    address = urlsplit(sandbox.api)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
        assert connection.recv(65536) == b""


def test_the_maximum_of_concurrent_requests_is_counted(sandbox: Sandbox) -> None:
    sandbox.fault("ollama", hold=True)
    threads = [threading.Thread(target=requests.get, args=(f"{sandbox.ollama}/api/tags",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    sandbox.wait_until(lambda summary: summary["ollama"]["held"] == 3)
    sandbox.release()
    for thread in threads:
        thread.join()
    summary = sandbox.summary()["ollama"]
    assert (summary["under_way"], summary["under_way_max"]) == (0, 3)
