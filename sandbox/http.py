"""HTTP/1.1 requests and responses, and the bytes of a response."""

import functools
import http
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

JSON = "application/json; charset=utf-8"


class Request:
    """One request. Header names are lower-case bytes.

    A fault sets `transform` and `status_seen` for the stand-in: how to corrupt the response, and the status that the
    caller will see instead of the stand-in's own (0: no response at all).
    """

    __slots__ = ("body", "headers", "keep_alive", "method", "received_at", "status_seen", "transform", "url")

    def __init__(self, method: bytes, url: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.received_at = time.time()
        self.transform: str | None = None
        self.status_seen: int | None = None

    @property
    def path(self) -> str:
        """The path, unquoted, without the query."""
        return unquote(self.url.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; for a repeated parameter, its last value."""
        pairs = parse_qs(self.url.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
        return {name: values[-1] for name, values in pairs.items()}


class Response:
    """One response: `body`, or a `stream` of pieces, each sent as a chunk as soon as it exists."""

    __slots__ = ("body", "content_type", "headers", "status", "stream")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        stream: AsyncGenerator[bytes, None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.stream = stream


def json_response(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A response with `value` as JSON."""
    return Response(status, msgspec.json.encode(value), headers=headers)


@functools.lru_cache(maxsize=256)
def _head(status: int, content_type: str, keep_alive_s: float | None) -> bytes:
    """The part of the head that is the same for many responses; None: the connection is closed afterwards."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    connection = "close"
    if keep_alive_s is not None:
        # Node sends this header. With 0, idle connections are never closed, so nothing is announced.
        hint = f"\r\nKeep-Alive: timeout={int(keep_alive_s)}" if keep_alive_s >= 1 else ""
        connection = f"keep-alive{hint}"
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\nConnection: {connection}\r\n".encode()


def render_head(response: Response, keep_alive_s: float | None, framing: bytes) -> bytes:
    """The head of a response; `framing` is the header line that says where the body ends, or empty."""
    head = _head(response.status, response.content_type, keep_alive_s)
    if response.headers:
        head += "".join(f"{name}: {value}\r\n" for name, value in response.headers.items()).encode("latin-1")
    return head + framing + b"\r\n"


def render(response: Response, keep_alive_s: float | None) -> bytes:
    """The bytes of a complete response."""
    return render_head(response, keep_alive_s, b"Content-Length: %d\r\n" % len(response.body)) + response.body


def chunk(piece: bytes) -> bytes:
    """One chunk of a chunked body; an empty piece ends the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
