"""The sandbox process: start, announcement, stop, reset."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from sandbox.client import Sandbox, SandboxError

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def started(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "sandbox", *options]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_sandbox_announces_its_addresses_and_stops_on_a_signal(tmp_path: Path, number: int) -> None:
    announced = tmp_path / "sandbox.json"
    with started("--announce", str(announced)) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert json.loads(announced.read_text()) == line
        assert line["pid"] == process.pid
        with urllib.request.urlopen(f"{line['control']}/clock") as response:
            assert json.load(response)["time"] > 0
        os.kill(process.pid, number)
        assert process.wait(30) == 0


def test_the_sandbox_stops_when_its_parent_ends() -> None:
    with started("--until-stdin-closes") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_port_in_use_is_an_error(sandbox: Sandbox) -> None:
    port = sandbox.api.rpartition(":")[2]
    with pytest.raises(SandboxError, match="instead of starting"), Sandbox.start("--api-port", port):
        pass


def test_settings_are_changed_all_together_or_not_at_all(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="no_such"):
        sandbox.settings(api={"page_cap": 10}, openai={"no_such": 1})
    with pytest.raises(SandboxError, match="nest"):
        sandbox.settings(nest={"page_cap": 10})
    assert sandbox.settings()["api"]["page_cap"] == 0


def test_reset_forgets_everything(sandbox: Sandbox) -> None:
    sandbox.settings(api={"page_cap": 10})
    sandbox.fault("api", delay=1)
    sandbox.queue(5)
    sandbox.down("openai")
    sandbox.reset()
    assert sandbox.settings()["api"]["page_cap"] == 0
    assert sandbox.faults() == []
    assert sandbox.summary()["api"]["tasks"] == {"pending": 0}
    sandbox.down("openai")
    sandbox.up("openai")


def test_reset_cancels_requests_under_way(sandbox: Sandbox) -> None:
    for effect in ({"delay": 60}, {"hold": True}):
        sandbox.fault("ollama", **effect)
        with ThreadPoolExecutor(1) as pool:
            response = pool.submit(requests.get, f"{sandbox.ollama}/api/tags", timeout=30)
            sandbox.wait_until(lambda summary: summary["ollama"]["under_way"] == 1)
            sandbox.reset()
            assert isinstance(response.exception(), requests.ConnectionError)
        summary = sandbox.wait_until(lambda summary: summary["ollama"]["under_way"] == 0)["ollama"]
        assert (summary["held"], summary["requests"], summary["statuses"]) == (0, 0, {})


def test_a_client_can_attach_to_a_running_sandbox(sandbox: Sandbox, tmp_path: Path) -> None:
    announced = tmp_path / "sandbox.json"
    names = ("api", "oauth2", "token_url", "openai", "ollama", "control", "client_id", "client_secret", "pid")
    announced.write_text(json.dumps({name: getattr(sandbox, name) for name in names}))
    other = Sandbox.attach(announced)
    other.queue(2)
    other.close()
    assert sandbox.summary()["api"]["tasks"] == {"pending": 2}
