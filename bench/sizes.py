"""How large a benchmark is: in `make bench`, in `make bench-quick`, and in the tests of the benchmarks."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """What a benchmark takes of it, it says itself; the rest it ignores."""

    tasks: int = 0
    """Tasks, or texts, in one run."""
    runs: int = 1
    """How often everything is measured; the table shows each run and the median."""
    seconds: float = 0.0
    """How long something is watched."""
    steps: tuple[int, ...] = ()
    """The numbers of processes to compare."""
