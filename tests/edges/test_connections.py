"""How both edges handle connections that break, stall, are slow, or were closed meanwhile."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import pytest

from common.failures.errors import Transient
from common.wire.messages import Token
from sandbox.client import Sandbox
from sandbox.pipeline import free_port
from stages.fetcher.actions import PollFailed
from stages.fetcher.page import Reader
from stages.fetcher.upstream import Upstream
from tests.edges.api import Api, api, failure, page

BROKEN: list[dict[str, Any]] = [
    {"drop": "before"},
    {"drop": "before", "reset": True},
    {"drop": "after"},
    {"drop": "after", "reset": True},
    {"cut": 5},
    {"cut": 60},
    {"cut": 60, "reset": True},
    {"framing": "chunked_close"},
]
SLOW: list[dict[str, Any]] = [{"delay": 60}, {"dribble": 5}]
SOON_S = 10.0
"""Longer than the timeout even on a busy machine, and much shorter than the response takes."""


@pytest.mark.parametrize("fault", BROKEN, ids=str)
def test_a_broken_response_is_an_error_and_the_next_request_succeeds(
    sandbox: Sandbox, edges: Api, fault: dict[str, Any]
) -> None:
    ids = sandbox.queue(3)
    number = sandbox.fault("api", **fault)
    response = edges.patch_one(ids[0])
    assert response.status == 0
    assert response.error == "PATCH /api/ai-tasks/:id: the connection broke before the response was complete"
    assert "the connection broke" in str(failure(edges.get()).error)
    sandbox.clear_faults(number)
    assert [response.status for response in edges.patch(ids)] == [200] * 3
    page(edges.get())


def test_a_response_that_ends_with_the_connection_is_complete(sandbox: Sandbox, edges: Api) -> None:
    (task_id,) = sandbox.queue(1)
    sandbox.fault("api", framing="until_close")
    assert len(page(edges.get()).candidates) == 1
    assert edges.patch_one(task_id).status == 200


@pytest.mark.parametrize("fault", SLOW, ids=str)
def test_request_timeout_limits_the_whole_response(sandbox: Sandbox, token: Token, fault: dict[str, Any]) -> None:
    (task_id, *_) = sandbox.queue(20)
    sandbox.fault("api", **fault)
    with api(sandbox.api, token, request_timeout=0.5) as edges:
        began = time.monotonic()
        assert "no complete response within REQUEST_TIMEOUT (0.5 s)" in edges.patch_one(task_id).error
        half = time.monotonic()
        assert "no complete response within REQUEST_TIMEOUT (0.5 s)" in str(failure(edges.get()).error)
        assert 0.4 < half - began < SOON_S
        assert 0.4 < time.monotonic() - half < SOON_S


def test_request_timeout_limits_connecting_too(token: Token, full_backlog: str) -> None:
    with api(full_backlog, token, request_timeout=0.4) as edges:
        began = time.monotonic()
        assert "REQUEST_TIMEOUT" in edges.patch_one("a").error
        assert "REQUEST_TIMEOUT" in str(failure(edges.get()).error)
        assert time.monotonic() - began < SOON_S


def test_an_unreachable_server_is_an_error_with_its_reason(token: Token) -> None:
    with api(f"http://127.0.0.1:{free_port()}", token) as edges:
        assert "the connection failed" in edges.patch_one("a").error
        assert isinstance(failure(edges.get()).error, Transient)
    with api("http://no-such-host.invalid", token) as edges:
        assert "cannot be resolved" in edges.patch_one("a").error
        assert "cannot be resolved" in str(failure(edges.get()).error)


def test_a_connection_closed_by_the_server_costs_no_request(sandbox: Sandbox, edges: Api) -> None:
    """Connections idle exactly as long as the server allows, so that it closes them while requests are sent."""
    sandbox.settings(api={"keep_alive_seconds": 0.1})
    ids = sandbox.queue(16)
    statuses: list[int] = []
    for number in range(40):
        statuses += [response.status for response in edges.patch(ids)]
        page(edges.get(1))
        wake_at = time.perf_counter() + 0.0985 + number % 8 * 0.0005
        while time.perf_counter() < wake_at:
            pass  # a sleep is not precise to a tenth of a millisecond
    assert statuses == [200] * len(statuses)
    opened = sandbox.summary()["api"]["connections_opened"]
    assert opened > 100

    sandbox.settings(api={"keep_alive_seconds": 60})
    for _ in range(20):
        edges.patch(ids)  # requests that had to be repeated do not open new connections for ever
    assert sandbox.summary()["api"]["connections_opened"] <= opened + 16


def test_connections_are_reused(sandbox: Sandbox, edges: Api) -> None:
    ids = sandbox.queue(10)
    for _ in range(20):
        edges.patch(ids)
        page(edges.get(1))
    assert sandbox.summary()["api"]["connections_opened"] <= 11


def test_an_immediate_response_does_not_wait_for_a_tick(sandbox: Sandbox, edges: Api) -> None:
    """libcurl may have read the response when the PATCH call returns; then its socket reports nothing more."""
    ids = sandbox.queue(1)
    for _ in range(300):
        assert edges.patch_without_ticks(ids[0]).status == 200


def test_a_server_is_used_again_after_an_outage(sandbox: Sandbox, edges: Api) -> None:
    ids = sandbox.queue(16)
    for _ in range(3):
        assert [response.status for response in edges.patch(ids)] == [200] * 16
        sandbox.down("api")
        assert {response.status for response in edges.patch(ids)} == {0}
        failure(edges.get())
        sandbox.up("api")
        page(edges.get())


def test_a_poll_under_way_does_not_keep_the_fetcher_from_stopping(sandbox: Sandbox, token: Token) -> None:
    sandbox.fault("api", path="pending", delay=60)
    before = sandbox.summary()["api"]["requests"]
    polled: list[Future[Any]] = []
    with api(sandbox.api, token, request_timeout=60) as edges:
        upstream = Upstream(edges.settings, Reader({}), lambda pool, *call: polled.append(pool.submit(*call)))
        upstream.poll(edges.poll())
        sandbox.wait_until(lambda summary: summary["api"]["requests"] > before)
        began = time.monotonic()
        upstream.close()
        assert isinstance(polled[0].result(), PollFailed)
        assert time.monotonic() - began < SOON_S
