"""The two edges to the API, and a listener that accepts no connection."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from common.wire.messages import Token
from sandbox.client import Sandbox
from tests.edges.api import Api, api, new_token


@pytest.fixture
def token(sandbox: Sandbox) -> Token:
    return new_token(sandbox)


@pytest.fixture
def edges(sandbox: Sandbox, token: Token) -> Iterator[Api]:
    with api(sandbox.api, token) as made:
        yield made


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """The address of a listener whose backlog is full, so that it completes no handshake."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
