"""Known series exist from the start of their process, with the value 0.

Prometheus' `increase()` and `rate()` compare samples of a series. A series that appears with its first value has no
earlier sample, so they miss a first burst: of 10,000 failed tasks no alert would speak. Each process begins the
series that it counts itself. Otherwise, after a restart of the monitor, another process' 0 would look like a reset.

What is not known in advance (an unusual status, a further model) still begins with its first value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from prometheus_client.metrics import Counter, Histogram

from common.process import metrics
from common.wire.wiring import EDGES

HTTP_STATUSES = ("200", "400", "401", "403", "404", "408", "413", "422", "429", "500", "502", "503", "504")
"""The statuses that are common enough to be known."""
_Known = tuple[Counter | Histogram, Iterable[tuple[str, ...]]]
"""A metric, and the values of its labels in their order."""

SKIPPED = ("unknown_type", "other_shard", "not_pending", "known", "not_ours", "deferred", "malformed", "no_id")
TOKEN_STATUSES = (
    "success", "timeout", "connection_error", "tls_error", "invalid_answer", "redirect", "insecure_url",
    "invalid_client", "invalid_scope", "unauthorized_client", "unsupported_grant_type", "invalid_request",
    "invalid_grant", "invalid_target", "access_denied", *(f"http_{status}" for status in HTTP_STATUSES[1:]),
)  # fmt: skip
INPUT_OUTCOMES = ("embedded", "cached", "shared", "refused", "invalid")
GUARD_REASONS = ("wrong_count", "wrong_length", "missing", "not_finite", "zero")
REQUEST_OUTCOMES = (
    "ok", "not_sent", "server_error", "throttled", "transient", "ask_again", "bad_input", "needs_operator", "refused",
    "error",
)  # fmt: skip
_BUILT_IN: dict[str, tuple[Counter, Counter]] = {
    "openai": (metrics.OPENAI_REQUESTS, metrics.OPENAI_TOKENS),
    "ollama": (metrics.OLLAMA_REQUESTS, metrics.OLLAMA_TOKENS),
}
_STATUSES_OF_PROVIDERS = (*HTTP_STATUSES, "timeout", "unreachable", "unreadable", "error_in_200")
_KINDS_OF_TOKENS = ("prompt", "total")


def begin(stage: str) -> None:
    """Begin the series of a stage that are known without its settings."""
    _begin(_known(stage))
    receives = {sender for sender, receiver in EDGES if receiver == stage}
    _begin([(metrics.UNDECODABLE, ((sender,) for sender in {*receives, metrics.OTHER_SENDER}))])


def begin_task_types(names: Iterable[str]) -> None:
    """Begin the series of the task types that can be processed."""
    types = list(names)
    _begin([
        (metrics.TASKS_PROCESSED, product(types, ("succeeded", "failed"))),
        (metrics.TASK_DURATION, product(types)),
    ])  # fmt: skip


def begin_provider(provider: str, models: Iterable[str]) -> None:
    """Begin the series of a provider, and of the models that will probably be asked for."""
    labels = [metrics.model_label(model) for model in models if model]
    _begin([
        (metrics.EMBEDDED_INPUTS, product([provider], INPUT_OUTCOMES)),
        (metrics.GUARD_VIOLATIONS, product([provider], GUARD_REASONS)),
        (metrics.PROVIDER_REQUESTS, product([provider], labels, REQUEST_OUTCOMES)),
        (metrics.PROVIDER_TOKENS, product([provider], labels, _KINDS_OF_TOKENS)),
    ])  # fmt: skip
    if provider in _BUILT_IN:
        requests, tokens = _BUILT_IN[provider]
        _begin([(requests, product(labels, _STATUSES_OF_PROVIDERS)), (tokens, product(labels, _KINDS_OF_TOKENS))])


def _known(stage: str) -> Iterator[_Known]:
    statuses = (*HTTP_STATUSES, "error")
    match stage:
        case "fetcher":
            endpoint = "/api/ai-tasks/pending"
            yield metrics.API_REQUESTS, product([endpoint], ["GET"], statuses)
            yield metrics.API_DURATION, [(endpoint, "GET")]
            yield metrics.TASKS_SKIPPED, product(SKIPPED)
            yield metrics.SECOND_CLAIMS, [("refused",), ("accepted",)]
        case "publisher":
            yield metrics.API_REQUESTS, product(["/api/ai-tasks/:id"], ["PATCH"], statuses)
        case "token_broker":
            yield metrics.TOKEN_REQUESTS, product(TOKEN_STATUSES)
        case "rate_limiter":
            yield metrics.RATE_LIMIT_EXCEEDED, product(("minute", "hour", "day", "week", "month"))
            yield metrics.CLOCK_LEAPS, [("ahead",), ("back",)]
        case "embedder":
            yield metrics.EMBEDDED_INPUTS, [("none", "refused")]


def _begin(known: Iterable[_Known]) -> None:
    for metric, sets in known:
        for values in sets:
            metric.labels(*values)
