"""The kinds of faults, as data: what may be hit, for how long, and what the design allows each to cost.

A cost is the number of results that the API accepts again, and of texts that the provider is paid for again
(docs/operations.md has the same table for single faults). Everything else is a violation.
"""

from dataclasses import dataclass

CONCURRENCY_LIMIT = 5
EMBED_BATCH_SIZE = 64
EMBEDDERS = 2
IN_SLOTS = CONCURRENCY_LIMIT * EMBED_BATCH_SIZE
"""The most tasks that one embedder may hold."""
CONNECTIONS = 16
"""PATCH requests under way at a time."""
SETTLE_BATCH = 512 + CONNECTIONS
"""Acceptances that a publisher may lose when it is killed: those that it settles together, and one per connection."""
REQUEST_TIMEOUT_S = 30.0

PROGRAMS = ("fetcher", "token_broker", "rate_limiter", "publisher", "monitor", "embedder_00", "embedder_01")
SERVICES = ("api", "oauth2", "openai")


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault."""

    share: int
    """How often it occurs among all faults of a plan."""
    targets: tuple[str, ...]
    shortest_s: float = 0.0
    longest_s: float = 0.0


WRONG_RESPONSES: dict[str, dict[str, object]] = {
    "api 500": {"service": "api", "status": 500, "body": '{"statusCode":500,"message":"Internal server error"}'},
    "api 403": {"service": "api", "status": 403, "body": '{"statusCode":403,"message":"Forbidden resource"}'},
    "api 401": {"service": "api", "status": 401, "body": '{"statusCode":401,"message":"Unauthorized"}'},
    "api html": {"service": "api", "status": 200, "body": "<html><body>Please wait</body></html>"},
    "api proxy 404": {
        "service": "api", "status": 404, "body": "no such host", "headers": {"content-type": "text/plain"},
    },
    "oauth2 500": {"service": "oauth2", "status": 500, "body": '{"error":"server_error"}'},
    "openai 400": {
        "service": "openai", "status": 400,
        "body": '{"error":{"message":"Budget has been exceeded","type":"budget_exceeded"}}',
    },
    "openai 500": {"service": "openai", "status": 500, "body": '{"error":{"message":"The server had an error"}}'},
    "openai html": {"service": "openai", "status": 200, "body": "<html><body>Please wait</body></html>"},
}  # fmt: skip
"""A service gives this response to all requests, and carries none of them out."""
LOST_RESPONSES: dict[str, dict[str, object]] = {
    "api lost": {"service": "api", "method": "PATCH", "drop": "after", "times": 12},
    "api reset": {"service": "api", "method": "PATCH", "drop": "after", "reset": True, "times": 12},
    "api callback": {
        "service": "api", "method": "PATCH", "status": 500, "stored": True, "times": 12,
        "body": '{"statusCode":500,"message":"Internal server error"}',
    },
    "openai lost": {"service": "openai", "drop": "after", "times": 3},
    "openai cut": {"service": "openai", "cut": 500, "times": 3},
    "openai garbled": {"service": "openai", "transform": "truncated_json", "times": 3},
}  # fmt: skip
"""A service carries some requests out, and the response is lost: their senders cannot know."""

KINDS: dict[str, FaultKind] = {
    "kill": FaultKind(20, PROGRAMS),
    "stop": FaultKind(7, PROGRAMS, 0.3, 12.0),
    "long stop": FaultKind(1, PROGRAMS, 30.0, 130.0),
    "restart": FaultKind(5, (*PROGRAMS, "all"), 0.1, 3.0),
    "orphans": FaultKind(1, ("supervisord",), 0.1, 3.0),
    "outage": FaultKind(6, SERVICES, 0.5, 15.0),
    "throttle": FaultKind(3, SERVICES, 1.0, 6.0),
    "wrong response": FaultKind(4, tuple(WRONG_RESPONSES), 1.0, 6.0),
    "lost response": FaultKind(3, tuple(LOST_RESPONSES), 3.0, 6.0),
}


@dataclass(frozen=True)
class Inflicted:
    """A fault that was carried out, in Unix time."""

    kind: str
    target: str
    began: float
    ended: float
    responses: int = 0
    """How many responses were lost."""
    skipped: bool = False
    """It could not be carried out, for example because the program was just starting."""


@dataclass(frozen=True)
class Cost:
    """The most that a fault may cost."""

    accepted_again: int = 0
    paid_again: int = 0


COSTS: dict[tuple[str, str], Cost] = {
    ("kill", "publisher"): Cost(accepted_again=SETTLE_BATCH),
    ("kill", "embedder"): Cost(paid_again=IN_SLOTS),
    ("killed by supervisord", "publisher"): Cost(accepted_again=SETTLE_BATCH),
    ("killed by supervisord", "embedder"): Cost(paid_again=IN_SLOTS),
    ("killed by supervisord", "all"): Cost(SETTLE_BATCH, EMBEDDERS * IN_SLOTS),
    ("stop", "embedder"): Cost(paid_again=IN_SLOTS),
    ("long stop", "embedder"): Cost(paid_again=IN_SLOTS),
    ("long stop", "publisher"): Cost(accepted_again=CONNECTIONS),  # longer than REQUEST_TIMEOUT
    ("orphans", "supervisord"): Cost(SETTLE_BATCH, EMBEDDERS * IN_SLOTS),
    ("outage", "api"): Cost(accepted_again=CONNECTIONS),
    ("outage", "openai"): Cost(paid_again=EMBEDDERS * IN_SLOTS),
}
"""By kind and by the part that was hit; whatever is not here costs nothing."""


def allowed(fault: Inflicted) -> Cost:
    """What the design allows this fault to cost."""
    if fault.skipped:
        return Cost()
    if fault.kind == "lost response":
        is_patch = fault.target.startswith("api")
        return Cost(fault.responses * is_patch, fault.responses * EMBED_BATCH_SIZE * (not is_patch))
    return COSTS.get((fault.kind, fault.target.partition("_0")[0]), Cost())
