"""Every metric of the service by name, kept with prometheus_client, and carried to the monitor in heartbeats.

Each process counts in its own registry; `snapshot` is what its heartbeat carries. The monitor adds counters and
histograms over the processes and takes the largest of a gauge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from common.wire.messages import Family, Sample

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

TASKS_PROCESSED = Counter(
    "ai_tasks_processed_total", "Tasks whose result the API accepted", ["task_type", "status"], registry=REGISTRY
)
TASK_DURATION = Histogram(
    "ai_task_processing_duration_seconds",
    "From the lease of a task to the acceptance of its result",
    ["task_type"],
    buckets=(*_SECONDS, 300, 900, 3600),
    registry=REGISTRY,
)
TASKS_IN_FLIGHT = Gauge("ai_tasks_in_flight", "Tasks leased and not yet settled", registry=REGISTRY)
TASKS_SKIPPED = Counter(
    "ai_tasks_skipped_total", "Elements of a page of pending tasks that were not taken", ["reason"], registry=REGISTRY
)
LEASES_EXPIRED = Counter("leases_expired_total", "Leases that nobody renewed in time", registry=REGISTRY)
API_REQUESTS = Counter(
    "api_requests_total", "Requests to the API", ["endpoint", "method", "status_code"], registry=REGISTRY
)
API_DURATION = Histogram(
    "api_request_duration_seconds",
    "Duration of requests to the API",
    ["endpoint", "method"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
TOKEN_REQUESTS = Counter(
    "oauth2_token_requests_total", "Requests to the OAuth2 token endpoint", ["status"], registry=REGISTRY
)
PROVIDER_REQUESTS = Counter(
    "provider_requests_total", "Requests to a provider", ["provider", "model", "status"], registry=REGISTRY
)
PROVIDER_TOKENS = Counter(
    "provider_tokens_used_total",
    "Tokens that a provider reported",
    ["provider", "model", "type"],
    registry=REGISTRY,
)
OPENAI_REQUESTS = Counter("openai_requests_total", "Requests to OpenAI", ["model", "status"], registry=REGISTRY)
OPENAI_TOKENS = Counter("openai_tokens_used_total", "Tokens that OpenAI reported", ["model", "type"], registry=REGISTRY)
OLLAMA_REQUESTS = Counter("ollama_requests_total", "Requests to Ollama", ["model", "status"], registry=REGISTRY)
OLLAMA_TOKENS = Counter("ollama_tokens_used_total", "Tokens that Ollama reported", ["model", "type"], registry=REGISTRY)
EMBEDDED_INPUTS = Counter(
    "embedder_inputs_total",
    "Texts by what became of them: embedded, cached, shared (another batch embedded it), refused, invalid",
    ["provider", "outcome"],
    registry=REGISTRY,
)
GUARD_VIOLATIONS = Counter(
    "embedder_guard_violations_total",
    "Vectors that were not usable as they came",
    ["provider", "reason"],
    registry=REGISTRY,
)
LEARNED_CAP = Gauge(
    "embedder_learned_cap", "Largest request that a provider was found to take", ["provider", "unit"], registry=REGISTRY
)
CACHE_HITS = Counter("embedding_cache_hits_total", "Texts whose vector was in the cache", registry=REGISTRY)
CACHE_MISSES = Counter("embedding_cache_misses_total", "Texts whose vector was not in the cache", registry=REGISTRY)
CACHE_BYTES = Gauge("embedding_cache_bytes", "Bytes of the vectors in the cache", registry=REGISTRY)
BREAKER_STATE = Gauge("circuit_breaker_state", "0 closed, 1 open, 2 half-open", ["service"], registry=REGISTRY)
BREAKER_REASON = Gauge(
    "circuit_breaker_reason",
    "1 while the breaker is not closed for this reason",
    ["service", "reason"],
    registry=REGISTRY,
)
RATE_LIMIT_USAGE = Gauge("rate_limit_current_usage", "Tasks admitted in the period", ["period"], registry=REGISTRY)
RATE_LIMIT_MAX = Gauge("rate_limit_max_allowed", "The limit of the period, in tasks", ["period"], registry=REGISTRY)
RATE_LIMIT_REMAINING = Gauge("rate_limit_remaining", "Tasks left in the period", ["period"], registry=REGISTRY)
RATE_LIMIT_EXCEEDED = Counter(
    "rate_limit_exceeded_total", "Moments when this period held work back", ["period"], registry=REGISTRY
)
RATE_LIMIT_CHECK = Histogram(
    "rate_limit_check_duration_seconds",
    "Duration of a check of all windows",
    buckets=(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.01),
    registry=REGISTRY,
)
_WINDOW = ["scope", "unit", "period"]
WINDOW_USAGE = Gauge(
    "rate_limit_window_current",
    "What a quota's window holds: tasks, tokens or requests; the scope is a model with limits of its own, or empty",
    _WINDOW,
    registry=REGISTRY,
)
WINDOW_LIMIT = Gauge("rate_limit_window_limit", "What a quota's window may hold", _WINDOW, registry=REGISTRY)
WINDOW_RESET = Gauge(
    "rate_limit_window_reset_timestamp_seconds",
    "When a quota's window next loses something; fixed: when it ends",
    _WINDOW,
    registry=REGISTRY,
)
WINDOW_EXHAUSTED = Gauge(
    "rate_limit_exhausted_timestamp_seconds",
    "When a quota will be used up at the present rate; absent where it will not be",
    _WINDOW,
    registry=REGISTRY,
)
TOKEN_RATIO = Gauge(
    "rate_limit_token_ratio",
    "Tokens that providers report, per token estimated",
    ["model"],
    registry=REGISTRY,
)
CLOCK_LEAPS = Counter("clock_leaps_total", "Leaps of the wall clock: ahead or back", ["direction"], registry=REGISTRY)
BATCH_SIZE = Histogram(
    "embedder_batch_size", "Tasks in a batch", buckets=(1, 4, 16, 64, 128, 256, 512, 1024, 2048), registry=REGISTRY
)
OUTBOX_SIZE = Gauge("outbox_results", "Results that the API has not accepted yet", registry=REGISTRY)
DEAD_LETTERS = Gauge("outbox_dead_letters", "Results that the API refused for good", registry=REGISTRY)
MOCK_MODE = Gauge("ai_mock_mode", "1 while vectors are mock vectors, which mean nothing", registry=REGISTRY)
UNDECODABLE = Counter(
    "messages_undecodable_total", "Frames that were dropped because they did not decode", ["sender"], registry=REGISTRY
)
CPU_SECONDS = Counter("stage_cpu_seconds_total", "CPU time, user and system", ["stage", "instance"], registry=REGISTRY)
MEMORY = Gauge("stage_memory_bytes", "Resident memory", ["stage", "instance"], registry=REGISTRY)


_METRICS = [metric for metric in list(globals().values()) if isinstance(metric, Counter | Histogram)]
_COUNTERS = {f"{metric._name}_total": metric for metric in _METRICS if isinstance(metric, Counter)}  # noqa: SLF001
_HISTOGRAMS = {metric._name: metric for metric in _METRICS if isinstance(metric, Histogram)}  # noqa: SLF001


def count(name: str, labels: tuple[str, ...], amount: float) -> None:
    """Add to a counter by name: for states, which decide that something is counted but import no metrics."""
    counter = _COUNTERS[name]
    (counter.labels(*labels) if labels else counter).inc(amount)


def observe(name: str, labels: tuple[str, ...], values: Iterable[float]) -> None:
    """Add values to a histogram by name."""
    histogram = _HISTOGRAMS[name]
    child = histogram.labels(*labels) if labels else histogram
    for value in values:
        child.observe(value)


_MODELS: set[str] = set()


def model_label(model: str) -> str:
    """The model's name as a label. Tasks may name any model, and a label must not have endless values."""
    if model not in _MODELS:
        if len(_MODELS) >= 50:
            return "other"
        _MODELS.add(model)
    return model


class ProcessUsage:
    """CPU and memory of this process, by stage."""

    def __init__(self, stage: str, instance: str) -> None:
        self._process = psutil.Process(os.getpid())
        self._cpu = CPU_SECONDS.labels(stage, instance)
        self._memory = MEMORY.labels(stage, instance)
        self._seen = 0.0

    def update(self) -> None:
        """Read them into the metrics."""
        times = self._process.cpu_times()
        total = times.user + times.system
        self._cpu.inc(total - self._seen)
        self._seen = total
        self._memory.set(self._process.memory_info().rss)


def snapshot() -> list[Family]:
    """All metrics of this process that have a value."""
    families = []
    for metric in REGISTRY.collect():
        samples = [Sample(s.name, dict(s.labels), s.value) for s in metric.samples]
        if samples:
            families.append(Family(metric.name, metric.type, metric.documentation, samples))
    return families


_REASONS: dict[str, str] = {}


def show_breaker(service: str, state: int, reason: str) -> None:
    """Show a breaker's state, and the one reason that it is in."""
    BREAKER_STATE.labels(service).set(state)
    if before := _REASONS.pop(service, ""):
        BREAKER_REASON.remove(service, before)
    if reason:
        _REASONS[service] = reason
        BREAKER_REASON.labels(service, reason).set(1)
