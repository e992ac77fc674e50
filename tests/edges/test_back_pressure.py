"""An API outage: at most twice MAX_IN_FLIGHT tasks are leased, nothing grows, no process works, and probes are few."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from common.api.patch_queue import MOST_PROBES
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import pipeline_with_own_sandbox

MAX_IN_FLIGHT = 200
TASKS = 1000
WATCHED_S = 5.0
"""How long the pipeline is measured during the outage."""
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is charged
    "MAX_IN_FLIGHT": MAX_IN_FLIGHT,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "RETRY_BACKOFF_FACTOR": 1,  # a probe every 0.5 to 1 s, without growing pauses
    "LEASE_SECONDS": 3,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), **SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def at_rest(outside: Sandbox, pipeline: Pipeline) -> None:
    """Wait until the outage of the previous test is over, and its tasks are done."""
    pipeline.wait_ready()
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0)
    pipeline.wait_until(lambda: fact(pipeline, "publisher", "outbox") == 0, "an empty outbox")


def processes_of(pipeline: Pipeline) -> list[psutil.Process]:
    return [psutil.Process(program["pid"]) for program in pipeline.programs().values()]


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def memory(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def fact(pipeline: Pipeline, stage: str, name: str) -> int:
    return int(pipeline.get("/health")[1]["processes"][stage][name])


def not_refused(pipeline: Pipeline) -> int:
    return fact(pipeline, "fetcher", "leased") - fact(pipeline, "fetcher", "refused")


def probes(pipeline: Pipeline) -> int:
    return len([event for event in pipeline.events("breaker_half_open") if event["service"] == "api"])


def test_an_api_outage_stops_all_work_and_loses_no_task(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.fault("api", method="PATCH", status=503)
    outside.queue(TASKS)
    pipeline.wait_until(lambda: fact(pipeline, "publisher", "outbox") >= MAX_IN_FLIGHT, "the outbox to be full")
    pipeline.wait_until(lambda: probes(pipeline) >= 2, "the breaker to probe")
    processes = processes_of(pipeline)
    polls_before = outside.summary()["api"]["gets"]
    requests, probes_before, paid_before = (
        outside.summary()["api"]["requests"],
        probes(pipeline),
        outside.summary()["openai"]["inputs"],
    )
    used, before = cpu(processes), memory(processes)
    pipeline.run_for(WATCHED_S)
    spent, grown = cpu(processes) - used, memory(processes) - before
    sent, probes_sent = outside.summary()["api"]["requests"] - requests, probes(pipeline) - probes_before
    # only a task whose result was sent in vain leaves its room to another one
    assert not_refused(pipeline) <= MAX_IN_FLIGHT
    assert outside.summary()["openai"]["inputs"] - paid_before <= MOST_PROBES * (probes_sent + 1)
    assert WATCHED_S / 2 <= probes_sent <= 2 * WATCHED_S + 2
    polls = outside.summary()["api"]["gets"] - polls_before
    assert sent - polls <= MOST_PROBES * (probes_sent + 1)
    assert polls <= WATCHED_S / 0.5 + 2
    assert spent < 0.15 * WATCHED_S  # of one core, with the pages that this test reads
    assert grown < 4 * 2**20
    assert pipeline.get("/ready")[0] == 503

    outside.clear_faults()
    outside.wait_until(lambda summary: summary["api"]["tasks"].get("succeeded") == TASKS)
    summary = outside.summary()
    assert (summary["api"]["accepted_twice"], summary["openai"]["paid_again"]) == (0, 0)
    assert not pipeline.events("leases_expired")


def test_each_change_of_the_circuit_breaker_is_logged_once_with_its_reason(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    before = len(pipeline.events())

    def changes() -> list[tuple[str, str]]:
        new = [event for event in pipeline.events()[before:] if event["stage"] == "publisher"]
        return [(event["event"], event["reason"]) for event in new if event["event"].startswith("breaker_")]

    outside.fault("api", method="PATCH", status=503)
    outside.queue(20)
    pipeline.wait_until(lambda: len(changes()) >= 5, "the breaker to probe twice")
    outside.clear_faults()
    pipeline.wait_until(lambda: changes()[-1][0] == "breaker_closed", "the breaker to close")
    names = [name for name, _ in changes()]
    assert names == [*["breaker_opened", "breaker_half_open"] * (len(names) // 2), "breaker_closed"]
    assert {reason for _, reason in changes()[:-1]} == {"PATCH answered 503"}


def test_the_state_of_the_circuit_breaker_and_its_reason_are_on_the_pages(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.fault("api", status=500)
    outside.queue(20)
    state = 'circuit_breaker_state{service="api"}'

    def opened() -> bool:
        metrics = str(pipeline.get("/metrics")[1])
        return any(f"{state} {value}" in metrics for value in ("1.0", "2.0"))

    pipeline.wait_until(opened, "the breaker to open")
    metrics, (status, ready) = str(pipeline.get("/metrics")[1]), pipeline.get("/ready")
    assert 'circuit_breaker_reason{service="api",reason="' in metrics or 'circuit_breaker_reason{reason="' in metrics
    assert status == 503, ready
    pipeline.wait_until(lambda: "answered 500" in str(pipeline.get("/ready")), "the reason on /ready")
    outside.clear_faults()
    pipeline.wait_ready()
    pipeline.wait_until(lambda: f"{state} 0.0" in str(pipeline.get("/metrics")[1]), "the breaker to close")
    pipeline.wait_until(
        lambda: "circuit_breaker_reason{" not in str(pipeline.get("/metrics")[1]), "no reason to be left"
    )


def test_a_restarted_stage_probes_the_api_at_once(outside: Sandbox, pipeline: Pipeline) -> None:
    """A circuit breaker is not stored: the new process tries at once."""
    outside.fault("api", status=503, headers={"Retry-After": "600"})
    outside.queue(20)
    pipeline.wait_until(lambda: "throttles polls" in str(pipeline.get("/ready")), "the API to ask for a pause")
    outside.clear_faults()
    for stage in ("fetcher", "publisher"):
        pipeline.kill(stage)
    pipeline.wait_ready()  # in far less time than the API has asked for
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0)
