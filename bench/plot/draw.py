"""Draws the results of the benchmarks: `python draw.py FOLDER PICTURE`; `bench/plots.py` runs it with matplotlib."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

OURS, OTHERS, FLOOR = "#1f6feb", "#9aa4b2", "#d1242f"
NAMES = {"script": "asyncio + aiohttp", "script on uvloop": "the same on uvloop", "pipeline": "this pipeline"}


def figures(results: Path, benchmark: str) -> dict[str, float]:
    """The medians of a benchmark by name; none if it has not run."""
    path = results / f"{benchmark}.json"
    found = json.loads(path.read_text())["figures"] if path.exists() else []
    return {figure["name"]: float(figure["median"]) for figure in found}


def of_programs(axes: Any, results: Path, suffix: str, title: str) -> None:
    """A bar for each program."""
    medians = figures(results, "peers")
    bars = {name.removesuffix(suffix): value for name, value in medians.items() if name.endswith(suffix)}
    bars = {name: value for name, value in bars.items() if "/" not in name}
    names = [NAMES.get(name, name) for name in bars]
    drawn = axes.barh(names, bars.values(), color=[OURS if name == "pipeline" else OTHERS for name in bars])
    axes.bar_label(drawn, labels=[f"{value:,.0f}" for value in bars.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_title(title)


def throughput(axes: Any, results: Path) -> None:
    """Tasks a second of each program."""
    of_programs(axes, results, ": throughput", "tasks a second")


def cpu(axes: Any, results: Path) -> None:
    """CPU time a task of each program, and the floor."""
    of_programs(axes, results, ": CPU", "CPU time a task, µs (all processes)")
    floor = figures(results, "floor").get("floor: all four")
    if floor:
        axes.axvline(floor, color=FLOOR, linewidth=1.5, label=f"work that cannot be avoided: {floor:.0f} µs")
        axes.legend(loc="upper right", frameon=False)


def scaling(axes: Any, results: Path) -> None:
    """Tasks a second over the number of embedders."""
    pattern = re.compile(r"embedders (\d+): throughput")
    points = {int(m[1]): rate for name, rate in figures(results, "scaling").items() if (m := pattern.fullmatch(name))}
    counts = sorted(points)
    axes.plot(counts, [points[counts[0]] * count / counts[0] for count in counts], "--", color=OTHERS, label="linear")
    axes.plot(counts, [points[count] for count in counts], "o-", color=OURS, label="measured")
    axes.set_title("tasks a second, embedders with a provider of 50 ms")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def soak(axes: Any, results: Path) -> None:
    """Tasks a second in each tenth of the long run."""
    medians = figures(results, "soak")
    rates = [value for name, value in medians.items() if name.startswith("part ") and name.endswith(": throughput")]
    axes.plot(range(1, len(rates) + 1), rates, "o-", color=OURS)
    axes.set_title("tasks a second, tenths of the long run")
    axes.set_ylim(bottom=0)


PANELS: tuple[tuple[str, Callable[[Any, Path], None]], ...] = (
    ("peers", throughput),
    ("peers", cpu),
    ("scaling", scaling),
    ("soak", soak),
)


def main() -> None:
    """Draw a panel for each benchmark that has run, two in a row."""
    results, picture = Path(sys.argv[1]), Path(sys.argv[2])
    panels = [panel for name, panel in PANELS if (results / f"{name}.json").exists()]
    rows = (len(panels) + 1) // 2
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, grid = plt.subplots(rows, 2, figsize=(11, 2.9 * rows), squeeze=False, layout="constrained")
    for axes, panel in zip(grid.flat, panels, strict=False):
        panel(axes, results)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
