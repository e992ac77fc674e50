"""The token broker as a process, between a real endpoint and a client's real inbox."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.messages import Token, TokenRequest, decode
from common.sockets import Sockets
from common.wiring import Wiring
from tests.token_broker.endpoint import answers, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the sockets' paths."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def start(folder: Path, token_url: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "API_BASE_URL": "http://api.invalid",
        "OAUTH2_CLIENT_ID": "client",
        "OAUTH2_CLIENT_SECRET": "canary-secret",
        "OAUTH2_TOKEN_URL": token_url,
        "PROCESSING_MODE": "mock",
        "STATE_DIR": str(folder),
        "LOG_LEVEL": "DEBUG",
    }
    log = (folder / "log").open("ab")
    with log:
        command = [sys.executable, "-m", "stages.token_broker"]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def receive(inbox: Sockets, seconds: float = 5.0) -> Token:
    deadline = time.monotonic() + seconds
    while (frame := inbox.receive()) is None:
        assert time.monotonic() < deadline, "no token came"
        inbox.flush()
        time.sleep(0.01)
    message = decode(frame[1])
    assert isinstance(message, Token)
    return message


def granting(token: str, life: int) -> bytes:
    return f'{{"access_token": "{token}", "expires_in": {life}}}'.encode()


def test_it_may_be_killed_at_any_moment(folder: Path) -> None:
    inbox = Sockets(Wiring(folder / "run", "publisher"))
    with serving() as endpoint:
        endpoint.replies = [answers(body=granting(f"canary-{n}", 3600)) for n in range(10)]
        broker = start(folder, endpoint.url)
        first = receive(inbox)
        assert first.access_token == "canary-0"
        broker.kill()
        broker.wait()
        again = start(folder, endpoint.url)
        assert receive(inbox).access_token == "canary-1", "a new broker fetches one at once"
        inbox.send("token_broker", TokenRequest(inbox.wiring.inbox, rejected=first.fingerprint))
        deadline = time.monotonic() + 5
        while (frame := inbox.receive()) is None:
            assert time.monotonic() < deadline, "no answer"
            inbox.send("token_broker", TokenRequest(inbox.wiring.inbox, rejected=first.fingerprint))
            time.sleep(0.02)
        answered = decode(frame[1])
        assert isinstance(answered, Token)
        assert answered.access_token == "canary-1", "what is not current any more is not replaced"
        again.terminate()
        assert again.wait(5) == 0
    inbox.close()
    log = (folder / "log").read_text()
    assert first.fingerprint in log
    assert "canary" not in log
