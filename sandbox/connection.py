"""HTTP/1.1 connections on asyncio, small and fast, and open to being broken at the byte level.

They are the peer of a benchmark that sends 14,000 PATCHes of 19 kB a second from the other core, so they do only what
their callers need: keep-alive, pipelining (answered in order), `Expect: 100-continue`. No TLS, no gzip.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Any, Protocol, cast

import httptools

from sandbox.http import Answer, Request, render

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Traffic:
    """What went over one service's connections."""

    __slots__ = (
        "bytes_in", "bytes_out", "connections", "connections_opened", "malformed", "requests", "statuses",
        "under_way", "under_way_max",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections: set[Connection] = set()
        self.connections_opened = 0
        self.malformed = 0
        self.requests = 0
        self.statuses: dict[int, int] = {}
        self.under_way = 0
        self.under_way_max = 0

    def enter(self) -> None:
        """A request has arrived."""
        self.requests += 1
        self.under_way += 1
        if self.under_way > self.under_way_max:  # noqa: PLR1730  max() takes three times as long, for every request
            self.under_way_max = self.under_way

    def answered(self, status: int) -> None:
        """Count an answer by its status; 0 means that the connection was closed instead."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def reset(self) -> None:
        """Forget all but what is still open."""
        self.bytes_in = self.bytes_out = self.connections_opened = self.malformed = self.requests = 0
        self.statuses = {}
        self.under_way_max = self.under_way

    def summary(self) -> dict[str, Any]:
        """The counters, for `GET /summary`."""
        return {
            "requests": self.requests,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "under_way": self.under_way,
            "under_way_max": self.under_way_max,
            "connections": len(self.connections),
            "connections_opened": self.connections_opened,
            "malformed": self.malformed,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


class Application(Protocol):
    """What a connection needs to know of its service."""

    traffic: Traffic

    @property
    def keep_alive_seconds(self) -> float:
        """How long a connection may idle before it is closed; 0: for ever."""

    def serve(self, connection: "Connection", request: Request) -> None:
        """Answer now or later, and call the connection's `send` or `done` once."""


class Connection(asyncio.Protocol):
    """One connection: parses requests and hands them to the application, one at a time."""

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop) -> None:
        self._application = application
        self._traffic = application.traffic
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._waiting: deque[Request] = deque()
        self._receiving = False
        self._busy = False
        self._idle_since = loop.time()
        self._idle_check: asyncio.TimerHandle | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to count, and to watch for idling."""
        self._transport = cast("asyncio.Transport", transport)  # it is TCP; uvloop's is no subclass
        self._traffic.connections.add(self)
        self._traffic.connections_opened += 1
        self.check_idle()

    def data_received(self, data: bytes) -> None:
        """Parse; what is not HTTP gets a 400 and an end, as from Node."""
        self._traffic.bytes_in += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours, not of the caller
        except httptools.HttpParserError:
            self._traffic.malformed += 1
            self.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the connection; an exchange that is under way is no longer."""
        self._traffic.connections.discard(self)
        self._waiting.clear()
        if self._busy:
            self._busy = False
            self._traffic.under_way -= 1
        if self._idle_check is not None:
            self._idle_check.cancel()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A new request starts."""
        self._receiving = True
        self._url = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target, in most cases all of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Let the caller send its body, if it waits to be told."""
        if b"expect" in self._headers:
            self.write(_CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """Hand over the request, or keep it until the one before it is answered."""
        self._receiving = False
        parser, pieces = self._parser, self._body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        request = Request(parser.get_method(), self._url, self._headers, body, parser.should_keep_alive())
        if self._busy:
            self._waiting.append(request)
        else:
            self._start(request)

    # Called by the application.

    @property
    def gone(self) -> bool:
        """Whether nobody will read what is written from now on."""
        return self._transport.is_closing()

    def announced_keep_alive(self, request: Request) -> float | None:
        """What the answer's head should say of keep-alive."""
        return self._application.keep_alive_seconds if request.keep_alive else None

    def send(self, request: Request, answer: Answer) -> None:
        """Send a whole answer; the exchange is over."""
        self._traffic.answered(answer.status)
        self.write(render(answer, self._application.keep_alive_seconds if request.keep_alive else None))
        self.done(request)

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        if not self._transport.is_closing():
            self._traffic.bytes_out += len(data)
            self._transport.write(data)

    def done(self, request: Request) -> None:
        """End the exchange; take the next request, if one is waiting."""
        self._idle_since = self._loop.time()
        if self._busy:
            self._busy = False
            self._traffic.under_way -= 1
        if not request.keep_alive:
            self._transport.close()
        elif self._waiting and not self.gone:
            self._start(self._waiting.popleft())

    def close(self, *, reset: bool = False) -> None:
        """Close after what is written; with `reset`, at once and with a TCP RST."""
        if reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def check_idle(self) -> None:
        """Close the connection if it has idled for too long, else look again when it might have."""
        if self._idle_check is not None:
            self._idle_check.cancel()
        allowed = self._application.keep_alive_seconds
        if not allowed or self.gone:
            return
        left = allowed if self._busy or self._receiving else self._idle_since + allowed - self._loop.time()
        if left <= 0:
            self._transport.close()
        else:
            self._idle_check = self._loop.call_later(left, self.check_idle)

    def _start(self, request: Request) -> None:
        self._busy = True
        self._traffic.enter()
        self._application.serve(self, request)
