"""A process notices the death of its supervisord, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from common.supervisor_watch import SUPERVISORD_PID, SupervisorWatch

CHILD = """
import os, signal, sys, time
from common.supervisor_watch import SupervisorWatch
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
watch = SupervisorWatch()
print("watching", watch.is_gone(), flush=True)
deadline = time.monotonic() + 20
while not watch.is_gone() and time.monotonic() < deadline:
    time.sleep(0.01)
print("gone" if watch.is_gone() else "there", *told, flush=True)
"""
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"


def test_an_orphan_of_supervisord_gets_sigterm_and_sees_that_it_is_one() -> None:
    environment = {**os.environ, "SUPERVISOR_ENABLED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "watching False\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.readline() == "gone SIGTERM\n"


@pytest.fixture
def ended_pid() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return ended.pid


def test_a_supervisord_that_died_while_the_process_was_starting_is_gone(
    monkeypatch: pytest.MonkeyPatch, ended_pid: int
) -> None:
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    monkeypatch.setenv(SUPERVISORD_PID, str(ended_pid))
    assert SupervisorWatch().is_gone()


@pytest.mark.parametrize("pid", [os.getppid(), os.getpid(), ""], ids=["the parent", "a wrapper", "unknown"])
def test_a_supervisord_that_lives_is_not_gone_even_if_a_wrapper_is_between(
    monkeypatch: pytest.MonkeyPatch, pid: int | str
) -> None:
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    monkeypatch.setenv(SUPERVISORD_PID, str(pid))
    watch = SupervisorWatch()
    assert not watch.is_gone()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert watch.is_gone()


def test_a_process_that_a_person_started_is_bound_to_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISOR_ENABLED", raising=False)
    watch = SupervisorWatch()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not watch.is_gone()
