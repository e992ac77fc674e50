"""A token endpoint on real HTTP whose responses the test sets."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs


class Asked(NamedTuple):
    """One request, as it was received."""

    path: str
    headers: Message
    form: dict[str, list[str]]


Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        form = parse_qs(self.rfile.read(length).decode(), keep_blank_values=True, strict_parsing=True)
        self.endpoint.asked.append(Asked(self.path, self.headers, form))
        replies = self.endpoint.replies
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        with contextlib.suppress(OSError):
            reply(self)

    def do_GET(self) -> None:
        self.endpoint.asked.append(Asked(self.path, self.headers, {}))
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def answers(status: int = 200, body: bytes | None = None, *, headers: dict[str, str] | None = None) -> Reply:
    """A reply with this status, body and these headers."""
    content = json.dumps({"access_token": "granted", "expires_in": 60}).encode() if body is None else body

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return reply


@dataclass
class Endpoint:
    """The requests that were received, and the replies to send: in this order, the last one repeatedly."""

    url: str = ""
    replies: list[Reply] = field(default_factory=lambda: [answers()])
    asked: list[Asked] = field(default_factory=list)


@contextlib.contextmanager
def serving() -> Iterator[Endpoint]:
    """Serve on a free port of this machine."""
    endpoint = Endpoint()
    handler = type("BoundHandler", (Handler,), {"endpoint": endpoint})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        endpoint.url = f"http://127.0.0.1:{server.server_port}/oauth2/token"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield endpoint
        server.shutdown()
