"""The control interface of the sandbox from Python, for the tests, the demo and the benchmarks.

with Sandbox.start() as sandbox:
    sandbox.queue(1000)
    ... run the service with sandbox.environment() ...
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == 1000)
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from sandbox.stopping import stop

_ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.02
_STOP_S = 5.0

Json = dict[str, Any]


class SandboxError(Exception):
    """The sandbox did not start, rejected a request, or did not reach the expected state in time."""


class Sandbox:
    """A running sandbox. The attributes are its addresses; the methods use its control port.

    Not thread-safe: each thread needs its own instance (see `attach`).
    """

    def __init__(self, addresses: Json) -> None:
        self.api: str = addresses["api"]
        self.oauth2: str = addresses["oauth2"]
        self.token_url: str = addresses["token_url"]
        self.openai: str = addresses["openai"]
        self.ollama: str = addresses["ollama"]
        self.control: str = addresses["control"]
        self.client_id: str = addresses["client_id"]
        self.client_secret: str = addresses["client_secret"]
        self.pid: int = addresses["pid"]
        self._connection = http.client.HTTPConnection(urlsplit(self.control).netloc, timeout=60)

    @classmethod
    @contextlib.contextmanager
    def start(cls, *options: str) -> Iterator["Sandbox"]:
        """Start a sandbox on free ports (or with `options` of `python -m sandbox`); stop it at the end."""
        command = [sys.executable, "-m", "sandbox", "--until-stdin-closes", *options]
        # a session of its own: Ctrl-C in a terminal is for its parent, which still has questions to ask then
        process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SandboxError(f"the sandbox ended with status {process.wait(_STOP_S)} instead of starting")
            with contextlib.closing(cls(json.loads(line))) as sandbox:
                yield sandbox
        finally:
            stop(process, _STOP_S)
            process.stdin.close()
            process.stdout.close()

    @classmethod
    def attach(cls, announced: Path) -> "Sandbox":
        """Connect to a running sandbox; `announced` is the file of its option `--announce`."""
        return cls(json.loads(announced.read_text()))

    def close(self) -> None:
        """Close the connection to the control port; the sandbox keeps running."""
        self._connection.close()

    def environment(self) -> dict[str, str]:
        """The environment variables that connect the service to this sandbox."""
        return {
            "API_BASE_URL": self.api,
            "OAUTH2_TOKEN_URL": self.token_url,
            "OAUTH2_CLIENT_ID": self.client_id,
            "OAUTH2_CLIENT_SECRET": self.client_secret,
            "OPENAI_BASE_URL": self.openai,
            "OPENAI_API_KEY": "sk-sandbox",
            "OLLAMA_BASE_URL": self.ollama,
        }

    # Tasks.

    def queue(self, count: int, **fields: Any) -> list[str]:
        """Queue `count` tasks (fields: text, model, type, distinct); returns their ids."""
        ids: list[str] = self.call("POST", "/tasks", {"count": count, **fields})["ids"]
        return ids

    def queue_tasks(self, tasks: Iterable[Json]) -> list[str]:
        """Queue tasks given field by field (tasks.NewTask); returns their ids."""
        ids: list[str] = self.call("POST", "/tasks", {"tasks": list(tasks)})["ids"]
        return ids

    def queue_raw(self, elements: Iterable[Any]) -> list[str]:
        """Put any JSON elements into the pending page; returns the ids given to them."""
        ids: list[str] = self.call("POST", "/tasks", {"raw": list(elements)})["ids"]
        return ids

    def requeue(self, ids: Iterable[str]) -> int:
        """Set tasks to pending again; returns how many existed."""
        return int(self.call("POST", "/requeue", {"ids": list(ids)})["count"])

    def task(self, task_id: str) -> Json:
        """One task: id, state, patches."""
        task: Json = self.call("GET", f"/tasks/{task_id}")
        return task

    def record(self, offset: int = 0, limit: int | None = None) -> list[Json]:
        """Every id with its PATCHes: [{id, state, patches: [{time, accepted, status, state, digest, length, ...}]}]."""
        query = urlencode({"offset": offset, **({} if limit is None else {"limit": limit})})
        record: list[Json] = self.call("GET", f"/record?{query}")
        return record

    def results(self) -> dict[str, Any]:
        """The result accepted last, by task id; needs the setting `keep_results` of the api."""
        results: dict[str, Any] = self.call("GET", "/results")
        return results

    # Counters.

    def summary(self) -> Json:
        """All counters, by service."""
        summary: Json = self.call("GET", "/summary")
        return summary

    def charges(self, service: str = "openai", *, with_keys: bool = False) -> list[Json]:
        """The requests that a provider charged: [{time, received_at, inputs, tokens}], and their texts' `keys`."""
        query = urlencode({"service": service, **({"keys": "true"} if with_keys else {})})
        charges: list[Json] = self.call("GET", f"/charges?{query}")
        return charges

    def wait_until(self, condition: Callable[[Json], bool], seconds: float = 30.0) -> Json:
        """Wait for a summary that meets the condition, and return it; raises SandboxError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition(summary := self.summary()):
            if time.monotonic() > deadline:
                raise SandboxError(f"the condition was not met within {seconds} s; the last summary is {summary}")
            time.sleep(_POLL_S)
        return summary

    # Settings, faults, ports.

    def settings(self, **changes: Json) -> Json:
        """Change settings by service, as in `api={"page_cap": 10}`; returns all settings."""
        settings: Json = self.call("PUT", "/settings", changes)
        return settings

    def fault(self, service: str, **fields: Any) -> int:
        """Add a fault (fields: see faults.py); returns its number."""
        return int(self.call("POST", "/faults", {"service": service, **fields})["number"])

    def faults(self) -> list[Json]:
        """The faults in force, each with its number and with how often it matched and applied."""
        faults: list[Json] = self.call("GET", "/faults")
        return faults

    def clear_faults(self, number: int | None = None) -> None:
        """Remove one fault, or all."""
        self.call("DELETE", "/faults" if number is None else f"/faults/{number}")

    def release(self, service: str | None = None) -> int:
        """Send held responses; returns how many there were."""
        return int(self.call("POST", "/release", {} if service is None else {"service": service})["released"])

    def down(self, service: str) -> None:
        """Refuse new connections to the service, and reset the open ones."""
        self.call("POST", "/down", {"service": service})

    def up(self, service: str) -> None:
        """Listen again on the same port."""
        self.call("POST", "/up", {"service": service})

    def revoke(self) -> int:
        """Revoke all access tokens; returns how many were valid."""
        return int(self.call("POST", "/revoke")["revoked"])

    def reset(self) -> None:
        """Return the sandbox to its initial state."""
        self.call("POST", "/reset")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request to the control port; returns the decoded JSON."""
        content = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content)
            response = self._connection.getresponse()
            decoded = json.loads(response.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next call opens a new one
            raise
        if response.status != 200:
            raise SandboxError(f"{method} {path}: {decoded['error']}")
        return decoded
