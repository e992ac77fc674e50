"""The loop takes events from threads and descriptors; an unexpected error stops the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.wire import messages as m
from tests.common.looping import Bench, Poked, results


def test_an_event_from_a_thread_wakes_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.process.loop.TICK_S", 2.0)
    at: list[float] = []

    def told(*_: Any) -> Iterable[Any]:
        at.append(time.monotonic())
        return ()

    posted: list[float] = []

    def post() -> None:
        posted.append(time.monotonic())
        bench.loop.post(Poked())

    threading.Timer(0.25, post).start()
    bench.run(lambda: bool(at), handlers={Poked: told})
    assert at[0] - posted[0] < 1.0  # sooner than the next tick


def test_a_background_call_comes_back_as_an_event(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        bench.loop.background(pool, Poked, "from afar")
        bench.run(lambda: bench.told == [Poked("from afar")])


DIES = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from common.failures.errors import Fatal
from common.process.loop import main

def start():
    ThreadPoolExecutor(1).submit(time.sleep, 300)
    raise {error}

main("embedder_00", start)
"""


@pytest.mark.parametrize(
    ("error", "logged", "traceback"),
    [("Fatal('STATE_DIR: full')", "STATE_DIR: full", False), ("KeyError('a')", "KeyError", True)],
)
def test_a_process_that_fails_stops_without_waiting_for_its_threads(
    error: str, logged: str, *, traceback: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES.format(error=error)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert logged in done.stdout
    assert ("Traceback" in done.stderr) == traceback


def test_a_background_call_that_raises_stops_the_process(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        bench.loop.background(pool, int, "no number")
        with pytest.raises(ValueError, match="no number"):
            bench.run(lambda: False)


def test_a_handler_that_raises_stops_the_process(bench: Bench) -> None:
    def handle(*_: Any) -> Iterable[Any]:
        raise KeyError("bug")

    bench.fetcher.send(results("1"))
    with pytest.raises(KeyError, match="bug"):
        bench.run(lambda: False, handlers={m.Results: handle})


def test_a_watched_descriptor_is_read_when_it_is_ready(bench: Bench) -> None:
    receiving, sending = os.pipe()
    read: list[bytes] = []
    bench.loop.watch(receiving, lambda: read.append(os.read(receiving, 100)))
    os.write(sending, b"ready")
    bench.run(lambda: read == [b"ready"])
    os.close(receiving)
    os.close(sending)


# ---- by the clock ----
