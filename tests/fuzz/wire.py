"""A server that responds with arbitrary bytes."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

from hypothesis import strategies as st


class Wire:
    """Reads one request, sends `response`, closes; counts requests."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.response = b""
        self.requests = 0

    def serve(self) -> None:
        """Serve until the listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                self._read(connection)
                self.requests += 1
                connection.sendall(self.response)

    def _read(self, connection: socket.socket) -> None:
        """A whole request: closing with some of it unread would reset the connection."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65_536) or b"\r\n\r\n"
        length = re.search(rb"content-length: (\d+)", received.lower())
        missing = int(length[1]) - len(received.partition(b"\r\n\r\n")[2]) if length else 0
        while missing > 0 and (piece := connection.recv(65_536)):
            missing -= len(piece)


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """Run a server on a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Wire(listener)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


STATUSES = st.sampled_from(
    [100, 101, 103, 200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 413, 429, 500, 503, 999, 0]
)
HEADERS = st.sampled_from([
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 99999999999999999999", b"Content-Length: -1",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Content-Encoding: nonsense", b"Retry-After: 3", b"Retry-After: -9e99",
    b"Retry-After: Thu, 99 Foo 2026 99:99:99 GMT", b"x-ratelimit-reset: nan", b"Location: /elsewhere",
    b"WWW-Authenticate: Negotiate", b"Connection: upgrade", b"Upgrade: h2c", b"Set-Cookie: \xff\xfe", b"no colon",
    b": no name", b" folded", b"X: " + b"y" * 70_000,
])  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"[]", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nx", b"\x1f\x8b\x08\x00", b"[" * 5000]
    ),
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Bytes similar to an HTTP response, complete or cut, or arbitrary bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=100))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"HTTP/0.9", b"SPDY"]))
    head = version + b" %d Fine\r\n" % draw(STATUSES)
    head += b"".join(header + b"\r\n" for header in draw(st.lists(HEADERS, max_size=4)))
    whole = head + b"\r\n" + draw(BODIES)
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole
