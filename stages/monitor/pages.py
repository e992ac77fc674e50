"""The pages, rendered from the latest view when a request comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from common import __version__
from common.process import clock, metrics
from common.process.actions import Instant
from common.settings.settings import Mode, Settings
from common.wire.parts import Family, QuotaWindow, Sample
from common.wire.wiring import stage_of
from stages.monitor.actions import PublishView
from stages.monitor.view import View

JSON = "application/json"


class HttpResponse(NamedTuple):
    """The response to one request."""

    status: int
    """The HTTP status."""
    content_type: str
    """The value of its `Content-Type` header."""
    body: bytes
    """Sent to GET; HEAD gets only its length."""


def page(status: int, content: Any) -> HttpResponse:
    """A response in JSON; values that JSON does not know are shown as text."""
    return HttpResponse(status, JSON, orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS))


def expected_instances(settings: Settings) -> list[str]:
    """Every process that supervisord starts."""
    embedders = [f"embedder_{number:02d}" for number in range(settings.embedder_processes)]
    return ["fetcher", "token_broker", "rate_limiter", *embedders, "publisher", "monitor"]


class Pages:
    """The page of each path; `publish` is called by the loop, `answer` by any thread."""

    def __init__(self, settings: Settings, view: View, now: Callable[[], Instant] = clock.now) -> None:
        self._settings = settings
        self._view = view
        self._now = now
        self._catalogue = [Family(m.name, m.type, m.documentation, []) for m in metrics.REGISTRY.collect()]
        self._paths = {"/health": self._health, "/ready": self._ready, "/metrics": self._metrics}

    def publish(self, action: PublishView) -> None:
        """Use this view from now on."""
        self._view = action.view

    def answer(self, target: str) -> HttpResponse:
        """Render the page that the target of a request names."""
        render = self._paths.get(target.partition("?")[0])
        if render is None:
            return page(404, {"error": "not found", "pages": list(self._paths)})
        return render(self._view, self._now())

    def _health(self, view: View, now: Instant) -> HttpResponse:
        reasons = view.missing(now)
        settings = self._settings
        content = {
            "status": "unhealthy" if reasons else "healthy",
            "service": "ai-task-processor",
            "version": __version__,
            "reasons": reasons,
            "mode": settings.mode,
            "mock": settings.mode is Mode.MOCK,
            "processes": {name: _process(view, name, now) for name in view.shown(now)},
            "rate_limiting": {
                "enabled": settings.rate_limit_enabled,
                "strategy": settings.rate_limit_strategy,
                "current_usage": _current_usage(view.windows()),
                "windows": [_window(window) for window in view.windows()],
            },
        }
        return page(503 if reasons else 200, content)

    def _ready(self, view: View, now: Instant) -> HttpResponse:
        reasons, notices = view.obstacles(now), view.notices(now)
        content = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        return page(503 if reasons else 200, {**content, "notices": notices} if notices else content)

    def _metrics(self, view: View, now: Instant) -> HttpResponse:
        registry = CollectorRegistry()
        registry.register(
            _Families([*view.families(self._catalogue, now), *_readiness(view, now), *_processes(view, now)])
        )
        return HttpResponse(200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))


class _Families(Collector):
    """Gives merged metrics to prometheus_client, which writes the text format."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, sample.labels, sample.value)
            yield metric


def _readiness(view: View, now: Instant) -> list[Family]:
    """What `/ready` says, in numbers."""
    ready, notices = float(not view.obstacles(now)), float(len(view.notices(now)))
    return [
        _gauge("ai_service_ready", "1 while a task could be processed, else 0: /ready says why", ready),
        _gauge("ai_service_notices", "What is wrong or in progress although tasks are processed: see /ready", notices),
    ]


def _gauge(name: str, documentation: str, value: float) -> Family:
    return Family(name, "gauge", documentation, [Sample(name, {}, value)])


def _processes(view: View, now: Instant) -> list[Family]:
    """The metrics that only the monitor can measure."""
    up = Family("process_up", "gauge", "1 while heartbeats come from the process, else 0", [])
    name = "process_heartbeat_age_seconds"
    ages = Family(name, "gauge", "Time since the last heartbeat of the process", [])
    for instance in view.shown(now):
        age_s = view.age_s(instance, now)
        labels = {"stage": stage_of(instance), "process": instance}
        up.samples.append(Sample("process_up", labels, float(view.alive(instance, now))))
        if age_s is not None:
            ages.samples.append(Sample(name, labels, age_s))
    return [up, ages]


def _process(view: View, instance: str, now: Instant) -> dict[str, Any]:
    seen, age_s = view.seen.get(instance), view.age_s(instance, now)
    if seen is None or age_s is None:
        return {"alive": False, "pid": None, "age_seconds": None}
    alive, pid = view.alive(instance, now), seen.beat.pid
    known = {"alive": alive, "pid": pid, "age_seconds": round(age_s, 1), "restarts": seen.restarts}
    return {**known, **seen.beat.facts, **known}


def _current_usage(windows: Sequence[QuotaWindow]) -> dict[str, Any]:
    """The global limits on tasks that are set, by period."""
    shown = ("current", "limit", "remaining", "reset_at")
    tasks = {window.period: _window(window) for window in windows if window.unit == "tasks" and not window.scope}
    return {period: {name: window[name] for name in shown} for period, window in tasks.items()}


def _window(window: QuotaWindow) -> dict[str, Any]:
    return {
        "scope": window.scope,
        "unit": window.unit,
        "period": window.period,
        "current": window.current,
        "limit": window.limit,
        "remaining": window.remaining,
        "reset_at": _iso(window.reset_at),
        "exhausted_at": None if window.exhausted_at is None else _iso(window.exhausted_at),
    }


def _iso(seconds: float) -> str | None:
    """ISO 8601 in UTC; None for a time beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
