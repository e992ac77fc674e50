"""When supervisord is killed, its processes end by themselves, and the next start has everything to itself."""

from __future__ import annotations

from pathlib import Path

import psutil

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import Start

TASKS = 600


def test_the_processes_of_a_killed_supervisord_end_and_the_next_start_carries_on(
    sandbox: Sandbox, start: Start, tmp_path: Path
) -> None:
    pipeline = start(EMBEDDER_PROCESSES=2, PROCESSING_MODE="openai", POLLING_INTERVAL_SECONDS=1)
    sandbox.settings(openai={"latency_seconds": 0.2})
    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] > 0)
    supervisord = psutil.Process(pipeline.programs()["fetcher"]["pid"]).parent()
    assert supervisord is not None
    orphans = supervisord.children(recursive=True)
    assert len(orphans) == 7
    supervisord.kill()
    supervisord.wait(10)
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert alive == []
    with Pipeline(sandbox, pipeline.folder, STATE_DIR=pipeline.environment["STATE_DIR"]) as again:
        again.wait_ready(60)
        sandbox.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, 60)
    assert sandbox.summary()["api"]["digests_differ"] == 0


def test_processes_that_are_just_starting_when_supervisord_is_killed_end_too(sandbox: Sandbox, tmp_path: Path) -> None:
    with Pipeline(sandbox, tmp_path, EMBEDDER_PROCESSES=2) as pipeline:
        pipeline.wait_until(lambda: len(pipeline.left_running()) == 8, "all programs to be spawned")
        pipeline.kill_supervisord()
        pipeline.wait_until(lambda: pipeline.left_running() == [], "all orphans to end")
