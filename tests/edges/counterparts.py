"""A certified OAuth2 server and a NestJS application, as real programs (tests/oidc and tests/nestjs)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_plus

import requests

from sandbox.client import Sandbox
from tests import needs

TESTS = Path(__file__).parent.parent
CLIENT_ID = "ai-task-processor"
CLIENT_SECRET = "s3cret+/=&%:~ with a space"


@contextlib.contextmanager
def _program(project: str, script: str, **environment: str) -> Iterator[str]:
    """Run a Node program that announces its address and ends when its standard input does."""
    folder = TESTS / project
    needs.require("npm")  # npm comes with node
    if not (folder / "node_modules").exists():
        needs.missing(f"npm ci has not been run in {folder}")
    process = subprocess.Popen(
        [needs.require("node"), script], cwd=folder, env={**os.environ, **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"{project} ended with status {process.wait()} instead of starting"
            yield json.loads(line)["url"]
        finally:
            process.stdin.close()
            process.terminate()


class Nest:
    """The NestJS application, and the OAuth2 server that its guard uses."""

    def __init__(self, api: str, oauth2: str) -> None:
        self.api = api
        self.oauth2 = oauth2

    def environment(self) -> dict[str, str]:
        """The environment variables that connect the service to them."""
        return {
            "API_BASE_URL": self.api,
            "OAUTH2_TOKEN_URL": f"{self.oauth2}/oauth2/token",
            "OAUTH2_CLIENT_ID": CLIENT_ID,
            "OAUTH2_CLIENT_SECRET": CLIENT_SECRET,
        }

    def as_sandbox(self) -> Sandbox:
        """Itself, typed for `Pipeline`, which only uses `environment`."""
        return cast("Sandbox", self)

    def queue(self, count: int, model: str, state: str = "pending") -> list[str]:
        """Queue tasks; returns their ids."""
        return cast("list[str]", self._post("tasks", {"count": count, "model": model, "state": state}))

    def fail_callbacks(self, count: int) -> None:
        """Let this number of callbacks fail, after the state of the task is stored."""
        self._post("failing-callbacks", {"count": count})

    def summary(self) -> dict[str, Any]:
        """The state of the tasks, and what was received."""
        return cast("dict[str, Any]", requests.get(f"{self.api}/control", timeout=10).json())

    def issued(self) -> int:
        """The number of issued tokens."""
        return int(requests.get(f"{self.oauth2}/issued", timeout=10).text)

    def _post(self, path: str, body: Any) -> Any:
        response = requests.post(f"{self.api}/control/{path}", json=body, timeout=10)
        response.raise_for_status()
        return response.json() if response.content else None


@contextlib.contextmanager
def nest(token_seconds: float) -> Iterator[Nest]:
    """Run both programs; tokens are valid for `token_seconds`."""
    built = TESTS / "nestjs" / "dist" / "main.js"
    sources = max(path.stat().st_mtime for path in (TESTS / "nestjs" / "src").iterdir())
    if not built.exists() or built.stat().st_mtime < sources:
        subprocess.run([needs.require("npm"), "run", "--silent", "prepare"], cwd=TESTS / "nestjs", check=True)
    credentials = base64.b64encode(f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}".encode()).decode()
    oidc = _program("oidc", "server.mjs", CLIENT_ID=CLIENT_ID, CLIENT_SECRET=CLIENT_SECRET, TTL=str(token_seconds))
    with oidc as oauth2:
        guard = {
            "INTROSPECTION_URL": f"{oauth2}/admin/oauth2/introspect",
            "INTROSPECTION_AUTHORIZATION": f"Basic {credentials}",
        }
        with _program("nestjs", "dist/main.js", **guard) as api:
            yield Nest(api, oauth2)
