"""What a benchmark measured: figures with one value for each run, as a table, and as JSON with machine and versions."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import machine, versions

RESULTS = Path(__file__).parent / "results"
"""Where the JSON goes unless another folder is named. Git ignores it."""


@dataclass
class Figure:
    """One measured quantity."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    """One value for each run, in the order of the runs."""

    @property
    def median(self) -> float:
        """The median of the runs."""
        return float(median(self.values))


@dataclass
class Report:
    """Everything that one benchmark measured."""

    benchmark: str
    figures: dict[str, Figure] = field(default_factory=dict)
    """By name, in the order in which they were first added."""
    notes: list[str] = field(default_factory=list)
    """Sentences that belong to the figures, such as which program was left out and why."""

    def add(self, name: str, unit: str, value: float) -> None:
        """Add the value of one more run."""
        self.figures.setdefault(name, Figure(name, unit)).values.append(float(value))

    def note(self, sentence: str) -> None:
        """Add a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def show(self, console: Console) -> None:
        """Print the table: one row for each figure, one column for each run, and the median."""
        runs = max((len(figure.values) for figure in self.figures.values()), default=0)
        heads = ["median"] if runs == 1 else [*(f"run {number + 1}" for number in range(runs)), "median"]
        table = Table(self.benchmark, "unit", title_justify="left")
        for head in heads:
            table.add_column(head, justify="right")
        for figure in self.figures.values():
            values = [] if runs == 1 else [readable(value) for value in figure.values]
            blanks = [""] * (len(heads) - 1 - len(values))
            table.add_row(figure.name, figure.unit, *values, *blanks, readable(figure.median))
        console.print(table)
        for sentence in self.notes:
            console.print(f"  {sentence}")

    def as_json(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The report with its parameters, the machine and the versions, for `write`."""
        return {
            "benchmark": self.benchmark,
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "parameters": parameters,
            "machine": machine(),
            "versions": versions(),
            "figures": [
                {"name": figure.name, "unit": figure.unit, "median": figure.median, "values": figure.values}
                for figure in self.figures.values()
            ],
            "notes": self.notes,
        }

    def write(self, folder: Path, parameters: dict[str, Any]) -> Path:
        """Write the JSON; an older file of this benchmark is replaced. Returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.json"
        path.write_text(json.dumps(self.as_json(parameters), indent=1) + "\n")
        return path


def readable(value: float) -> str:
    """A number with three or four significant digits and thousands separators."""
    size = abs(value)
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
