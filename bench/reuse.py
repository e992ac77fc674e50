"""What reuse costs for one text.

Batches of 256 vectors of 1,536 float32. "miss and publish" recalls a new batch and publishes its vectors; "hit" recalls
it again; "cold" does so in a new process with the file's pages dropped from the page cache. All are medians over the
batches, in microseconds a text, for one process and for two at once. The folder is TMPDIR.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from bench.figures import Report
from bench.sizes import Size
from stages.embedder.calling.vector_guard import Vector
from stages.embedder.reuse import Reuse, keys_of

BATCH = 256
SIZE_BYTES = 256 * 2**20
LENGTH = 1536


def measure(report: Report, size: Size) -> None:
    """Measure one process and two at once, each with `size.tasks` texts."""
    for _ in range(size.runs):
        for processes in size.steps:
            for name, microseconds in run(processes, max(1, size.tasks // BATCH)).items():
                report.add(f"{name}, {processes} at once", "µs/text", microseconds)


def main() -> None:
    """Be one of the processes that are measured."""
    folder, who, processes, batches = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.stdout.write(json.dumps(recalled(folder, who, batches, alone=processes == 1)))


def run(processes: int, batches: int) -> dict[str, float]:
    """Measure this number of processes at once, first with new texts and then, in new processes, cold."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = []
        for _ in range(2):
            drop_pages(Path(folder))
            commands = [
                [sys.executable, "-m", "bench.reuse", folder, str(who), str(processes), str(batches)]
                for who in range(processes)
            ]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
            results = [json.loads(process.communicate()[0]) for process in started]
            rounds.append({name: float(median(result[name] for result in results)) for name in results[0]})
    warm, cold = rounds
    return {"miss and publish": warm["first"], "hit, warm": warm["again"], "hit, cold": cold["first"]}


def recalled(folder: Path, who: str, count: int, *, alone: bool) -> dict[str, float]:
    """Recall every batch twice, and publish it the first time if it was missing."""
    reuse = Reuse(folder, SIZE_BYTES, alone=alone)
    vectors = np.random.default_rng(0).random((BATCH, LENGTH), dtype=np.float32)
    batches = [keys_of("p", "v", "m", 0, [f"{who} {number} {i}" for i in range(BATCH)]) for number in range(count)]
    first = [timed(lambda batch=batch: once(reuse, batch, vectors)) for batch in batches]  # type: ignore[misc]
    again = [timed(lambda batch=batch: once(reuse, batch, vectors)) for batch in batches]  # type: ignore[misc]
    reuse.close()
    return {"first": median(first), "again": median(again)}


def once(reuse: Reuse, keys: list[bytes], vectors: Vector) -> None:
    """Do what a batch does, without a provider."""
    mine = reuse.recall(keys, LENGTH).mine
    if mine:
        reuse.publish(dict(zip(mine, vectors, strict=False)))
        reuse.release(mine)


def timed(action: Callable[[], None]) -> float:
    """Microseconds a text."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) / BATCH * 1e6


def drop_pages(folder: Path) -> None:
    """Drop the files' pages from the page cache."""
    for path in folder.rglob("*.mdb"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    main()
