"""The HTTP server on `METRICS_PORT`: one thread for each connection, a bounded number of them for a bounded time.

Each connection carries one request (HTTP/1.0), so its age is enough: a client that sends or reads too slowly is cut
off, and when all places are taken, the oldest connection is closed. So no client can keep a health check waiting.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog

from common.failures.errors import Fatal
from stages.monitor.pages import HttpResponse, page

CONNECTION_LIMIT_S = 10.0
"""How long a connection may last; Prometheus gives up after 10 s by default as well."""
LARGEST_CONNECTION_COUNT = 64
"""One thread each. A page takes milliseconds, so only slow clients ever use all of them."""
LARGEST_UNREAD_BYTES = 65_536
"""The body of a refused request is read up to this size: otherwise closing the connection could reset the response."""


class PageServer(ThreadingMixIn, TCPServer):
    """Serves pages; `answer` gets the target of a request and is called from many threads."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, port: int, answer: Callable[[str], HttpResponse], connection_limit_s: float = CONNECTION_LIMIT_S
    ) -> None:
        super().__init__(("", port), _Handler, bind_and_activate=False)
        self.answer = answer
        self._connection_limit_s = connection_limit_s
        self._open: dict[socket.socket, float] = {}
        """Connection → when it began (monotonic seconds), the oldest first."""
        self._lock = threading.Lock()
        self.socket.close()
        self.socket = _listen(port)
        self.port = int(self.socket.getsockname()[1])

    def start(self) -> None:
        """Serve on a separate thread until `stop`."""
        threading.Thread(target=self.serve_forever, name="pages", daemon=True).start()

    def stop(self) -> None:
        """Take no more requests."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room if necessary, and answer on a new thread."""
        with self._lock:
            self._open[request] = time.monotonic()
            excess = len(self._open) - LARGEST_CONNECTION_COUNT
            oldest = list(self._open)[: max(0, excess)]
        for connection in oldest:
            self._cut(connection)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The response was sent, or the client is gone."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close the connections that have lasted too long; called twice a second."""
        since = time.monotonic() - self._connection_limit_s
        with self._lock:
            late = [connection for connection, began in self._open.items() if began < since]
        for connection in late:
            self._cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log errors of this program; a client that is gone is not an error."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            structlog.get_logger().error("page_failed", error=type(error).__name__, exc_info=True)

    def _cut(self, connection: socket.socket) -> None:
        """Close a connection; its thread then ends by itself. The connection may just have ended."""
        with self._lock:
            self._open.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    default_request_version = "HTTP/1.0"  # for a request without a version: a response of 0.9 has no status line

    def do_GET(self) -> None:
        """Answer with the page."""
        self._send(self.server.answer(self.path))

    do_HEAD = do_GET  # noqa: N815  named by http.server

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that http.server refuses, in JSON; an unknown method is answered with 405."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
            length = self.headers.get("content-length", "")
            self.rfile.read(min(int(length), LARGEST_UNREAD_BYTES) if length.isdecimal() and len(length) < 20 else 0)
        self._send(page(code, {"error": HTTPStatus(code).phrase.lower()}))

    def version_string(self) -> str:
        """The `Server` header, without Python's version."""
        return "ai-task-processor"

    def log_message(self, *_: Any) -> None:
        """Log nothing: health checks come every few seconds."""

    def _send(self, response: HttpResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)


def _listen(port: int) -> socket.socket:
    """Listen on all addresses, IPv6 and IPv4 where there is IPv6; raise `Fatal` if the port cannot be used."""
    try:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):  # IPv6 is switched off, or the port is in use: IPv4 shows which
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # `str(error)` contains the address as well
        raise Fatal(
            f"METRICS_PORT: port {port} cannot be used: {why}; free it or set METRICS_PORT to another"
        ) from error
