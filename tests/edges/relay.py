"""Programs between the service and the API: a relay with another address or with TLS, and a proxy."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until one side closes."""
    ways = {one: other, other: one}
    with contextlib.suppress(OSError):
        while True:
            pending = [side for side in ways if isinstance(side, ssl.SSLSocket) and side.pending()]
            for side in pending or select.select(list(ways), [], [])[0]:
                if not (piece := side.recv(65_536)):
                    return
                ways[side].sendall(piece)


class Relay(ThreadingTCPServer):
    """Forwards every connection to `target`; itself it uses TLS, or another kind of address."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, target: str, tls: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._to = (urlsplit(target).hostname or "", urlsplit(target).port or 80)
        self._tls = tls
        self.connections = 0
        super().__init__((host, 0), BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        with contextlib.suppress(ssl.SSLError), contextlib.ExitStack() as closing:
            if self._tls is not None:
                request = closing.enter_context(self._tls.wrap_socket(request, server_side=True))
            _pump(request, closing.enter_context(socket.create_connection(self._to)))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections."""


class Proxy(ThreadingHTTPServer):
    """A proxy for http:// (whole requests) and https:// (CONNECT)."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        self.status = status
        """The status of the response to CONNECT."""
        self.requests: list[str] = []
        """The lines of the requests received so far."""
        super().__init__(("127.0.0.1", 0), _ProxyHandler)


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection(url.netloc, timeout=30)
        connection.request(self.command, f"{url.path}?{url.query}".rstrip("?"), body, dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def do_PATCH(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.server.requests.append(f"CONNECT {self.path}")
        self.send_response(self.server.status)
        self.end_headers()
        self.close_connection = True
        if self.server.status == 200:
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as target:
                _pump(self.connection, target)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(server: Relay | Proxy) -> Iterator[int]:
    """Run the server on a thread; yields its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
