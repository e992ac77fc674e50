"""Commands that users run: stages with wrong settings, `python -m stages check`, the demo, supervisord itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import requests

from common import __version__
from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, free_port
from tests.system.commands import run
from tests.waiting import wait_until

STAGES = ("fetcher", "token_broker", "rate_limiter", "embedder", "publisher", "monitor")


@pytest.mark.parametrize("stage", STAGES)
def test_all_wrong_settings_are_named_at_once(stage: str, tmp_path: Path) -> None:
    wrong = {"POLLING_INTERVAL_SECONDS": "soon", "RATE_LIMIT_TIMEZONE": "Mars/Olympus", "STATE_DIR": str(tmp_path)}
    ended = run("python", "-m", f"stages.{stage}", environment=wrong | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert ended.returncode == 2
    named = {line.split(":")[0] for line in ended.stderr.splitlines()}
    assert named == {
        "API_BASE_URL", "OAUTH2_CLIENT_ID", "OAUTH2_CLIENT_SECRET", "ORY_PROJECT_SLUG", "OPENAI_API_KEY",
        "POLLING_INTERVAL_SECONDS", "RATE_LIMIT_TIMEZONE",
    }  # fmt: skip
    assert "Traceback" not in ended.stderr


def test_supervisord_ends_and_names_the_wrong_settings(tmp_path: Path) -> None:
    shutil.copy(ROOT / "supervisord.conf", tmp_path)
    (tmp_path / "data").mkdir()
    ended = run("supervisord", "-c", "supervisord.conf", environment={"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert ended.returncode == 2
    assert "OAUTH2_CLIENT_SECRET: is required" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_reports_each_dependency_in_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    environment = sandbox.environment() | {"STATE_DIR": str(tmp_path / "state")}
    ended = run("python", "-m", "stages", "check", environment=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [line.split("  ")[0] for line in ended.stdout.splitlines()] == [
        "settings", "state directory", "token endpoint", "API", "OpenAI",
    ]  # fmt: skip
    sandbox.down("api")
    ended = run("python", "-m", "stages", "check", environment=environment)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[3].startswith("API              FAILED")
    ended = run("python", "-m", "stages", "check", environment=environment | {"OAUTH2_CLIENT_SECRET": "wrong"})
    assert "token endpoint   FAILED" in ended.stdout
    assert "wrong" not in ended.stdout


def checked(sandbox: Sandbox, folder: Path, **environment: str) -> tuple[int, dict[str, str]]:
    """Run the check; returns its exit status, and name → the rest of the line."""
    ended = run(
        "python", "-m", "stages", "check", environment=sandbox.environment() | {"STATE_DIR": str(folder)} | environment
    )
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.returncode, {line[:16].strip(): line[17:] for line in ended.stdout.splitlines()}


@pytest.mark.parametrize(("mode", "name"), [("openai", "OpenAI"), ("ollama", "Ollama")])
def test_check_tries_the_provider_without_paying(sandbox: Sandbox, tmp_path: Path, mode: str, name: str) -> None:
    status, lines = checked(sandbox, tmp_path / "state", PROCESSING_MODE=mode)
    assert status == 0, lines
    assert lines[name].startswith("ok")
    assert sandbox.summary()["openai"]["inputs"] == 0
    sandbox.down(mode)
    status, lines = checked(sandbox, tmp_path / "state", PROCESSING_MODE=mode)
    assert status == 1
    assert lines[name].startswith("FAILED")
    assert f"{mode.upper()}_BASE_URL" in lines[name]
    assert lines["API"].startswith("ok")


@pytest.mark.parametrize(
    ("answer", "word", "says"),
    [
        ({"status": 401}, "FAILED", "check OPENAI_API_KEY"),
        ({"status": 403}, "ok", "could not be tried"),
        ({"status": 404}, "ok", "could not be tried"),
        ({"status": 502}, "FAILED", "answered 502; check OPENAI_BASE_URL"),
        ({"status": 302}, "FAILED", "answered 302; check OPENAI_BASE_URL"),
        (
            {"status": 200, "body": "<html>a login page</html>"},
            "FAILED",
            "a page instead of JSON; check OPENAI_BASE_URL",
        ),
        ({"status": 200, "body": "[]"}, "ok", "lists 0 models"),
        ({"status": 200, "body": '\ufeff{"data": [{"id": "other"}]}'}, "ok", "text-embedding-3-small (DEFAULT"),
        ({"status": 200, "body": "{}"}, "ok", "could not be tried"),
        ({"status": 200, "body": '{"error": {"message": "canary-key"}}'}, "FAILED", "an error instead of a list"),
        ({"status": 204}, "ok", "could not be tried"),
        ({"status": 405}, "ok", "could not be tried"),
        ({"status": 429}, "ok", "could not be tried"),
        ({"status": 407}, "FAILED", "answered 407"),
        ({"status": 500}, "FAILED", "answered 500; check OPENAI_BASE_URL"),
        ({"drop": "before"}, "FAILED", "cannot be reached"),
        ({"cut": 60}, "ok", "could not be tried"),
        ({"cut": 250}, "FAILED", "cannot be reached"),
    ],
)
def test_check_says_what_a_providers_answer_means(
    sandbox: Sandbox, tmp_path: Path, answer: dict[str, object], word: str, says: str
) -> None:
    sandbox.fault("openai", method="GET", **answer)
    status, lines = checked(sandbox, tmp_path / "state", PROCESSING_MODE="openai", OPENAI_API_KEY="canary-key")
    assert status == (word == "FAILED")
    assert lines["OpenAI"].startswith(word)
    assert says in lines["OpenAI"]
    assert "canary-key" not in str(lines)


@pytest.mark.parametrize("mode", ["openai", "ollama"])
@pytest.mark.parametrize("path", ["", "/v1/embeddings", "/api", "/v1/v1"])
def test_check_names_the_address_that_a_wrong_path_was_meant_to_be(
    sandbox: Sandbox, tmp_path: Path, mode: str, path: str
) -> None:
    right = {"openai": sandbox.openai, "ollama": sandbox.ollama}[mode]
    root = right.removesuffix("/v1")
    if root + path == right:
        return
    variable = f"{mode.upper()}_BASE_URL"
    status, lines = checked(sandbox, tmp_path / "state", PROCESSING_MODE=mode, **{variable: root + path})
    assert status == 1, lines
    assert f"set {variable}={right}" in str(lines)


def test_check_names_the_models_that_ollama_has_yet_to_download(sandbox: Sandbox, tmp_path: Path) -> None:
    present = sandbox.settings()["ollama"]["models"]
    wanted = json.dumps([*present, "absent-model"])
    status, lines = checked(sandbox, tmp_path / "state", PROCESSING_MODE="ollama", SUPPORTED_MODELS=wanted)
    assert status == 0, lines
    assert "missing: absent-model, which the service downloads" in lines["Ollama"]


def test_check_tells_of_misspelt_variables_and_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    status, lines = checked(sandbox, tmp_path / "state", RATE_LIMIT_PER_MINTE="5", OLLAMA_HOST="x")
    assert status == 0
    assert "WARNING" in lines["settings"]
    assert "did you mean RATE_LIMIT_PER_MINUTE?" in lines["settings"]
    assert "OLLAMA_HOST" not in str(lines)


@pytest.fixture
def installation(sandbox: Sandbox, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the deployed files in its own folder, and the environment to run it in."""
    for name in ("common", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "supervisord.conf", tmp_path)
    (tmp_path / "data").mkdir()
    port = str(free_port())
    return tmp_path, sandbox.environment() | {"METRICS_PORT": port, "PROCESSING_MODE": "mock"}


def test_run_py_starts_the_service_and_stops_it_on_sigterm(
    installation: tuple[Path, dict[str, str]], sandbox: Sandbox
) -> None:
    """`pip install -r requirements.txt && python run.py` works from any folder, without the project being installed."""
    folder, environment = installation
    shutil.copy(ROOT / "run.py", folder)
    log = folder / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            [sys.executable, folder / "run.py"], cwd="/", env={**environment, "PATH": "/usr/bin:/bin"},
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        ids = sandbox.queue(5)
        wait_until(lambda: all(sandbox.task(i)["state"] == "succeeded" for i in ids), 60)
        assert "PROCESSING_MODE is mock" in log.read_text()
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_run_py_reports_wrong_settings_all_at_once(installation: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installation
    shutil.copy(ROOT / "run.py", folder)
    wrong = environment | {"METRICS_PORT": "many", "OAUTH2_CLIENT_ID": ""}
    ended = run(sys.executable, "run.py", environment=wrong, cwd=folder)
    assert ended.returncode == 2
    assert {line.split(":")[0] for line in ended.stderr.splitlines()} == {"METRICS_PORT", "OAUTH2_CLIENT_ID"}


def test_the_version_is_shown() -> None:
    ended = run("python", "-m", "stages", "--version", environment={})
    assert (ended.returncode, ended.stdout) == (0, f"ai-task-processor {__version__}\n")


def test_supervisord_starts_and_stops_all_programs(installation: tuple[Path, dict[str, str]], sandbox: Sandbox) -> None:
    folder, environment = installation
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = (folder / "log").open("wb")
    running = subprocess.Popen(
        ["supervisord", "-c", "supervisord.conf"],
        cwd=folder, env={"PATH": path, **environment}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip

    def states() -> dict[str, str]:
        listing = run("supervisorctl", "-c", "supervisord.conf", "status", environment=environment, cwd=folder).stdout
        return {line.split()[0]: line.split()[1] for line in listing.splitlines() if len(line.split()) > 1}

    programs = {"fetcher", "token_broker", "rate_limiter", "embedder:embedder_00", "publisher", "monitor"}
    try:
        wait_until(lambda: states() == dict.fromkeys(programs, "RUNNING"), 60)
        ids = sandbox.queue(5)
        wait_until(lambda: all(sandbox.task(i)["state"] == "succeeded" for i in ids), 60)
        run("supervisorctl", "-c", "supervisord.conf", "stop", "all", environment=environment, cwd=folder)
        assert set(states().values()) == {"STOPPED"}
        run("supervisorctl", "-c", "supervisord.conf", "start", "all", environment=environment, cwd=folder)
        assert states() == dict.fromkeys(programs, "RUNNING")
        assert (folder / "data").stat().st_mode & 0o777 == 0o700
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
        log.close()


def asked_for_pid(environment: dict[str, str]) -> str:
    """The pid that supervisorctl gets; empty if supervisord does not respond."""
    ended = run("supervisorctl", "-c", "supervisord.conf", "pid", environment=environment)
    return "" if ended.returncode else ended.stdout.strip()


def test_two_pipelines_run_from_one_folder_and_supervisorctl_finds_each(sandbox: Sandbox, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environments = [
        sandbox.environment()
        | {"PATH": path, "PROCESSING_MODE": "mock", "METRICS_PORT": str(free_port()), "STATE_DIR": str(tmp_path / name)}
        for name in ("one", "two")
    ]
    command = ["supervisord", "-c", "supervisord.conf"]
    both = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) for env in environments]
    try:
        for started, environment in zip(both, environments, strict=True):
            answers = partial(asked_for_pid, environment)
            wait_until(answers, 60)
            assert answers() == str(started.pid)
            assert (Path(environment["STATE_DIR"]) / "run" / "supervisord.pid").read_text().strip() == str(started.pid)
        assert not (ROOT / "data" / "supervisord.sock").exists()
    finally:
        for started in both:
            started.terminate()
        for started in both:
            started.wait(200)


def test_health_follows_the_number_of_embedders_when_it_is_changed(
    installation: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = installation
    page = f"http://127.0.0.1:{environment['METRICS_PORT']}/health"
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def change(number: int) -> None:
        (folder / ".env").write_text(f"EMBEDDER_PROCESSES={number}\n")

    def healthy_with(number: int) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            response = requests.get(page, timeout=30)
            embedders = [name for name in response.json()["processes"] if name.startswith("embedder")]
            return response.status_code == 200 and len(embedders) == number
        return False

    change(2)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            ["supervisord", "-c", "supervisord.conf"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: healthy_with(2), 60)
        for number in (1, 3):
            change(number)
            run("supervisorctl", "-c", "supervisord.conf", "update", environment=environment, cwd=folder)
            wait_until(partial(healthy_with, number), 60)
    finally:
        running.terminate()
        assert running.wait(100) == 0
