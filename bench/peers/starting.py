"""Starts the peers, and the Redis that two of them need, each by its process id and stopped at the end."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_plus

from bench.installing import BULLMQ, CELERY, UnavailableError, node_project, python_packages, redis_server
from bench.processes import each, tree_cpu_s
from bench.running import short_folder
from sandbox.client import Sandbox
from sandbox.pipeline import ROOT
from sandbox.stopping import stop
from stages.embedder.providers.mock import vectors

START_S = 60.0
STOP_S = 10.0
VECTOR_COUNT = 1024
"""Vectors in the file that peers read; one is used again after this many tasks."""
NODE_PROCESSES = 1
"""On two cores, a second process of Node gave fewer tasks a second: Redis and the stand-in need the other core."""
NODE_CONCURRENCY = 50
"""Jobs at a time in one process of Node; the fastest of 16, 50 and 150 when measured."""
CELERY_PROCESSES = 2
"""Child processes of Celery's worker; three were not faster on two cores, one was slower."""


class RunningPeer(NamedTuple):
    """A peer that waits for its start."""

    go: Callable[[], None]
    """Lets it begin."""
    usage: Callable[[], dict[str, float]]
    """The CPU seconds of its processes so far, by name."""


Start = Callable[[Sandbox, int], contextlib.AbstractContextManager[RunningPeer]]
"""Starts a peer for this number of tasks. Raises `UnavailableError` if it cannot be had here."""


@contextlib.contextmanager
def process(command: list[str], folder: Path, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is terminated at the end, and killed if that does not help; its errors go to `log`."""
    environment = {**os.environ, **variables}
    with log.open("ab") as errors:
        started = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        yield started
    finally:
        with contextlib.suppress(OSError):
            started.stdin.close()
        stop(started, STOP_S)
        started.stdout.close()


def wait_ready(peer: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the line that says that a peer is ready; Celery prints others before it."""
    assert peer.stdout is not None
    if b"ready\n" not in iter(peer.stdout.readline, b""):
        words = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        raise UnavailableError(f"it does not start: {words[-1][:200]}")


def started(peer: subprocess.Popen[bytes], **others: subprocess.Popen[bytes]) -> RunningPeer:
    """A peer with its other processes."""
    pids = {"peer": peer.pid, **{name: other.pid for name, other in others.items()}}

    def go() -> None:
        assert peer.stdin is not None
        peer.stdin.write(b"go\n")
        peer.stdin.flush()

    return RunningPeer(go, lambda: each(pids, tree_cpu_s))


def credentials(sandbox: Sandbox) -> dict[str, str]:
    """The variables that connect a peer to the stand-ins; id and secret are encoded as Ory wants them."""
    return {
        **sandbox.environment(),
        "OAUTH2_CLIENT_ID": quote_plus(sandbox.client_id),
        "OAUTH2_CLIENT_SECRET": quote_plus(sandbox.client_secret),
    }


def write_vectors(path: Path) -> str:
    """Write vectors of the service's mock, one a line: little-endian float32 in base64, as OpenAI sends them."""
    rows = vectors("text-embedding-3-small", [f"text {number}" for number in range(VECTOR_COUNT)])
    path.write_bytes(b"\n".join(base64.b64encode(row.astype("<f4").tobytes()) for row in rows) + b"\n")
    return str(path)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Redis on a Unix socket that keeps nothing on the disk, and the path of its socket."""
    command, variables = redis_server()
    path = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    log = folder / "redis.log"
    with process([*command, *options, "--logfile", str(log)], folder, folder / "redis.err", **variables) as server:
        deadline = time.monotonic() + START_S
        while not path.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                words = (folder / "redis.err").read_text() + (log.read_text() if log.exists() else "")
                raise UnavailableError(f"redis-server does not start: {words.strip()[-200:]}")
            time.sleep(0.02)
        yield server, str(path)


@contextlib.contextmanager
def script(sandbox: Sandbox, tasks: int, *, uvloop: bool = False) -> Iterator[RunningPeer]:
    """The bare script, on asyncio's own event loop or on uvloop's."""
    with short_folder() as folder:
        command = [sys.executable, "-m", "bench.peers.script", str(tasks), *(["--uvloop"] if uvloop else [])]
        with process(command, ROOT, folder / "log", **credentials(sandbox)) as peer:
            wait_ready(peer, folder / "log")
            yield started(peer)


@contextlib.contextmanager
def bullmq(sandbox: Sandbox, tasks: int) -> Iterator[RunningPeer]:  # noqa: ARG001  it takes what is pending
    """BullMQ on Redis, one process of Node."""
    project = node_project(BULLMQ)
    with short_folder() as folder, redis(folder) as (server, path):
        variables = {
            **credentials(sandbox),
            "REDIS_SOCKET": path,
            "VECTORS": write_vectors(folder / "vectors"),
            "CONCURRENCY": str(NODE_CONCURRENCY),
        }
        with ExitStack() as stack:
            peer, *others = [
                stack.enter_context(process(["node", "peer.js", *role], project, folder / "log", **variables))
                for role in ([], *[["worker"]] * (NODE_PROCESSES - 1))
            ]
            for each_one in (peer, *others):
                wait_ready(each_one, folder / "log")
            yield started(peer, redis=server, **{f"worker {n}": other for n, other in enumerate(others, 2)})


@contextlib.contextmanager
def celery(sandbox: Sandbox, tasks: int) -> Iterator[RunningPeer]:  # noqa: ARG001  it takes what is pending
    """Celery on Redis: a process that feeds the queue, and a worker with child processes."""
    packages = python_packages(CELERY)
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        server, path = stack.enter_context(redis(folder))
        variables = {
            **credentials(sandbox),
            "PYTHONPATH": str(packages),
            "REDIS_SOCKET": path,
            "VECTORS": write_vectors(folder / "vectors"),
        }
        work = [sys.executable, "-m", "celery", "-A", "peer", "worker", "--concurrency", str(CELERY_PROCESSES)]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        source, log = CELERY, folder / "log"
        worker = stack.enter_context(process([*work, *quiet], source, log, **variables))
        peer = stack.enter_context(process([sys.executable, "peer.py"], source, log, **variables))
        wait_ready(worker, log)
        wait_ready(peer, log)
        yield started(peer, worker=worker, redis=server)
