"""A loop on real sockets with peers around it, for the tests of the loop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from structlog.testing import capture_logs

from common.process import metrics
from common.process.actions import Instant
from common.process.loop import Loop, Plan
from common.wire import messages as m
from common.wire.wiring import Wiring

TIMEOUT_S = 30.0


class Write(NamedTuple):
    """An action that is written in the turn's transaction."""

    key: bytes


class Effect(NamedTuple):
    """An action that leaves the process."""

    what: str


class Poked(NamedTuple):
    """An event from a thread."""

    what: str = ""


class Peer:
    """Another process: it pushes frames into the loop's inbox, and reads what comes to its own."""

    def __init__(self, sockets: Path, name: str, inbox: str) -> None:
        self.context = zmq.Context()
        self.name = name.encode()
        self.inbox = self.context.socket(zmq.PULL)
        self.inbox.bind(f"ipc://{sockets / name}.sock")
        self.push = self.context.socket(zmq.PUSH)
        self.push.connect(inbox)

    def send(self, *messages: m.Message) -> None:
        for message in messages:
            self.push.send_multipart((self.name, m.encode(message)))

    def send_bytes(self, payload: bytes) -> None:
        self.push.send_multipart((self.name, payload))

    def heard(self) -> list[Any]:
        """The messages that have arrived; waits up to a second for the first."""
        found: list[Any] = []
        while self.inbox.poll(1000 if not found else 50):
            found.append(m.decode(self.inbox.recv_multipart()[1]))
        return found

    def close(self) -> None:
        self.context.destroy(linger=0)


class Bench:
    """A loop as in the publisher, the fetcher and the monitor as its peers, and what its handlers received."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop(Wiring(folder, "publisher"))
        self.fetcher = Peer(folder, "fetcher", self.loop.wiring.inbox)
        self.monitor = Peer(folder, "monitor", self.loop.wiring.inbox)
        self.told: list[Any] = []
        self.log: list[Any] = []

    def tell(self, message: Any, _: Instant) -> Iterable[Any]:
        self.told.append(message)
        return ()

    def run(self, until: Callable[[], bool], **plan: Any) -> None:
        """Run the loop, and send SIGTERM to this process as soon as `until` holds."""
        handlers = {m.Results: self.tell, Poked: self.tell, **plan.pop("handlers", {})}
        tick = plan.pop("tick", lambda _: ())
        gives_up = time.monotonic() + TIMEOUT_S
        asked = False

        def ticking(now: Instant) -> Iterator[Any]:
            nonlocal asked
            yield from tick(now)
            if not asked and (until() or now.mono > gives_up):
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)

        with capture_logs() as self.log:
            self.loop.run(Plan(handlers=handlers, tick=ticking, **plan))
        assert until(), "gave up waiting"

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.log if entry["event"] == event]


def results(name: str) -> m.Results:
    return m.Results(name, "", [])


def undecodable() -> float:
    return metrics.REGISTRY.get_sample_value("messages_undecodable_total", {"sender": "fetcher"}) or 0.0


# ---- what comes in ----
