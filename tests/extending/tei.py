"""A stand-in for Text Embeddings Inference: `POST /embed`, and its refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from stages.embedder.providers import mock

MODEL = "our/model"
DIMENSIONS = 16


def vectors(texts: list[str]) -> list[list[float]]:
    found: list[list[float]] = mock.vectors(MODEL, texts, DIMENSIONS).tolist()
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    overloaded: ClassVar[int] = 1
    """Number of requests to refuse first."""
    paid: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        if Handler.overloaded:
            Handler.overloaded -= 1
            self._answer(429, {"error": "Model is overloaded", "error_type": "overloaded"})
        elif "poisoned" in texts:
            self._answer(422, {"error": "Tokenization error", "error_type": "tokenizer"})
        else:
            Handler.paid += texts
            self._answer(200, vectors(texts))

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
