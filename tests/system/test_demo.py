"""`make demo`: it ends with its summary, shows links only while they work, and leaves no process."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest
import requests

from sandbox.pipeline import ROOT
from tests.system.commands import run
from tests.waiting import wait_until


def marked(mark: str) -> list[str]:
    """The command lines of all processes whose environment has the mark, which they inherit from their parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in process.environ().values():
                found.append(" ".join(process.cmdline()))
    return found


def test_the_demo_processes_its_tasks_and_leaves_no_process() -> None:
    mark = f"demo-{uuid.uuid4()}"
    ended = run("python", "-m", "sandbox.demo", "--tasks", "300", environment={"MARK": mark})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "tasks succeeded" in ended.stdout
    assert "http://" not in ended.stdout, "nothing listens there any more"
    assert marked(mark) == []


def test_the_demo_with_keep_shows_links_that_work_and_stays_up_until_interrupted() -> None:
    mark = f"demo-{uuid.uuid4()}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    demo = subprocess.Popen(
        ["python", "-m", "sandbox.demo", "--tasks", "10", "--keep"],
        cwd=ROOT, env={"PATH": path, "MARK": mark, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert demo.stdout is not None
    try:
        links = []
        for line in demo.stdout:
            links += re.findall(r"http://127\.0\.0\.1:\d+/\w+", line)
            if "Staying up" in line:
                break
        assert [link.rpartition("/")[2] for link in links] == ["health", "ready", "metrics"]
        wait_until(lambda: all(requests.get(link, timeout=30).status_code == 200 for link in links), 60, "200 of each")
        assert len(marked(mark)) >= 8
    finally:
        demo.send_signal(signal.SIGINT)
        status = demo.wait(60)
        demo.stdout.close()
    assert status == 0
    assert marked(mark) == []


def in_terminal(*command: str, press: dict[str, str], mark: str) -> tuple[int, str]:
    """Run a command in a terminal of its own; `press` is what is typed when a text appears. Returns status and output.

    A terminal sends the signal of Ctrl-C to the whole foreground group: to the command, and to what it started.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(command[0], command, {"PATH": path, "MARK": mark, "TERM": "xterm"})
    printed = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(terminal, 65_536):
            printed += piece
            for text in [text for text in press if text.encode() in printed]:
                os.write(terminal, press.pop(text).encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed.decode()


@pytest.mark.parametrize(
    ("arguments", "press", "expected"),
    [
        (["--tasks", "10", "--keep"], {"Staying up": "\x03"}, 0),
        (["--tasks", "10", "--keep"], {"Staying up": "\x03", "Stopping everything": "\x03\x03"}, 0),
        (["--tasks", "200000"], {"in flight": "\x03"}, 130),
    ],
    ids=["while it stays up", "three times", "while it works"],
)
def test_ctrl_c_in_a_terminal_ends_the_demo_with_its_summary(
    arguments: list[str], press: dict[str, str], expected: int
) -> None:
    mark = f"demo-{uuid.uuid4()}"
    status, printed = in_terminal("python", "-m", "sandbox.demo", *arguments, press=dict(press), mark=mark)
    assert status == expected, printed
    assert "tasks succeeded" in printed
    assert "Everything is stopped." in printed
    assert "Traceback" not in printed
    assert marked(mark) == []
