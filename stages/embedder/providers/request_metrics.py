"""Count requests to providers, and turn a request without a complete response into one of the project's errors.

`counted_embed` is called for every provider, also for those of other packages: it knows only the kind of the error.
`RequestMetrics` counts the built-in providers by HTTP status besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from prometheus_client.metrics import Counter

from common.failures.errors import Error, Permanent, Throttled, Transient
from common.process import metrics
from common.process.metrics import model_label
from stages.embedder.providers import (
    AskAgain,
    BadInput,
    Embeddings,
    NeedsOperator,
    NoModelYet,
    NotSent,
    Provider,
    ProviderServerError,
    odd_forms,
)
from stages.embedder.providers.sending import NotCoveredError

STATUS: Mapping[type[Error], str] = {
    NotSent: "not_sent",
    ProviderServerError: "server_error",
    Throttled: "throttled",
    Transient: "transient",
    AskAgain: "ask_again",
    BadInput: "bad_input",
    NeedsOperator: "needs_operator",
    Permanent: "refused",
}
"""The label `status` of `provider_requests_total` for each error, the most specific first; a success is `ok`."""

log = structlog.get_logger()


def counted_embed(provider: Provider, model: str, texts: Sequence[str]) -> Embeddings:
    """Call `provider.embed` and count the request; any error passes through. `NoModelYet` means no request."""
    label = model_label(model)
    try:
        embeddings = provider.embed(model, texts)
    except (NoModelYet, NotCoveredError):
        raise
    except Exception as error:
        status = next((word for kind, word in STATUS.items() if isinstance(error, kind)), "error")
        metrics.PROVIDER_REQUESTS.labels(provider.name, label, status).inc()
        raise
    embeddings = embeddings._replace(tokens=odd_forms.bounded(embeddings.tokens))
    metrics.PROVIDER_REQUESTS.labels(provider.name, label, "ok").inc()
    for kind in ("prompt", "total"):  # an embedding has no completion, so both are the same
        metrics.PROVIDER_TOKENS.labels(provider.name, label, kind).inc(embeddings.tokens)
    return embeddings


class RequestMetrics:
    """Counts one built-in provider's requests by HTTP status. `timeout` names the setting that limits a request."""

    def __init__(self, requests: Counter, tokens: Counter, timeout: str) -> None:
        self._requests = requests
        self._tokens = tokens
        self._timeout = timeout
        self._is_told = False

    def count(self, model: str, status: str) -> None:
        """Count a request by its HTTP status, or by a word for what came instead of a response."""
        self._requests.labels(model_label(model), status).inc()

    def broken(self, model: str, why: str, *, unsent: bool, late: bool) -> Transient:
        """Count a request without a complete response and return its error. `unsent`: it certainly never left."""
        self.count(model, "timeout" if late else "unreachable")
        if unsent:
            return NotSent(f"no connection: {why}")
        if late:
            return Transient(f"no complete response within {self._timeout}: {why}")
        return Transient(f"the connection broke: {why}")

    def read(self, model: str, status: str, decode: Callable[[], Embeddings]) -> Embeddings:
        """Decode a successful response and count it with its tokens; raises `Transient` if it cannot be decoded."""
        try:
            found = decode()
        except Transient:
            self.count(model, "unreadable")
            raise
        self.count(model, status)
        if not found.tokens and found.matrix.size and not self._is_told:
            self._is_told = True
            log.warning("usage_ignored", model=model, reason="the response reports no usable number of tokens")
        for kind in ("prompt", "total"):  # an embedding has no completion, so both are the same
            self._tokens.labels(model_label(model), kind).inc(found.tokens)
        return found
