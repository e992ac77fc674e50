"""Known series exist from the start of their process, so that `increase()` sees their first values."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from prometheus_client import Counter

from common.api import patches
from common.process import metrics, zero_series
from common.wire.wiring import EDGES, STAGES
from stages.embedder.providers.request_metrics import STATUS
from stages.fetcher import upstream
from stages.fetcher.poll_schedule import SKIPPED_EACH_TIME
from stages.token_broker.token_response import REFUSALS

BEGIN = """
import json, sys
from common.process import metrics, zero_series
stage = sys.argv[1]
zero_series.begin(stage)
if stage == "embedder":
    for provider in ("openai", "ollama"):
        zero_series.begin_provider(provider, ["text-embedding-3-small", ""])
if stage == "fetcher":
    zero_series.begin_task_types(["text_embedding", "text_statistics"])
print(json.dumps([[s.name, s.labels, s.value] for f in metrics.snapshot() if f.kind == "counter" for s in f.samples]))
"""
Series = tuple[str, tuple[tuple[str, str], ...]]


def begun(stage: str) -> dict[Series, float]:
    """The counters of a new process of this stage."""
    done = subprocess.run([sys.executable, "-c", BEGIN, stage], capture_output=True, check=True)
    return {(name, tuple(sorted(labels.items()))): value for name, labels, value in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def all_begun() -> dict[str, dict[Series, float]]:
    return {stage: begun(stage) for stage in STAGES}


def test_every_labelled_counter_begins_in_some_stage(all_begun: dict[str, dict[Series, float]]) -> None:
    names = {name for series in all_begun.values() for name, labels in series if labels}
    labelled = {f"{m._name}_total" for m in vars(metrics).values() if isinstance(m, Counter) and m._labelnames}
    without_start = {"stage_cpu_seconds_total"}  # begins when the process measures itself
    assert names | without_start == labelled


def test_all_series_begin_at_0(all_begun: dict[str, dict[Series, float]]) -> None:
    assert {value for series in all_begun.values() for value in series.values()} == {0.0}


def test_a_failed_task_of_every_type_has_a_series_before_the_first_one_fails(
    all_begun: dict[str, dict[Series, float]],
) -> None:
    for task_type in ("text_embedding", "text_statistics"):
        labels = (("status", "failed"), ("task_type", task_type))
        assert ("ai_tasks_processed_total", labels) in all_begun["fetcher"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_series_for_each_stage_that_sends_to_it(
    stage: str, all_begun: dict[str, dict[Series, float]]
) -> None:
    senders = {sender for sender, receiver in EDGES if receiver == stage} | {"other"}
    found = {dict(labels)["sender"] for name, labels in all_begun[stage] if name == "messages_undecodable_total"}
    assert found == senders


def test_a_labelled_series_of_one_kind_begins_only_where_it_is_counted(
    all_begun: dict[str, dict[Series, float]],
) -> None:
    """Otherwise, after a restart of the monitor, another process' 0 would look like a reset."""
    for name, only in {"oauth2_token_requests_total": "token_broker", "provider_requests_total": "embedder"}.items():
        assert [stage for stage in STAGES if any(known == name for known, _ in all_begun[stage])] == [only]


def test_the_known_values_are_those_that_the_stages_use() -> None:
    assert set(STATUS.values()) < set(zero_series.REQUEST_OUTCOMES)
    assert set(REFUSALS) < set(zero_series.TOKEN_STATUSES)
    assert set(SKIPPED_EACH_TIME) < set(zero_series.SKIPPED)
    zero_series.begin("fetcher")
    zero_series.begin("publisher")
    endpoints = {labels["endpoint"] for labels in (s.labels for m in metrics.API_REQUESTS.collect() for s in m.samples)}
    assert {upstream.PENDING, patches.ENDPOINT} <= endpoints


def test_a_snapshot_is_what_prometheus_client_collects() -> None:
    zero_series.begin("fetcher")
    zero_series.begin_task_types(["text_embedding"])
    metrics.observe("ai_task_processing_duration_seconds", ("text_embedding",), [0.1, 7.0])
    expected = [
        (family.name, family.type, family.documentation, [(s.name, s.labels, s.value) for s in family.samples])
        for family in metrics.REGISTRY.collect()
        if family.samples
    ]
    found = [(f.name, f.kind, f.help, [(s.name, s.labels, s.value) for s in f.samples]) for f in metrics.snapshot()]
    assert found == expected
