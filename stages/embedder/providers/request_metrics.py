"""How requests ended: counted by model and status, and those without a whole answer told as the project's errors."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from common.failures.errors import Transient
from common.process.metrics import model_label
from stages.embedder.providers import Embeddings, NotSent


class RequestMetrics:
    """The requests of one provider; `timeout` is the variable that limits them."""

    def __init__(self, requests: Counter, tokens: Counter, timeout: str) -> None:
        self._requests = requests
        self._tokens = tokens
        self._timeout = timeout

    def count(self, model: str, status: str) -> None:
        """Count a request: its status, or in a word what came instead of one."""
        self._requests.labels(model_label(model), status).inc()

    def broken(self, model: str, why: str, *, unsent: bool, late: bool) -> Transient:
        """Count a request that got no whole answer; returns the error. `unsent`: it certainly never left."""
        self.count(model, "timeout" if late else "unreachable")
        if unsent:
            return NotSent(f"no connection: {why}")
        if late:
            return Transient(f"no whole answer within {self._timeout}: {why}")
        return Transient(f"the connection broke: {why}")

    def read(self, model: str, status: str, decode: Callable[[], Embeddings]) -> Embeddings:
        """Decode a good answer, and count it with its tokens; one that is not what it should be raises `Transient`."""
        try:
            found = decode()
        except Transient:
            self.count(model, "unreadable")
            raise
        self.count(model, status)
        for kind in ("prompt", "total"):  # an embedding has no completion, so both are the same
            self._tokens.labels(model_label(model), kind).inc(found.tokens)
        return found
