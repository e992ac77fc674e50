"""HTTP/1.1 requests and answers, and how an answer looks on the wire."""

import functools
import http
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

JSON = "application/json; charset=utf-8"


class Request:
    """One request. Header names are lower-case bytes.

    `transform` and `answers_as` are notes from a fault to the service: how to spoil the answer, and the status that the
    caller will see instead of the service's own (0: none at all).
    """

    __slots__ = ("answers_as", "body", "headers", "keep_alive", "method", "transform", "url")

    def __init__(self, method: bytes, url: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.transform: str | None = None
        self.answers_as: int | None = None

    @property
    def path(self) -> str:
        """The path, unquoted, without the query."""
        return unquote(self.url.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the last."""
        pairs = parse_qs(self.url.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
        return {name: values[-1] for name, values in pairs.items()}


class Answer:
    """One answer: `body`, or a `stream` of pieces that is sent in chunks as they come."""

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


def json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with `value` as JSON."""
    return Answer(status, msgspec.json.encode(value), headers=headers)


@functools.lru_cache(maxsize=256)
def _head(status: int, content_type: str, keep_alive_seconds: float | None) -> bytes:
    """Everything of the head that does not change from answer to answer; None: the connection closes after it."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    connection = "close"
    if keep_alive_seconds is not None:
        # As Node announces it; 0 means that nothing is ever closed for idling, hence no promise either.
        hint = f"\r\nKeep-Alive: timeout={int(keep_alive_seconds)}" if keep_alive_seconds >= 1 else ""
        connection = f"keep-alive{hint}"
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\nConnection: {connection}\r\n".encode()


def render_head(answer: Answer, keep_alive_seconds: float | None, framing: bytes) -> bytes:
    """The answer's head; `framing` is the header line that tells where the body ends, or nothing."""
    head = _head(answer.status, answer.content_type, keep_alive_seconds)
    if answer.headers:
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items()).encode("latin-1")
    return head + framing + b"\r\n"


def render(answer: Answer, keep_alive_seconds: float | None) -> bytes:
    """The bytes of a whole answer."""
    return render_head(answer, keep_alive_seconds, b"Content-Length: %d\r\n" % len(answer.body)) + answer.body


def chunk(piece: bytes) -> bytes:
    """One chunk of a chunked body; an empty piece ends the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
