"""Tables, JSON, targets and the command line of the benchmarks, without running any."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import __main__ as command
from bench import plots, targets
from bench.catalog import BENCHMARKS
from bench.figures import Report, readable
from bench.machine import ROOT
from bench.peers.comparison import PEERS
from bench.sizes import Size
from tests.bench.test_benchmarks import require_installed

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def report() -> Report:
    made = Report("peers")
    for value in (2.0, 1.0, 4.0):
        made.add("pipeline / script: tasks/s", "times", value)
    made.add("pipeline / script: CPU a task", "times", 0.9)
    made.note("Celery is left out: no network")
    return made


def test_a_table_shows_every_run_and_the_median(report: Report) -> None:
    out = io.StringIO()
    report.show(Console(file=out, width=120))
    (row,) = [line for line in out.getvalue().splitlines() if "script: tasks/s" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "pipeline / script: tasks/s", "times", "2", "1", "4", "2",
    ]  # fmt: skip
    assert "Celery is left out: no network" in out.getvalue()


def test_a_note_is_kept_once(report: Report) -> None:
    report.note("Celery is left out: no network")
    assert len(report.notes) == 1


def test_the_json_has_figures_parameters_machine_and_versions(report: Report, tmp_path: Path) -> None:
    written = json.loads(report.write(tmp_path / "new", {"tasks": 5}).read_text())
    assert written["figures"][0]["values"] == [2.0, 1.0, 4.0]
    assert written["figures"][0]["median"] == 2.0
    assert written["parameters"] == {"tasks": 5}
    assert written["machine"]["cores"] > 0
    assert {"python", "commit", "pycurl", "lmdb"} <= set(written["versions"])


def test_the_targets_are_a_markdown_table_with_the_verdicts(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path, {})
    table = targets.markdown(tmp_path)
    assert "| tasks/s against the script | at least 1.6 times | 2 (1 to 4) | yes |" in table
    assert "| CPU a task against the script's | at most 0.85 times | 0.90 | no |" in table
    assert "| idle CPU, polling every 30 s | at most 0.5 % of a core | not measured | |" in table


def test_a_target_has_one_bound_and_a_unit() -> None:
    for target in targets.TARGETS:
        assert (target.least is None) != (target.most is None)
        assert target.unit in {"times", "s", "ms", "MiB", "% of a core"}
    units = {target.figure: target.unit for target in targets.TARGETS}
    assert units["limit ignored: first PATCH after the first byte"] == "s"


def test_every_target_is_of_a_benchmark() -> None:
    assert {target.benchmark for target in targets.TARGETS} <= set(BENCHMARKS)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (5.0, "5"), (0.0, "0")]
)
def test_numbers_have_three_or_four_digits(value: float, text: str) -> None:
    assert readable(value) == text


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--list"])
    assert command.main() == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(BENCHMARKS)


def test_an_unknown_benchmark_is_an_error_that_names_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "nothing"])
    with pytest.raises(SystemExit):
        command.main()


def test_the_command_line_changes_the_size_and_where_the_results_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: dict[str, Size] = {}

    def measure(report: Report, size: Size) -> None:
        sizes[report.benchmark] = size
        report.add("nothing", "s", 1)

    for name, benchmark in BENCHMARKS.items():
        monkeypatch.setitem(BENCHMARKS, name, benchmark._replace(measure=measure))
    into = ["--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", "floor", "soak", "--tasks", "7", "--runs", "2", *into])
    assert command.main() == 0
    assert {name: (size.tasks, size.runs) for name, size in sizes.items()} == {"floor": (7, 2), "soak": (7, 2)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["floor.json", "soak.json"]
    sizes.clear()
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", *into])
    assert command.main() == 0
    assert sizes == {name: benchmark.quick for name, benchmark in BENCHMARKS.items() if benchmark.quick}


def test_the_plot_is_a_png_with_a_panel_for_each_result(tmp_path: Path) -> None:
    require_installed("plot")
    peers, scaling = Report("peers"), Report("scaling")
    for name in ("pipeline", *PEERS):
        peers.add(f"{name}: throughput", "tasks/s", 1000)
        peers.add(f"{name}: CPU", "µs/task", 100)
    for embedders in (1, 2):
        scaling.add(f"embedders {embedders}: throughput", "tasks/s", 300 * embedders)
    for report in (peers, scaling):
        report.write(tmp_path, {})
    picture = plots.draw(tmp_path, tmp_path / "plot.png")
    assert picture.read_bytes().startswith(PNG)


def test_without_results_there_is_no_plot_and_a_reason(tmp_path: Path) -> None:
    arguments: list[Any] = [sys.executable, "-m", "bench", "--plot", "--results", tmp_path]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "run: python -m bench peers" in done.stdout
