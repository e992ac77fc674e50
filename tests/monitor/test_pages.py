"""What the pages show."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from common import __version__
from common.process import metrics
from common.process.actions import Instant
from common.settings.settings import PLACEHOLDER_API_KEY, Settings
from common.wire.messages import Heartbeat, decode, encode
from common.wire.parts import QuotaWindow, Sample
from stages.monitor.pages import Pages, expected_instances
from stages.monitor.state import Monitor
from tests import samples
from tests.monitor.beats import ALL, START, beat, counter, gauge, histogram, later
from tests.needs import require


def configured(**changes: Any) -> Settings:
    fields = {
        "processing_mode": "openai",
        "openai_api_key": "s3cret-key",
        "runtime_dir": "/tmp/unused",
    }
    return samples.settings(**{**fields, **changes})


class Shown:
    """Pages over the heartbeats of all expected processes, at a time that the test sets."""

    def __init__(self, **settings: Any) -> None:
        self.now = START
        self.state = Monitor(ALL, START)
        self.pages = Pages(configured(**settings), self.state.view, lambda: self.now)
        for instance in ALL:
            self.receive(beat(instance))

    def receive(self, heartbeat: Heartbeat, now: Instant | None = None) -> None:
        for publish in self.state.on_heartbeat(heartbeat, now or self.now):
            self.pages.publish(publish)

    def json(self, path: str) -> tuple[int, Any]:
        page = self.pages.answer(path)
        assert page.content_type == "application/json"
        return page.status, json.loads(page.body)

    def metrics(self) -> dict[str, Metric]:
        text = self.pages.answer("/metrics").body.decode()
        return {metric.name: metric for metric in text_string_to_metric_families(text)}


def test_every_process_of_supervisord_is_expected() -> None:
    assert expected_instances(configured(embedder_processes=12))[2:5] == ["rate_limiter", "embedder_00", "embedder_01"]
    assert sorted(expected_instances(configured())) == sorted(ALL)


# /health


def test_health_of_a_healthy_service_shows_every_process() -> None:
    shown = Shown(rate_limit_strategy="fixed")
    shown.receive(beat("token_broker", facts={"token_expires_in": 40}))
    shown.now = later(1.26)
    status, health = shown.json("/health")
    assert status == 200
    assert health["processes"].keys() == set(ALL)
    assert health["processes"]["token_broker"] == {
        "alive": True, "pid": 123, "age_seconds": 1.3, "restarts": 0, "token_expires_in": 40,
    }  # fmt: skip
    del health["processes"]
    assert health == {
        "status": "healthy",
        "service": "ai-task-processor",
        "version": __version__,
        "reasons": [],
        "mode": "openai",
        "mock": False,
        "rate_limiting": {"enabled": True, "strategy": "fixed", "current_usage": {}, "windows": []},
    }


def test_health_names_the_processes_that_are_not_alive() -> None:
    shown = Shown()
    shown.now = later(7)
    for instance in ALL[1:]:
        shown.receive(beat(instance))
    status, health = shown.json("/health")
    assert (status, health["status"]) == (503, "unhealthy")
    assert [reason.split(":")[0] for reason in health["reasons"]] == ["fetcher is dead"]
    assert health["processes"]["fetcher"]["alive"] is False


def test_health_is_unhealthy_before_the_first_heartbeat() -> None:
    state = Monitor(ALL, START)
    page = Pages(configured(), state.view, lambda: START).answer("/health")
    health = json.loads(page.body)
    assert page.status == 503
    assert health["reasons"][0] == "waiting for the first heartbeat of fetcher"
    assert health["processes"]["fetcher"] == {"alive": False, "pid": None, "age_seconds": None}


def test_health_shows_mock_mode() -> None:
    for settings in ({"processing_mode": "mock"}, {"openai_api_key": PLACEHOLDER_API_KEY}):
        health = Shown(**settings).json("/health")[1]
        assert (health["mode"], health["mock"]) == ("mock", True)


def test_health_shows_the_global_task_windows_by_period_and_the_details_of_all_windows() -> None:
    shown = Shown(rate_limit_enabled=False)
    reset = 1_793_000_000.5
    windows = [
        QuotaWindow("", "tasks", "minute", 3, 10, 7, reset, reset + 30),
        QuotaWindow("", "tokens", "minute", 300, 1000, 700, reset),
        QuotaWindow("text-embedding-3-large", "tasks", "day", 1, 2, 1, math.inf),
    ]
    shown.receive(beat("rate_limiter", windows=windows))
    limiting = shown.json("/health")[1]["rate_limiting"]
    assert limiting["enabled"] is False
    assert limiting["current_usage"] == {
        "minute": {"current": 3, "limit": 10, "remaining": 7, "reset_at": "2026-10-26T07:33:20Z"}
    }
    assert limiting["windows"][0] == {
        "scope": "", "unit": "tasks", "period": "minute", "current": 3, "limit": 10, "remaining": 7,
        "reset_at": "2026-10-26T07:33:20Z", "exhausted_at": "2026-10-26T07:33:50Z",
    }  # fmt: skip
    assert [(w["scope"], w["unit"], w["exhausted_at"]) for w in limiting["windows"][1:]] == [
        ("", "tokens", None),
        ("text-embedding-3-large", "tasks", None),
    ]
    assert limiting["windows"][2]["reset_at"] is None


def test_a_fact_can_neither_replace_a_field_nor_break_the_page() -> None:
    shown = Shown()
    shown.receive(beat("fetcher", facts={"alive": "yes", "odd": b"\xff", "nan": math.nan, 5: 6}))
    process = shown.json("/health")[1]["processes"]["fetcher"]
    assert process["alive"] is True
    assert process["nan"] is None
    assert process["5"] == 6


# /ready


def test_ready_depends_on_blockers_and_health_does_not() -> None:
    shown = Shown()
    assert shown.json("/ready") == (200, {"status": "ready"})
    shown.receive(beat("fetcher", blockers=["the API does not answer"]))
    reasons = ["fetcher: the API does not answer"]
    assert shown.json("/ready") == (503, {"status": "not ready", "reasons": reasons})
    assert shown.json("/health")[0] == 200


def test_ready_shows_notices_whether_or_not_there_is_a_blocker() -> None:
    shown = Shown()
    facts = {"notices": ["nomic is being fetched: 40 % of 274 MB"]}
    shown.receive(beat("embedder_00", facts=facts))
    assert shown.json("/ready") == (200, {"status": "ready", **facts})
    shown.receive(beat("embedder_00", blockers=["no"], facts=facts))
    expected = {"status": "not ready", "reasons": ["embedder_00: no"], **facts}
    assert shown.json("/ready") == (503, expected)


# /metrics


def test_all_metrics_of_the_service_appear_before_they_have_samples() -> None:
    found = Shown().metrics()
    for metric in metrics.REGISTRY.collect():
        assert found[metric.name].documentation == metric.documentation
        assert found[metric.name].type == metric.type


def test_metrics_are_merged_over_processes_and_restarts() -> None:
    shown = Shown()
    for instance in ("embedder_00", "embedder_01"):
        for boot, done in (("one", 5), ("two", 1)):
            sums = [counter("ai_tasks_processed", done, status="succeeded"), histogram("took_seconds", 1, done)]
            shown.receive(beat(instance, boot, metrics=[*sums, gauge("stage_memory_bytes", done, process=instance)]))
    found = shown.metrics()
    assert found["ai_tasks_processed"].samples[0].value == 12
    assert [sample.value for sample in found["took_seconds"].samples] == [4, 12, 12, 120]
    assert len(found["stage_memory_bytes"].samples) == 2


def test_the_monitor_adds_metrics_of_which_processes_are_alive() -> None:
    shown = Shown()
    shown.now = later(9)
    shown.receive(beat("fetcher"), later(8))
    found = shown.metrics()
    up = {sample.labels["process"]: (sample.labels["stage"], sample.value) for sample in found["process_up"].samples}
    assert [up["fetcher"], up["embedder_00"]] == [("fetcher", 1), ("embedder", 0)]
    ages = {s.labels["process"]: s.value for s in found["process_heartbeat_age_seconds"].samples}
    assert ages["fetcher"] == 1
    assert ages["embedder_00"] == 9
    waiting = Pages(configured(), Monitor(ALL, START).view, lambda: START).answer("/metrics").body.decode()
    assert 'process_up{process="publisher",stage="publisher"} 0.0' in waiting
    assert "process_heartbeat_age_seconds{" not in waiting


def test_promtool_accepts_the_metrics() -> None:
    promtool = require("promtool")
    text = _with_every_metric().pages.answer("/metrics").body
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def _with_every_metric() -> Shown:
    """What a real process sends, with one sample in each family of the registry."""
    shown = Shown()
    metrics.ProcessUsage("fetcher", "fetcher").update()
    families = metrics.snapshot()
    named = {family.name for family in families}
    for metric in metrics.REGISTRY.collect():
        if metric.name not in named:
            make = {"counter": counter, "gauge": gauge, "histogram": lambda name, value: histogram(name, value, value)}
            families.append(make[metric.type](metric.name, 1))
    sent = decode(encode(beat("fetcher", metrics=families)))
    assert isinstance(sent, Heartbeat)
    shown.receive(sent)
    return shown


@hypothesis_settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text()), st.floats(), st.text())
def test_every_label_and_value_is_valid_in_the_text_format(
    labels: dict[str, str], value: float, documentation: str
) -> None:
    shown = Shown()
    family = gauge("odd", 0)
    family.help = documentation
    family.samples = [Sample("odd", labels, value)]
    shown.receive(beat("fetcher", metrics=[family]))
    (sample,) = shown.metrics()["odd"].samples
    assert sample.labels == labels
    assert sample.value == value or math.isnan(value)


# Other paths


@pytest.mark.parametrize("target", ["/", "", "/healthz", "/health/", "//health", "http://[", "/health\x00"])
def test_the_response_to_an_unknown_path_lists_the_pages(target: str) -> None:
    status, found = Shown().json(target)
    assert (status, found) == (404, {"error": "not found", "pages": ["/health", "/ready", "/metrics"]})


def test_the_query_of_a_url_is_ignored() -> None:
    assert Shown().json("/ready?verbose=1")[0] == 200


def test_no_page_shows_a_secret() -> None:
    shown = _with_every_metric()
    pages = [shown.pages.answer(path).body for path in ("/health", "/ready", "/metrics")]
    assert not any(secret in page for page in pages for secret in (b"s3cret-key", b"canary-secret"))
