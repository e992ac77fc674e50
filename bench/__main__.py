"""Run benchmarks: `python -m bench NAME …`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from bench import targets
from bench.catalog import BENCHMARKS
from bench.figures import RESULTS, Report
from bench.installing import UnavailableError, install_all
from bench.plots import draw
from bench.sizes import Size

EPILOG = """
Each benchmark prints a table with the figure of every run and the median, and writes it as JSON, with the machine and
the versions, to bench/results/NAME.json (or --results). Only ratios of one run can be compared between machines; close
other programs first. What each measures, and what it does not: docs/benchmarks.md.

  python -m bench peers                      the pipeline against its peers
  python -m bench soak --tasks 1000000       the long run, about five minutes
  python -m bench --quick                    the quick ones (make bench-quick)
  python -m bench --targets                  the table of targets from the results, in Markdown
  python -m bench --plot                     draw docs/images/benchmarks.png from the results
"""


def main() -> int:
    """Read the command line, and run what it names; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Benchmarks of the pipeline, on stand-ins that run beside it on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all of them if none is named")
    parser.add_argument("--list", action="store_true", help="list the benchmarks, and run none")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, and only the quick ones if none is named")
    parser.add_argument("--tasks", type=int, help="tasks in one run, instead of the benchmark's own number")
    parser.add_argument("--runs", type=int, help="how often to measure")
    parser.add_argument("--seconds", type=float, help="how long to watch, where a benchmark watches")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the JSON goes")
    parser.add_argument("--install", action="store_true", help="install the peers into .bench/ now, and run nothing")
    parser.add_argument("--targets", action="store_true", help="print the table of targets, as Markdown")
    parser.add_argument("--plot", action="store_true", help="draw the plot of the README from the results")
    options = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            console.print(f"{name:<10} {benchmark.about}{' (quick)' if benchmark.quick else ''}")
    elif options.install:
        problems = list(install_all())
        console.print("\n".join(problems) or "Everything is installed in .bench/.")
        return 1 if problems else 0
    elif options.targets:
        console.print(targets.markdown(options.results), markup=False, soft_wrap=True)
    elif options.plot:
        return plot(console, options.results)
    else:
        run_all(console, options)
    return 0


def run_all(console: Console, options: argparse.Namespace) -> None:
    """Run the named benchmarks, or all of them."""
    names = options.names or [name for name, benchmark in BENCHMARKS.items() if benchmark.quick or not options.quick]
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"The load average is {busy:.1f}: other programs are running, so trust only the ratios.")
    for name in names:
        size = size_of(name, options)
        report = Report(name)
        console.print(f"{name}: {BENCHMARKS[name].about} …")
        BENCHMARKS[name].measure(report, size)
        report.show(console)
        report.write(options.results, {**size._asdict(), "quick": options.quick})


def size_of(name: str, options: argparse.Namespace) -> Size:
    """The size of a benchmark, with what the command line says instead."""
    benchmark = BENCHMARKS[name]
    size = benchmark.quick if options.quick and benchmark.quick else benchmark.full
    given = {key: getattr(options, key) for key in ("tasks", "runs", "seconds") if getattr(options, key) is not None}
    return size._replace(**given)


def plot(console: Console, results: Path) -> int:
    """Draw the plot; returns the exit status."""
    try:
        console.print(f"Drawn: {draw(results)}", soft_wrap=True)
    except UnavailableError as error:
        console.print(f"Not drawn: {error}", soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
