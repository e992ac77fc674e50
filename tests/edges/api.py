"""The two edges to the API, those of the fetcher and the publisher, without their processes."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import requests

from common import task_types
from common.api.responses import ApiResponse, ApiResponses
from common.wire.messages import Result, Token
from sandbox.client import Sandbox
from stages.fetcher.actions import Poll, PollFailed
from stages.fetcher.page import PendingPage, Reader
from stages.fetcher.upstream import Upstream
from stages.publisher.actions import SendPatch
from stages.publisher.delivery import Delivery
from tests import samples

TIMEOUT_S = 20.0
"""All PATCHes of one call must end within this time."""


def new_token(sandbox: Sandbox) -> Token:
    """An access token that the API of the sandbox accepts."""
    auth = (quote_plus(sandbox.client_id), quote_plus(sandbox.client_secret))
    response = requests.post(sandbox.token_url, {"grant_type": "client_credentials"}, auth=auth, timeout=30)
    return Token(response.json()["access_token"], time.time() + 3600, "fingerprint")


class Api:
    """Polls like the fetcher (`get`), and PATCHes like the publisher (`patch`)."""

    def __init__(self, url: str, token: Token, dimensions: int = 3, **changes: Any) -> None:
        self.settings = config = samples.settings(**{"api_base_url": url, "request_timeout": 5, **changes})
        self.token = token
        self._vector = np.full(dimensions, 0.1234567, "<f4").tobytes()
        self._responses: list[ApiResponse] = []
        self._wake: Callable[[], None] = lambda: None
        self._descriptor = -1
        self._upstream = Upstream(config, Reader(task_types.registered()), lambda *_: None)
        self._delivery = Delivery(config, self._stored, self._on_responses, self._watch)

    def get(self, limit: int = 100) -> PendingPage | PollFailed:
        """Poll once."""
        return self._upstream.fetch(self.poll(limit))

    def poll(self, limit: int = 100) -> Poll:
        """The action with which the state of the fetcher asks for a poll."""
        return Poll(limit, limit, frozenset(), frozenset(), self.token)

    def patch(self, ids: Iterable[str]) -> list[ApiResponse]:
        """PATCH one result for each id, all at once; returns the responses in the order of the ids."""
        wanted = list(ids)
        self._responses = []
        for task_id in wanted:
            self._delivery.patch(SendPatch(task_id, self.token))
        deadline = time.monotonic() + TIMEOUT_S
        while len(self._responses) < len(wanted):
            select.select([self._descriptor], [], [], 0.02)
            self._wake()
            self._delivery.tick()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._responses)} of {len(wanted)} PATCHes have ended")
        by_id = {response.task_id: response for response in self._responses}
        return [by_id[task_id] for task_id in wanted]

    def patch_one(self, task_id: str) -> ApiResponse:
        """PATCH one result."""
        (response,) = self.patch([task_id])
        return response

    def patch_without_ticks(self, task_id: str) -> ApiResponse:
        """PATCH one result, and wake only for its socket, never for a tick; fails if no response comes."""
        self._responses = []
        self._delivery.patch(SendPatch(task_id, self.token))
        while not self._responses:
            assert select.select([self._descriptor], [], [], TIMEOUT_S)[0], "no response was reported"
            self._wake()
        return self._responses[0]

    def close(self) -> None:
        """Close all connections."""
        self._upstream.close()
        self._delivery.close()

    def _stored(self, task_id: str) -> Result:
        return Result(task_id, "text_embedding", 0.0, self._vector)

    def _on_responses(self, event: ApiResponses) -> None:
        self._responses += event.responses

    def _watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._descriptor, self._wake = descriptor, ready


@contextlib.contextmanager
def api(url: str, token: Token, **changes: Any) -> Iterator[Api]:
    """The edges to the API at this address; `changes` are settings, or the `dimensions` of the results."""
    edges = Api(url, token, **changes)
    try:
        yield edges
    finally:
        edges.close()


def page(found: PendingPage | PollFailed) -> PendingPage:
    """The page; fails the test if the poll failed."""
    assert isinstance(found, PendingPage), found
    return found


def failure(found: PendingPage | PollFailed) -> PollFailed:
    """Why the poll failed; fails the test if it succeeded."""
    assert isinstance(found, PollFailed), found
    return found
