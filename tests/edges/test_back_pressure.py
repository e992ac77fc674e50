"""A dead API: results wait up to the window, nothing grows, nobody works, and each probe is one request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

WINDOW = 200
TASKS = 1000
WATCHED = 5.0
"""Seconds."""
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is paid
    "MAX_IN_FLIGHT": WINDOW,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "RETRY_BACKOFF_FACTOR": 1,  # a probe every 0.5 to 1 s, instead of ever fewer
    "LEASE_SECONDS": 3,
}


@pytest.fixture(scope="module")
def pipeline(running: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    running.reset()
    with Pipeline(running, tmp_path_factory.mktemp("p"), **SETTINGS) as started:
        started.wait_ready()
        yield started


def family(pipeline: Pipeline) -> list[psutil.Process]:
    return [psutil.Process(program["pid"]) for program in pipeline.programs().values()]


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def memory(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def fact(pipeline: Pipeline, stage: str, name: str) -> int:
    return int(pipeline.get("/health")[1]["processes"][stage][name])


def probes(pipeline: Pipeline) -> int:
    return len([event for event in pipeline.events("breaker_half_open") if event["service"] == "api"])


def test_a_dead_api_stops_everything_and_loses_nothing(running: Sandbox, pipeline: Pipeline) -> None:
    running.fault("api", method="PATCH", status=503)
    running.queue(TASKS)
    pipeline.wait_until(lambda: fact(pipeline, "publisher", "outbox") == WINDOW, "the window to be full of results")
    pipeline.wait_until(lambda: probes(pipeline) >= 2, "the breaker to probe")
    processes = family(pipeline)
    requests, looked, asked = (
        running.summary()["api"]["requests"],
        probes(pipeline),
        running.summary()["openai"]["inputs"],
    )
    began, used, before = time.monotonic(), cpu(processes), memory(processes)
    pipeline.wait_until(lambda: time.monotonic() > began + WATCHED, "the time to watch")
    spent, grown = cpu(processes) - used, memory(processes) - before
    sent, probed = running.summary()["api"]["requests"] - requests, probes(pipeline) - looked
    assert fact(pipeline, "publisher", "outbox") == fact(pipeline, "fetcher", "leased") == WINDOW
    assert asked == running.summary()["openai"]["inputs"] == WINDOW
    assert WATCHED / 2 <= probed <= 2 * WATCHED + 2
    assert abs(sent - probed) <= 1
    assert spent < 0.15 * WATCHED  # of one core, with the pages that this test reads
    assert grown < 4 * 2**20
    assert pipeline.get("/ready")[0] == 503

    running.clear_faults()
    running.wait_until(lambda told: told["api"]["tasks"].get("succeeded") == TASKS, 30)
    told = running.summary()
    assert (told["api"]["accepted_twice"], told["openai"]["paid_again"]) == (0, 0)
    assert not pipeline.events("leases_expired")


def test_changes_of_the_breaker_are_logged_once_each_with_the_reason(pipeline: Pipeline) -> None:
    changes = [
        event for event in pipeline.events()
        if event["event"].startswith("breaker_") and event["stage"] == "publisher"
    ]  # fmt: skip
    names = [event["event"].removeprefix("breaker_") for event in changes]
    assert names == ["opened", *["half_open", "opened"] * (len(names) // 2 - 1), "half_open", "closed"][: len(names)]
    assert (names[0], names[-1]) == ("opened", "closed")
    assert {event["reason"] for event in changes[:-1]} == {"PATCH answered 503"}


def test_state_and_reason_are_on_the_pages(running: Sandbox, pipeline: Pipeline) -> None:
    running.fault("api", status=500)
    running.queue(20)
    state = 'circuit_breaker_state{service="api"}'

    def opened() -> bool:
        metrics = str(pipeline.get("/metrics")[1])
        return any(f"{state} {value}" in metrics for value in ("1.0", "2.0"))

    pipeline.wait_until(opened, "the breaker to open")
    metrics, (status, ready) = str(pipeline.get("/metrics")[1]), pipeline.get("/ready")
    assert 'circuit_breaker_reason{service="api",reason="' in metrics or 'circuit_breaker_reason{reason="' in metrics
    assert status == 503, ready
    pipeline.wait_until(lambda: "answered 500" in str(pipeline.get("/ready")), "the reason on /ready")
    running.clear_faults()
    pipeline.wait_ready()
    pipeline.wait_until(lambda: f"{state} 0.0" in str(pipeline.get("/metrics")[1]), "the breaker to close")
    pipeline.wait_until(
        lambda: "circuit_breaker_reason{" not in str(pipeline.get("/metrics")[1]), "no reason to be left"
    )


def test_a_restart_probes_at_once(running: Sandbox, pipeline: Pipeline) -> None:
    """Nothing of a breaker is kept: the new process simply tries."""
    running.fault("api", status=500, headers={"Retry-After": "600"})
    running.queue(20)
    pipeline.wait_until(lambda: "asks for patience" in str(pipeline.get("/ready")), "the API to ask for patience")
    running.clear_faults()
    for stage in ("fetcher", "publisher"):
        pipeline.kill(stage)
    began = time.monotonic()
    pipeline.wait_until(lambda: pipeline.get("/ready")[0] == 200, "the service to be ready")
    assert time.monotonic() - began < 10
    running.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0, 30)
