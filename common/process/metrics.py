"""All metrics of the service. Each process counts in its own registry, and heartbeats carry them to the monitor.

`snapshot` is what a heartbeat carries. For each series, the monitor adds the counters and histograms of all processes,
and takes the largest value of a gauge.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics import Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.registry import CollectorRegistry

from common import __version__
from common.process.actions import Report
from common.wire.parts import Family, Sample

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

TASKS_PROCESSED = Counter(
    "ai_tasks_processed_total",
    "Tasks whose result the API accepted, by the state that was reported",
    ["task_type", "status"],
    registry=REGISTRY,
)
TASK_DURATION = Histogram(
    "ai_task_processing_duration_seconds",
    "Time from the lease of a task until the API accepted its result",
    ["task_type"],
    buckets=(*_SECONDS, 300, 900, 3600),
    registry=REGISTRY,
)
TASKS_IN_FLIGHT = Gauge("ai_tasks_in_flight", "Tasks that are leased and not yet settled", registry=REGISTRY)
TASKS_LISTED = Counter(
    "ai_tasks_listed_total",
    "Elements that pages of pending tasks showed, tasks in flight included",
    registry=REGISTRY,
)
TASKS_LEASED = Counter("ai_tasks_leased_total", "Tasks that were leased", registry=REGISTRY)
SECOND_CLAIMS = Counter(
    "api_second_claims_total",
    "Checks whether the API refuses a second claim of a task, by outcome: refused, accepted",
    ["outcome"],
    registry=REGISTRY,
)
TASKS_SKIPPED = Counter(
    "ai_tasks_skipped_total",
    "Elements of a page of pending tasks that were skipped, by reason",
    ["reason"],
    registry=REGISTRY,
)
LEASES_EXPIRED = Counter(
    "leases_expired_total", "Leases that expired because they were not renewed in time", registry=REGISTRY
)
API_REQUESTS = Counter(
    "api_requests_total",
    "Requests to the API, by response status (error: no response)",
    ["endpoint", "method", "status_code"],
    registry=REGISTRY,
)
API_DURATION = Histogram(
    "api_request_duration_seconds",
    "Duration of requests to the API",
    ["endpoint", "method"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
API_CONNECTIONS_LIMIT = Gauge(
    "api_connections_limit",
    "PATCHes that may be under way at a time: it falls when they wait in the API for each other, or for 429",
    ["stage"],
    registry=REGISTRY,
)
API_CONNECTIONS_IN_USE = Gauge(
    "api_connections_in_use", "PATCHes that are under way, those that hang included", ["stage"], registry=REGISTRY
)
API_PACED = Gauge(
    "api_paced", "1 while requests to the API wait because of API_REQUESTS_PER_MINUTE", ["stage"], registry=REGISTRY
)
TOKEN_REQUESTS = Counter(
    "oauth2_token_requests_total", "Requests to the OAuth2 token endpoint, by outcome", ["status"], registry=REGISTRY
)
PROVIDER_REQUESTS = Counter(
    "provider_requests_total",
    "Requests to a provider, by kind of outcome: ok, throttled, server_error, bad_input, …",
    ["provider", "model", "status"],
    registry=REGISTRY,
)
PROVIDER_TOKENS = Counter(
    "provider_tokens_used_total",
    "Tokens that a provider reported as used",
    ["provider", "model", "type"],
    registry=REGISTRY,
)
OPENAI_REQUESTS = Counter(
    "openai_requests_total", "Requests to OpenAI, by response status", ["model", "status"], registry=REGISTRY
)
OPENAI_TOKENS = Counter(
    "openai_tokens_used_total", "Tokens that OpenAI reported as used", ["model", "type"], registry=REGISTRY
)
OLLAMA_REQUESTS = Counter(
    "ollama_requests_total", "Requests to Ollama, by response status", ["model", "status"], registry=REGISTRY
)
OLLAMA_TOKENS = Counter(
    "ollama_tokens_used_total", "Tokens that Ollama reported as used", ["model", "type"], registry=REGISTRY
)
EMBEDDED_INPUTS = Counter(
    "embedder_inputs_total",
    "Texts by outcome: embedded, cached, shared (another batch embedded the same text), refused, invalid",
    ["provider", "outcome"],
    registry=REGISTRY,
)
GUARD_VIOLATIONS = Counter(
    "embedder_guard_violations_total",
    "Vectors that failed the vector guard's checks, by reason",
    ["provider", "reason"],
    registry=REGISTRY,
)
LEARNED_CAP = Gauge(
    "embedder_learned_cap",
    "Largest request that the provider accepts, as learned from its refusals",
    ["provider", "unit"],
    registry=REGISTRY,
)
CACHE_HITS = Counter("embedding_cache_hits_total", "Texts whose vector was in the cache", registry=REGISTRY)
CACHE_MISSES = Counter("embedding_cache_misses_total", "Texts whose vector was not in the cache", registry=REGISTRY)
CACHE_BYTES = Gauge("embedding_cache_bytes", "Size of the vectors in the cache, in bytes", registry=REGISTRY)
BREAKER_STATE = Gauge(
    "circuit_breaker_state",
    "State of the circuit breaker: 0 closed, 1 open, 2 half-open",
    ["service"],
    registry=REGISTRY,
)
BREAKER_REASON = Gauge(
    "circuit_breaker_reason",
    "1 while the circuit breaker is open or half-open for this reason",
    ["service", "reason"],
    registry=REGISTRY,
)
RATE_LIMIT_USAGE = Gauge(
    "rate_limit_current_usage", "Tasks admitted in the current quota window", ["period"], registry=REGISTRY
)
RATE_LIMIT_MAX = Gauge("rate_limit_max_allowed", "Tasks that the quota window admits", ["period"], registry=REGISTRY)
RATE_LIMIT_REMAINING = Gauge(
    "rate_limit_remaining", "Tasks that the quota window still admits", ["period"], registry=REGISTRY
)
RATE_LIMIT_EXCEEDED = Counter(
    "rate_limit_exceeded_total", "Times when work began to wait for this period's quota", ["period"], registry=REGISTRY
)
RATE_LIMIT_CHECK = Histogram(
    "rate_limit_check_duration_seconds",
    "Duration of a check of all quota windows",
    buckets=(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.01),
    registry=REGISTRY,
)
_WINDOW = ["scope", "unit", "period"]
WINDOW_USAGE = Gauge(
    "rate_limit_window_current",
    "Use of a quota window in tasks, tokens or requests; the scope is a model that has its own limits, or empty",
    _WINDOW,
    registry=REGISTRY,
)
WINDOW_LIMIT = Gauge(
    "rate_limit_window_limit", "Limit of a quota window in tasks, tokens or requests", _WINDOW, registry=REGISTRY
)
WINDOW_RESET = Gauge(
    "rate_limit_window_reset_timestamp_seconds",
    "When a rolling quota window next releases something, or when a fixed one ends",
    _WINDOW,
    registry=REGISTRY,
)
WINDOW_EXHAUSTED = Gauge(
    "rate_limit_exhausted_timestamp_seconds",
    "When a quota will be used up at the present rate; absent if it will not be",
    _WINDOW,
    registry=REGISTRY,
)
TOKEN_RATIO = Gauge(
    "rate_limit_token_ratio",
    "Tokens that providers reported as used, divided by the tokens that were estimated",
    ["model"],
    registry=REGISTRY,
)
CLOCK_LEAPS = Counter(
    "clock_leaps_total", "Jumps of the wall clock, by direction: ahead or back", ["direction"], registry=REGISTRY
)
BATCH_SIZE = Histogram(
    "embedder_batch_size",
    "Number of tasks in a batch",
    buckets=(1, 4, 16, 64, 128, 256, 512, 1024, 2048),
    registry=REGISTRY,
)
OUTBOX_SIZE = Gauge("outbox_results", "Results in the outbox: the API has not accepted them yet", registry=REGISTRY)
DEAD_LETTERS = Gauge("outbox_dead_letters", "Dead letters: results that the API refused permanently", registry=REGISTRY)
MOCK_MODE = Gauge("ai_mock_mode", "1 in mock mode: the vectors have no meaning", registry=REGISTRY)
UNDECODABLE = Counter(
    "messages_undecodable_total",
    "Messages that were dropped because they could not be decoded or were not expected",
    ["sender"],
    registry=REGISTRY,
)
OTHER_SENDER = "other"
"""The label of all senders that are not stages: a frame may name any, and each label value costs memory."""
CPU_SECONDS = Counter(
    "stage_cpu_seconds_total", "CPU time of the process, user and system", ["stage", "process"], registry=REGISTRY
)
BUILD_INFO = Gauge(
    "build_info", "1, with the versions of the service and of Python", ["version", "python"], registry=REGISTRY
)
BUILD_INFO.labels(__version__, platform.python_version()).set(1)
MEMORY = Gauge("stage_memory_bytes", "Resident memory of the process", ["stage", "process"], registry=REGISTRY)


_ALL = [metric for metric in list(globals().values()) if isinstance(metric, Counter | Gauge | Histogram)]
_METRICS = [metric for metric in list(globals().values()) if isinstance(metric, Counter | Histogram)]
_COUNTERS = {f"{metric._name}_total": metric for metric in _METRICS if isinstance(metric, Counter)}  # noqa: SLF001
_HISTOGRAMS = {metric._name: metric for metric in _METRICS if isinstance(metric, Histogram)}  # noqa: SLF001


def count(name: str, labels: tuple[str, ...], amount: float) -> None:
    """Add to a counter by name. For the action `Count`: states return it, because they do not import metrics."""
    counter = _COUNTERS[name]
    (counter.labels(*labels) if labels else counter).inc(amount)


def observe(name: str, labels: tuple[str, ...], values: Iterable[float]) -> None:
    """Add values to a histogram by name. For the action `Observe`."""
    histogram = _HISTOGRAMS[name]
    child = histogram.labels(*labels) if labels else histogram
    for value in values:
        child.observe(value)


MOST_MODEL_LABELS = 50
"""Further models share the label `other`: tasks may name any model, and each label value costs memory."""
_MODELS: set[str] = set()


def model_label(model: str) -> str:
    """The label for a model: its name, or `other` once there are `MOST_MODEL_LABELS`."""
    if model not in _MODELS:
        if len(_MODELS) >= MOST_MODEL_LABELS:
            return "other"
        _MODELS.add(model)
    return model


def resident_bytes() -> int:
    """Bytes of this process that are in memory. proc(5): the second number of `statm` is in pages."""
    with Path("/proc/self/statm").open("rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class ProcessUsage:
    """Measures the CPU time and memory of this process."""

    def __init__(self, stage: str, process: str) -> None:
        self._cpu = CPU_SECONDS.labels(stage, process)
        self._memory = MEMORY.labels(stage, process)
        self._seen = 0.0

    def update(self) -> None:
        """Update both metrics."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        total = usage.ru_utime + usage.ru_stime
        self._cpu.inc(total - self._seen)
        self._seen = total
        self._memory.set(resident_bytes())


def snapshot() -> list[Family]:
    """All metrics of this process that have a sample, for its heartbeat."""
    # not `REGISTRY.collect()`: it makes each sample twice, also of metrics without one, and takes twice as long
    families = []
    for metric in _ALL:
        if metric._labelnames and not metric._metrics:  # noqa: SLF001
            continue
        name, kind, text = metric._name, metric._type, metric._documentation  # noqa: SLF001
        samples = [Sample(name + suffix, labels, value) for suffix, labels, value, *_ in metric._samples()]  # noqa: SLF001
        families.append(Family(name, kind, text, samples))
    return families


def show_connections(stage: str, report: Report) -> Report:
    """Set the metrics of a stage's requests to the API, from what its heartbeat will say; returns the report."""
    facts = report.facts
    API_PACED.labels(stage).set(bool(facts.get("paced")))
    if "connections" in facts:
        API_CONNECTIONS_LIMIT.labels(stage).set(facts["connections_limit"])
        API_CONNECTIONS_IN_USE.labels(stage).set(facts["connections"])
    return report


_REASONS: dict[str, str] = {}


def show_breaker(service: str, state: int, reason: str) -> None:
    """Set the metrics of a breaker: its state, and its only reason (empty when it is closed)."""
    BREAKER_STATE.labels(service).set(state)
    if before := _REASONS.pop(service, ""):
        BREAKER_REASON.remove(service, before)
    if reason:
        _REASONS[service] = reason
        BREAKER_REASON.labels(service, reason).set(1)
