"""Each benchmark runs once with tiny numbers, so that it cannot rot. What it measures is not judged here."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest

from bench import installing, pages
from bench.catalog import BENCHMARKS
from bench.figures import Report
from bench.peers import comparison
from bench.running import Run, stand_ins
from bench.sizes import Size
from bench.targets import TARGETS
from tests.needs import missing

NEEDS_NO_NETWORK = {name: peer for name, peer in comparison.PEERS.items() if name.startswith("script")}


def require_installed(*names: str) -> None:
    """Skip the test, or fail it in CI, unless these folders of `.bench` are there: tests install nothing."""
    for name in names:
        if not installing.is_installed(name):
            missing(f"{name} is not installed: python -m bench --install")


def expect_figures(report: Report) -> None:
    assert report.figures
    for figure in report.figures.values():
        assert all(math.isfinite(value) for value in figure.values), figure


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"pages"}))
def test_a_benchmark_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "PEERS", NEEDS_NO_NETWORK)
    report = Report(name)
    BENCHMARKS[name].measure(report, BENCHMARKS[name].tiny)
    expect_figures(report)
    assert not report.notes
    written = json.loads(report.write(tmp_path, {}).read_text())
    assert {figure["name"] for figure in written["figures"]} == set(report.figures)
    expected = {target.figure for target in TARGETS if target.benchmark == name and not of_a_full_run(target.figure)}
    assert expected <= set(report.figures), "a target names a figure that is not measured"


def test_the_pages_of_an_api_that_ignores_the_limit_are_measured() -> None:
    report = Report("pages")
    pages.endless(report, 300, 30)  # the other cases are in test_counts.py
    expect_figures(report)
    of_cases = {f"{case.name}: each task listed" for case in pages.CASES}
    assert {target.figure for target in TARGETS if target.benchmark == "pages"} <= of_cases | set(report.figures)


def of_a_full_run(figure: str) -> bool:
    """Whether a figure is missing in a tiny run: it needs a peer from a registry, or eight embedders."""
    return any(word in figure for word in ("BullMQ", "Celery", "embedders 8"))


@pytest.mark.parametrize("name", ["BullMQ", "Celery"])
def test_a_peer_from_a_registry_processes_every_task(name: str) -> None:
    require_installed(name.lower())
    if not installing.has_redis():
        missing("redis-server is not installed: python -m bench --install")
    with stand_ins() as sandbox:
        run = comparison.run_peer(sandbox, comparison.PEERS[name][0], 40)
        api = sandbox.summary()["api"]
        assert {patch["length"] for task in sandbox.record() for patch in task["patches"]} == {1536}
    assert (run.tasks, api["accepted"], api["accepted_twice"]) == (40, 40, 0)
    assert run.cpu_s["redis"] >= 0  # it may be less than a tick of the clock
    assert sum(run.cpu_s.values()) > 0


def test_a_peer_that_cannot_be_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object) -> Run:
        raise installing.UnavailableError("npm failed: no network")

    monkeypatch.setattr(comparison, "stand_ins", lambda: contextlib.nullcontext(None))
    monkeypatch.setattr(comparison, "run_pipeline", lambda *_: Run(100, 2.0, {"publisher": 1.0}, 0.5, 130))
    monkeypatch.setattr(comparison, "run_peer", unavailable)
    report = Report("peers")
    comparison.measure(report, Size(tasks=100))
    assert report.notes == [f"{name} is left out: npm failed: no network" for name in comparison.PEERS]
    assert report.figures["pipeline: throughput"].values == [50.0]
    assert report.figures["pipeline: each task listed"].values == [1.3]
