"""A real Prometheus reads a real pipeline, and its alerts report the very first failures and broken frames."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import zmq

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline, free_port
from tests.deploy.tools import ROOT
from tests.needs import require
from tests.pipelines import ready_pipeline
from tests.waiting import wait_until

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: ai-task-processor
    static_configs: [{{targets: {targets}}}]
"""


class Prometheus:
    """A running server that reads these ports."""

    def __init__(self, port: int) -> None:
        self._port = port

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?query={quote(expression)}", timeout=5) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression with one sample; 0 if it has none."""
        return sum(float(sample["value"][1]) for sample in self.query(expression))

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire, as (alert, instance)."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {(sample["metric"]["alertname"], sample["metric"]["instance"]) for sample in found}


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """Prometheus with the alerts of this project. They fire without delay: their `for` is left out."""
    program = require("prometheus")
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    (folder / "alerts.yml").write_text(re.sub(r"(?m)^ +for: .*\n", "", rules))
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(targets=json.dumps(targets)))
    port = free_port()
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        server = Prometheus(port)

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return len(server.query("up == 1")) == len(targets)
            return False

        try:
            wait_until(is_up, 60, "Prometheus to read all targets")
            yield server
        finally:
            process.send_signal(signal.SIGTERM)


def send_garbage(pipeline: Pipeline, receiver: str) -> None:
    """Send a frame that cannot be decoded, as the publisher."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(f"ipc://{pipeline.folder / 'state' / 'run' / receiver}.sock")
        socket.send_multipart((b"publisher", b"\xff"))


@pytest.mark.timeout(240)
def test_the_first_failures_of_a_pipeline_raise_alerts_for_it_alone(folder: Path, tmp_path: Path) -> None:
    names = ("good", "bad")
    with contextlib.ExitStack() as stack:
        pipelines = {}
        for name in names:
            sandbox = stack.enter_context(Sandbox.start())
            (folder / name).mkdir()
            settings = {"POLLING_INTERVAL_SECONDS": 0.3, "PROCESSING_MODE": "mock"}
            pipelines[name] = stack.enter_context(ready_pipeline(sandbox, folder / name, **settings))
        targets = {name: f"127.0.0.1:{pipeline.port}" for name, pipeline in pipelines.items()}
        server = stack.enter_context(prometheus(tmp_path, list(targets.values())))
        assert server.value('count(ai_tasks_processed_total{status="failed"})') >= len(names)
        assert {sample["metric"]["instance"] for sample in server.query("process_up")} == set(targets.values())
        assert "fetcher" in {sample["metric"]["process"] for sample in server.query("process_up")}

        began = time.monotonic()
        pipelines["good"].sandbox.queue(500)
        pipelines["bad"].sandbox.queue_tasks([{"text": ""}] * 1000)
        pipelines["bad"].sandbox.wait_until(lambda summary: summary["api"]["tasks"].get("failed") == 1000, 60)
        send_garbage(pipelines["bad"], "fetcher")
        bad = targets["bad"]
        expected = {("AiTasksFailing", bad), ("AiTaskMessagesUndecodable", bad)}
        wait_until(lambda: expected <= server.firing(), 30, "both alerts")
        print(f"both alerts fired {time.monotonic() - began:.1f} s after the tasks were queued")
        failed = f'increase(ai_tasks_processed_total{{status="failed", instance="{bad}"}}[5m])'
        wait_until(lambda: server.value(failed) >= 1000, 30, "all failures to be in the increase")
        alone = {alert for alert, instance in server.firing() if instance == targets["good"]}
        assert not alone & {alert for alert, _ in expected}
