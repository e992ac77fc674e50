"""What processes use, read from /proc: CPU time, memory, descriptors. Linux only, as supervisord's own tests are."""

from __future__ import annotations

import contextlib
import re
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread

import psutil

from sandbox.pipeline import Pipeline

MIB = 2**20
SAMPLE_S = 0.25
"""Seconds between two samples of `Peak`."""
_MEANWHILE = (OSError, psutil.Error, HTTPException, xmlrpc.client.Error)
"""A process may end while it is looked at, and supervisord may still be starting."""
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def pipeline_pids(pipeline: Pipeline) -> dict[str, int]:
    """The processes of a pipeline by the names of their programs, supervisord included."""
    pids = {name: int(program["pid"]) for name, program in pipeline.programs().items() if program["pid"]}
    return pids | {"supervisord": int(pipeline.supervisor("getPID"))}


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, user and system; 0 if it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process, of its running descendants, and of those that have ended and were waited for."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def pss_bytes(pid: int) -> int:
    """The proportional set size: private memory, and of each shared page the part of this process."""
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) * 1024 if found else 0


def rss_bytes(pid: int) -> int:
    """The resident set size."""
    return int(psutil.Process(pid).memory_info().rss)


def wakeups(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far, and so were woken again."""
    return int(psutil.Process(pid).num_ctx_switches().voluntary)


def descriptor_count(pid: int) -> int:
    """The number of open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def disk_bytes(folder: Path) -> int:
    """The bytes that the files in a folder take on the disk; a file of LMDB is sparse."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def each(pids: Mapping[str, int], read: Callable[[int], float]) -> dict[str, float]:
    """One value for each process, by program."""
    return {name: float(read(pid)) for name, pid in pids.items()}


class Peak:
    """The highest total, over time, of a quantity of some processes, with its parts at that moment."""

    def __init__(self, sample: Callable[[], dict[str, float]]) -> None:
        self._sample = sample
        self.parts: dict[str, float] = {}

    @property
    def total(self) -> float:
        """The highest total."""
        return sum(self.parts.values())

    @contextlib.contextmanager
    def watching(self) -> Iterator[Peak]:
        """Sample on a thread until the block ends."""
        ended = Event()

        def watch() -> None:
            while not ended.wait(SAMPLE_S):
                with contextlib.suppress(*_MEANWHILE):
                    parts = self._sample()
                    if sum(parts.values()) > self.total:
                        self.parts = parts

        thread = Thread(target=watch, name="peak")
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()
