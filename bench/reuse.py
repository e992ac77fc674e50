"""What reuse costs for one text: `python -m bench.reuse`.

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

from stages.embedder.calling.vector_guard import Vector
from stages.embedder.reuse import Reuse, keys_of

BATCH = 256
BATCHES = 40
SIZE_BYTES = 256 * 2**20
LENGTH = 1536


def main() -> None:
    """Print the table; with arguments, be one of its processes."""
    if len(sys.argv) > 1:
        folder, who, processes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        print(json.dumps(measure(folder, who, alone=processes == 1)))
        return
    print(f"{'microseconds a text (medians)':<34}{'1 process':>12}{'2 processes':>14}")
    figures = [run(processes) for processes in (1, 2)]
    for name in figures[0]:
        print(f"{name:<34}{figures[0][name]:>12.1f}{figures[1][name]:>14.1f}")


def run(processes: int) -> dict[str, float]:
    """Measure this number of processes at once, first with new texts and then, in new processes, cold."""
    with tempfile.TemporaryDirectory() as folder:
        rounds = []
        for _ in range(2):
            drop_pages(Path(folder))
            commands = [
                [sys.executable, "-m", "bench.reuse", folder, str(who), str(processes)] for who in range(processes)
            ]
            started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
            results = [json.loads(process.communicate()[0]) for process in started]
            rounds.append({name: float(median(result[name] for result in results)) for name in results[0]})
    warm, cold = rounds
    return {"miss and publish": warm["first"], "hit, warm": warm["again"], "hit, cold": cold["first"]}


def measure(folder: Path, who: str, *, alone: bool) -> dict[str, float]:
    """Recall every batch twice, and publish it the first time if it was missing."""
    reuse = Reuse(folder, SIZE_BYTES, alone=alone)
    vectors = np.random.default_rng(0).random((BATCH, LENGTH), dtype=np.float32)
    batches = [keys_of("p", "v", "m", 0, [f"{who} {number} {i}" for i in range(BATCH)]) for number in range(BATCHES)]
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
