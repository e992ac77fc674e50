"""A dead API: results wait up to the window, nothing grows, nobody works, and each probe is one request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import alone

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
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with alone(tmp_path_factory.mktemp("p"), **SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def at_rest(outside: Sandbox, pipeline: Pipeline) -> None:
    """Begin when the outage of the test before is over, and its tasks are done."""
    pipeline.wait_ready()
    outside.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0)
    pipeline.wait_until(lambda: fact(pipeline, "publisher", "outbox") == 0, "an empty outbox")


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


def test_a_dead_api_stops_everything_and_loses_nothing(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.fault("api", method="PATCH", status=503)
    outside.queue(TASKS)
    pipeline.wait_until(lambda: fact(pipeline, "publisher", "outbox") == WINDOW, "the window to be full of results")
    pipeline.wait_until(lambda: probes(pipeline) >= 2, "the breaker to probe")
    processes = family(pipeline)
    requests, looked, asked = (
        outside.summary()["api"]["requests"],
        probes(pipeline),
        outside.summary()["openai"]["inputs"],
    )
    used, before = cpu(processes), memory(processes)
    pipeline.let_pass(WATCHED)
    spent, grown = cpu(processes) - used, memory(processes) - before
    sent, probed = outside.summary()["api"]["requests"] - requests, probes(pipeline) - looked
    assert fact(pipeline, "publisher", "outbox") == fact(pipeline, "fetcher", "leased") == WINDOW
    assert asked == outside.summary()["openai"]["inputs"] == WINDOW
    assert WATCHED / 2 <= probed <= 2 * WATCHED + 2
    assert abs(sent - probed) <= 1
    assert spent < 0.15 * WATCHED  # of one core, with the pages that this test reads
    assert grown < 4 * 2**20
    assert pipeline.get("/ready")[0] == 503

    outside.clear_faults()
    outside.wait_until(lambda told: told["api"]["tasks"].get("succeeded") == TASKS)
    told = outside.summary()
    assert (told["api"]["accepted_twice"], told["openai"]["paid_again"]) == (0, 0)
    assert not pipeline.events("leases_expired")


def test_changes_of_the_breaker_are_logged_once_each_with_the_reason(outside: Sandbox, pipeline: Pipeline) -> None:
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


def test_state_and_reason_are_on_the_pages(outside: Sandbox, pipeline: Pipeline) -> None:
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


def test_a_restart_probes_at_once(outside: Sandbox, pipeline: Pipeline) -> None:
    """Nothing of a breaker is kept: the new process simply tries."""
    outside.fault("api", status=500, headers={"Retry-After": "600"})
    outside.queue(20)
    pipeline.wait_until(lambda: "throttles polls" in str(pipeline.get("/ready")), "the throttle on /ready")
    outside.clear_faults()
    for stage in ("fetcher", "publisher"):
        pipeline.kill(stage)
    pipeline.wait_ready()  # in far less time than the API has asked for
    outside.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0)
