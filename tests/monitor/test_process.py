"""The monitor as a process: real heartbeats in, real pages out."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.wire.sockets import Sockets
from common.wire.wiring import Wiring
from tests.monitor.beats import ALL, beat, counter
from tests.processes import start_module
from tests.waiting import wait_until


@pytest.fixture
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process, and where its pages are."""
    with start_module("stages.monitor", folder, subprocess.PIPE, METRICS_PORT="0") as process:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())
        yield process, f"http://127.0.0.1:{listening['port']}"
        process.kill()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def test_heartbeats_of_all_processes_make_the_service_healthy_and_ready(
    folder: Path, running: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = running
    status, body = get(f"{url}/health")
    assert (status, json.loads(body)["status"]) == (503, "unhealthy")
    others = [Sockets(Wiring(folder / "run", instance)) for instance in ALL if instance != "monitor"]
    health: dict[str, Any] = {}

    def healthy() -> bool:
        for sockets in others:
            instance = sockets.wiring.instance
            sockets.send("monitor", beat(instance, metrics=[counter("ai_tasks_processed", 1)]))
        health.update(json.loads(get(f"{url}/health")[1]))
        return bool(health["status"] == "healthy")

    wait_until(healthy, what="all to be healthy")
    assert health["processes"]["monitor"]["pid"] == process.pid
    assert get(f"{url}/ready") == (200, b'{"status":"ready"}')
    assert b"\nai_tasks_processed_total 5.0\n" in get(f"{url}/metrics")[1]
    for sockets in others:
        sockets.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
