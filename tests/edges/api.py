"""The two edges to the API, as the fetcher and the publisher have them, without their processes."""

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
from stages.publisher.actions import Patch
from stages.publisher.delivery import Delivery
from tests import samples

PATIENCE = 20.0
"""Seconds for all PATCHes of one call to end."""


def new_token(sandbox: Sandbox) -> Token:
    """An access token that the sandbox's API takes."""
    auth = (quote_plus(sandbox.client_id), quote_plus(sandbox.client_secret))
    answer = requests.post(sandbox.token_url, {"grant_type": "client_credentials"}, auth=auth, timeout=30)
    return Token(answer.json()["access_token"], time.time() + 3600, "fingerprint")


class Api:
    """`get` as the fetcher does, `patch` as the publisher does."""

    def __init__(self, url: str, token: Token, dimensions: int = 3, **changes: Any) -> None:
        self.settings = config = samples.settings(**{"api_base_url": url, "request_timeout": 5, **changes})
        self.token = token
        self._vector = np.full(dimensions, 0.1234567, "<f4").tobytes()
        self._answers: list[ApiResponse] = []
        self._wake: Callable[[], None] = lambda: None
        self._descriptor = -1
        self._upstream = Upstream(config, Reader(task_types.registered()), lambda *_: None)
        self._delivery = Delivery(config, self._stored, self._posted, self._watch)

    def get(self, limit: int = 100) -> PendingPage | PollFailed:
        """Poll once."""
        return self._upstream.fetch(self.poll(limit))

    def poll(self, limit: int = 100) -> Poll:
        """What the fetcher's state asks for."""
        return Poll(limit, limit, frozenset(), frozenset(), self.token)

    def patch(self, ids: Iterable[str]) -> list[ApiResponse]:
        """PATCH one result for each id, all at a time; the answers in the order of the ids."""
        wanted = list(ids)
        self._answers = []
        for task_id in wanted:
            self._delivery.patch(Patch(task_id, self.token))
        deadline = time.monotonic() + PATIENCE
        while len(self._answers) < len(wanted):
            select.select([self._descriptor], [], [], 0.02)
            self._wake()
            self._delivery.tick()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._answers)} of {len(wanted)} PATCHes have ended")
        by_id = {answer.task_id: answer for answer in self._answers}
        return [by_id[task_id] for task_id in wanted]

    def patch_one(self, task_id: str) -> ApiResponse:
        """PATCH one result."""
        (answer,) = self.patch([task_id])
        return answer

    def patch_unticked(self, task_id: str) -> ApiResponse:
        """PATCH one result, and wake for its socket alone; fails the test if that does not bring the answer."""
        self._answers = []
        self._delivery.patch(Patch(task_id, self.token))
        while not self._answers:
            assert select.select([self._descriptor], [], [], PATIENCE)[0], "nothing more comes, and no answer is told"
            self._wake()
        return self._answers[0]

    def close(self) -> None:
        """Close all connections."""
        self._upstream.close()
        self._delivery.close()

    def _stored(self, task_id: str) -> Result:
        return Result(task_id, "text_embedding", 0.0, self._vector)

    def _posted(self, event: ApiResponses) -> None:
        self._answers += event.answers

    def _watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._descriptor, self._wake = descriptor, ready


@contextlib.contextmanager
def api(url: str, token: Token, **changes: Any) -> Iterator[Api]:
    """Edges to the API at this address; `changes` are settings, and `dimensions` of the results."""
    edges = Api(url, token, **changes)
    try:
        yield edges
    finally:
        edges.close()


def page(found: PendingPage | PollFailed) -> PendingPage:
    """The page; fails the test if there is none."""
    assert isinstance(found, PendingPage), found
    return found


def failure(found: PendingPage | PollFailed) -> PollFailed:
    """Why there is no page; fails the test if there is one."""
    assert isinstance(found, PollFailed), found
    return found
