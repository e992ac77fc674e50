"""Runs the real pipeline under supervisord against a sandbox, for the demo, the tests and the benchmarks.

It uses the `supervisord.conf` of the project. Only the socket and the pid file of supervisord are moved into a folder
of the run, so that several pipelines can run from one checkout at the same time.
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
from sandbox.stopping import stop

ROOT = Path(__file__).parent.parent
START_S = 60.0
"""How long supervisord may take to respond; a slow machine under load needs seconds."""
STOP_S = 200.0
"""How long all programs may take to drain; longer than the longest `stopwaitsecs`."""


class Pipeline:
    """One pipeline; its state, sockets, configuration and log are in `folder`."""

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
        """Start supervisord and wait until it responds; the programs may still be starting."""
        configuration = self.folder / "supervisord.conf"
        text = (ROOT / "supervisord.conf").read_text()
        text = text.replace("%(here)s/data/", f"{self.folder}/").replace("%(here)s", str(ROOT))
        configuration.write_text(text)
        with self.log.open("ab") as log:
            self._supervisord = subprocess.Popen(
                ["supervisord", "-c", str(configuration)],
                env=self.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.wait_until(self._is_up, "supervisord to respond", START_S)

    def stop(self) -> None:
        """Drain and stop all programs; kill those that do not stop in time."""
        supervisord = self._supervisord
        if supervisord is None:
            return
        self._supervisord = None
        processes = [psutil.Process(supervisord.pid), *psutil.Process(supervisord.pid).children(recursive=True)] \
            if supervisord.poll() is None else []  # fmt: skip
        stop(supervisord, STOP_S)
        for process in processes:
            if process.is_running() and process.pid != supervisord.pid:
                process.kill()

    def kill_supervisord(self) -> None:
        """SIGKILL supervisord, so that its programs are orphans; `start` starts it again."""
        supervisord = self._supervisord
        if supervisord is not None:
            self._supervisord = None
            supervisord.kill()
            supervisord.wait()

    def left_running(self) -> list[str]:
        """The processes that were started with our state directory, by this supervisord or an earlier one."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("STATE_DIR") == self.environment["STATE_DIR"]:
                    found.append(f"{process.pid} {' '.join(process.cmdline()[-3:])}")
        return found

    def get(self, path: str) -> tuple[int, Any]:
        """GET a page of the monitor: status, and the decoded JSON or the text; (0, None) if it does not respond."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        except OSError:
            return 0, None
        finally:
            connection.close()
        return response.status, json.loads(body) if body.startswith("{") else body

    def programs(self) -> dict[str, dict[str, Any]]:
        """What supervisord reports about each program, such as `statename` and `pid`, by program name."""
        infos = cast("list[dict[str, Any]]", self.supervisor("getAllProcessInfo"))
        return {str(program["name"]): program for program in infos}

    def supervisor(self, call: str, *arguments: object) -> Any:
        """Call a method of supervisord, such as `stopAllProcesses`; returns its result."""
        transport = SupervisorTransport(None, None, f"unix://{self.folder}/supervisord.sock")
        with contextlib.closing(transport):
            return getattr(xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor, call)(
                *arguments
            )

    def kill(self, program: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a running program; returns its pid."""
        pid = int(self.programs()[program]["pid"])
        if not pid:  # pid 0 would send it to every process of our own group
            raise ProcessLookupError(f"{program} is not running")
        os.kill(pid, number)
        return pid

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log events so far, with one name or all."""
        found = []
        for line in self.log.read_bytes().splitlines():
            if line.startswith(b"{"):
                event = json.loads(line)
                if name is None or event.get("event") == name:
                    found.append(event)
        return found

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
        """Wait for a condition; raises `TimeoutError` with the end of the log if it is not met in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._supervisord is not None and self._supervisord.poll() is not None:
                raise TimeoutError(f"supervisord ended while waiting for {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}:\n{self.tail()}")
            time.sleep(0.05)

    def run_for(self, seconds: float) -> None:
        """Wait for some time; raises `TimeoutError` if supervisord ends."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end, f"{seconds:g} s to pass", seconds + START_S)

    def wait_ready(self, seconds: float = START_S) -> None:
        """Wait until the pipeline can process tasks."""
        self.wait_until(lambda: self.get("/ready")[0] == 200, "GET /ready to return 200", seconds)

    def tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(line[:400] for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def _is_up(self) -> bool:
        try:
            return bool(self.supervisor("getState"))
        except (OSError, xmlrpc.client.Error):
            return False


def free_port() -> int:
    """A TCP port on which no process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
