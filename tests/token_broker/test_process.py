"""The token broker as a process, between a real endpoint and a client's real inbox."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from common.wire.messages import Token, TokenRequest, decode
from common.wire.sockets import Sockets
from common.wire.wiring import Wiring
from tests.processes import start_module
from tests.token_broker.endpoint import answers, serving
from tests.waiting import wait_until


def start(folder: Path, token_url: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return start_module("stages.token_broker", folder, log, OAUTH2_TOKEN_URL=token_url, LOG_LEVEL="DEBUG")


def receive(inbox: Sockets, meanwhile: Callable[[], object]) -> Token:
    """The next token; `meanwhile` is called until it is received."""
    found: list[Token] = []

    def came() -> bool:
        meanwhile()
        if (frame := inbox.receive()) is not None:
            message = decode(frame[1])
            assert isinstance(message, Token)
            found.append(message)
        return bool(found)

    wait_until(came, what="a token")
    return found[0]


def granting(token: str, life: int) -> bytes:
    return f'{{"access_token": "{token}", "expires_in": {life}}}'.encode()


def test_a_restarted_broker_requests_a_token_at_once_and_keeps_it(folder: Path) -> None:
    inbox = Sockets(Wiring(folder / "run", "publisher"))
    with serving() as endpoint:
        endpoint.replies = [answers(body=granting(f"canary-{n}", 3600)) for n in range(10)]
        broker = start(folder, endpoint.url)
        first = receive(inbox, inbox.flush)
        assert first.access_token == "canary-0"
        broker.kill()
        broker.wait()
        again = start(folder, endpoint.url)
        assert receive(inbox, inbox.flush).access_token == "canary-1", "a new broker fetches one at once"
        rejecting = TokenRequest(inbox.wiring.inbox, rejected=first.fingerprint)
        answered = receive(inbox, lambda: inbox.send("token_broker", rejecting))
        assert answered.access_token == "canary-1", "a token that is no longer current is not replaced"
        again.terminate()
        assert again.wait(30) == 0
    inbox.close()
    log = (folder / "log").read_text()
    assert first.fingerprint in log
    assert "canary" not in log
