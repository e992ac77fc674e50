"""HTTP/1.1 connections on asyncio, small and fast, that faults can break at the byte level.

A benchmark sends 14,000 PATCHes of 19 kB a second to them from the other core, so they support only what their clients
need: keep-alive, pipelining (responses in order), `Expect: 100-continue`. No TLS, no gzip.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Any, Protocol, cast

import httptools

from sandbox.http import Request, Response, render

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Traffic:
    """Counts what the connections of one stand-in carried."""

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
        """Count a request that has arrived."""
        self.requests += 1
        self.under_way += 1
        if self.under_way > self.under_way_max:  # noqa: PLR1730  max() takes three times as long, for each request
            self.under_way_max = self.under_way

    def count_response(self, status: int) -> None:
        """Count a response by its status; 0 means that the connection was closed instead."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def reset(self) -> None:
        """Set the counters to zero, except for what is still open."""
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
    """What a connection needs from the stand-in that it belongs to."""

    traffic: Traffic

    @property
    def keep_alive_seconds(self) -> float:
        """Seconds for which a connection may be idle before it is closed; 0: no limit."""

    def serve(self, connection: "Connection", request: Request) -> None:
        """Respond now or later, and call the connection's `send` or `done` once."""


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
        """Count the connection, and start the idle timer."""
        self._transport = cast("asyncio.Transport", transport)  # it is TCP; uvloop's class is not a subclass
        self._traffic.connections.add(self)
        self._traffic.connections_opened += 1
        self.check_idle()

    def data_received(self, data: bytes) -> None:
        """Parse; for anything that is not HTTP, respond with 400 and close, as Node does."""
        self._traffic.bytes_in += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a bug in the sandbox, not in the client
        except httptools.HttpParserError:
            self._traffic.malformed += 1
            self.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Forget the connection, and any exchange under way."""
        self._traffic.connections.discard(self)
        self._waiting.clear()
        if self._busy:
            self._busy = False
            self._traffic.under_way -= 1
        if self._idle_check is not None:
            self._idle_check.cancel()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Prepare for a new request."""
        self._receiving = True
        self._url = b""
        self._headers = {}
        self._body = []

    def on_url(self, url: bytes) -> None:
        """Add a piece of the target; usually it is the whole target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Ask for the body, if the client waits for `100 Continue`."""
        if b"expect" in self._headers:
            self.write(_CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """Add a piece of the body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """Serve the request, or keep it until the previous one has its response."""
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
    def closed(self) -> bool:
        """Whether the connection is closed or closing: nothing written from now on will be read."""
        return self._transport.is_closing()

    def announced_keep_alive(self, request: Request) -> float | None:
        """The keep-alive time to announce in the head of the response; None: the connection is closed afterwards."""
        return self._application.keep_alive_seconds if request.keep_alive else None

    def send(self, request: Request, response: Response) -> None:
        """Send a complete response, and end the exchange."""
        self._traffic.count_response(response.status)
        self.write(render(response, self._application.keep_alive_seconds if request.keep_alive else None))
        self.done(request)

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        if not self._transport.is_closing():
            self._traffic.bytes_out += len(data)
            self._transport.write(data)

    def done(self, request: Request) -> None:
        """End the exchange, and serve the next request if one is waiting."""
        self._idle_since = self._loop.time()
        if self._busy:
            self._busy = False
            self._traffic.under_way -= 1
        if not request.keep_alive:
            self._transport.close()
        elif self._waiting and not self.closed:
            self._start(self._waiting.popleft())

    def close(self, *, reset: bool = False) -> None:
        """Close after sending what was written; with `reset`, at once and with a TCP RST."""
        if reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def check_idle(self) -> None:
        """Close the connection if it has been idle for too long; otherwise check again when it could be."""
        if self._idle_check is not None:
            self._idle_check.cancel()
        allowed_s = self._application.keep_alive_seconds
        if not allowed_s or self.closed:
            return
        left_s = allowed_s if self._busy or self._receiving else self._idle_since + allowed_s - self._loop.time()
        if left_s <= 0:
            self._transport.close()
        else:
            self._idle_check = self._loop.call_later(left_s, self.check_idle)

    def _start(self, request: Request) -> None:
        self._busy = True
        self._traffic.enter()
        self._application.serve(self, request)
