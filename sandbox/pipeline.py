"""The true pipeline, started under supervisord against a sandbox: for the demo, the tests and the benchmarks.

It runs the project's own `supervisord.conf`. Only supervisord's socket and pid file are moved into the run's folder, so
that several pipelines can run from one checkout at a time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from sandbox.client import Sandbox

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
"""For supervisord to answer; slow machines under load need seconds."""
STOP_SECONDS = 200.0
"""For everything to drain; longer than the longest `stopwaitsecs`."""


class Pipeline:
    """One running pipeline; `folder` takes its state, sockets, configuration and log."""

    def __init__(self, sandbox: Sandbox, folder: Path, **settings: object) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.port = free_port()
        self.log = folder / "pipeline.log"
        self.environment = {
            **os.environ,
            **sandbox.environment(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "STATE_DIR": str(folder / "state"),
            "METRICS_PORT": str(self.port),
            "PROCESSING_MODE": "mock",
            **{name: str(value) for name, value in settings.items()},
        }
        self._supervisord: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start supervisord and wait until it answers; the programs may still be starting."""
        configuration = self.folder / "supervisord.conf"
        text = (ROOT / "supervisord.conf").read_text()
        text = text.replace("%(here)s/data/", f"{self.folder}/").replace("%(here)s", str(ROOT))
        configuration.write_text(text)
        with self.log.open("ab") as log:
            self._supervisord = subprocess.Popen(
                ["supervisord", "-c", str(configuration)],
                env=self.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.wait_until(self._answers, "supervisord to answer", START_SECONDS)

    def stop(self) -> None:
        """Drain and stop everything; what does not stop in time is killed."""
        supervisord = self._supervisord
        if supervisord is None:
            return
        self._supervisord = None
        family = [psutil.Process(supervisord.pid), *psutil.Process(supervisord.pid).children(recursive=True)] \
            if supervisord.poll() is None else []  # fmt: skip
        supervisord.terminate()
        try:
            supervisord.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            supervisord.kill()
            supervisord.wait()
        for process in family:
            if process.is_running() and process.pid != supervisord.pid:
                process.kill()

    def get(self, path: str) -> tuple[int, Any]:
        """GET a page of the monitor: status, and the decoded JSON or the text; (0, None) when it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        except OSError:
            return 0, None
        finally:
            connection.close()
        return answer.status, json.loads(body) if body.startswith("{") else body

    def programs(self) -> dict[str, dict[str, Any]]:
        """What supervisord says of each program, by name, such as its `statename` and `pid`."""
        told = cast("list[dict[str, Any]]", self.supervisor("getAllProcessInfo"))
        return {str(program["name"]): program for program in told}

    def supervisor(self, call: str, *arguments: object) -> Any:
        """Call a method of supervisord, such as `stopAllProcesses`; returns its answer."""
        transport = SupervisorTransport(None, None, f"unix://{self.folder}/supervisord.sock")
        with contextlib.closing(transport):
            return getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, call)(
                *arguments
            )

    def kill(self, program: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a running program; returns the pid that got it."""
        pid = int(self.programs()[program]["pid"])
        if not pid:  # 0 would send it to every process of our own group
            raise ProcessLookupError(f"{program} is not running")
        os.kill(pid, number)
        return pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log's events so far, of one name or all."""
        found = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{"):
                event = json.loads(line)
                if name is None or event.get("event") == name:
                    found.append(event)
        return found

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
        """Wait for a condition; raise `TimeoutError` with the end of the log if it does not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._supervisord is not None and self._supervisord.poll() is not None:
                raise TimeoutError(f"supervisord ended while waiting for {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s in vain for {what}:\n{self.tail()}")
            time.sleep(0.05)

    def let_pass(self, seconds: float) -> None:
        """Let time pass, while the pipeline runs."""
        over = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= over, f"{seconds:g} s to pass", seconds + START_SECONDS)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until a task could be processed."""
        self.wait_until(lambda: self.get("/ready")[0] == 200, "GET /ready to answer 200", seconds)

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(line[:400] for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def _answers(self) -> bool:
        try:
            return bool(self.supervisor("getState"))
        except (OSError, xmlrpc.client.Error):
            return False


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
