"""A process that must not or cannot start prints one sentence and exits: with 2 for wrong settings, else with 1."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from common.process.store import Store
from sandbox.pipeline import Pipeline
from tests.needs import missing
from tests.processes import run_module
from tests.samples import ENVIRONMENT

OWNERS = ["fetcher", "rate_limiter", "publisher"]
OTHER_USER = 65_534
SETTINGS = {**ENVIRONMENT, "METRICS_PORT": "0"}


def test_a_second_copy_of_a_process_does_not_start(pipeline: Pipeline) -> None:
    for program, told in pipeline.programs().items():
        words = ["embedder", program] if program.startswith("embedder") else [program]
        done = run_module(f"stages.{words[0]}", *words[1:], environment=pipeline.environment)
        assert done.returncode == 1
        assert f"is in use by another process (pid {told['pid']}); stop that one first" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("stage", OWNERS)
def test_a_store_of_another_version_is_refused(stage: str, tmp_path: Path) -> None:
    store = Store(tmp_path, stage, ())
    with store._env.begin(write=True) as txn:
        txn.put(b"version", b"0")
    store.close()
    done = run_module(f"stages.{stage}", environment={**SETTINGS, "STATE_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert f"STATE_DIR: {tmp_path}/{stage} was written by another version" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_state_directory_of_another_user_is_refused_by_name(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER_USER, OTHER_USER)
    done = run_module("stages.publisher", environment={**SETTINGS, "STATE_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert f"{tmp_path} belongs to user {OTHER_USER}, and this process runs as user 0" in done.stdout


def test_a_read_only_state_directory_is_refused_by_name(tmp_path: Path) -> None:
    mount = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o ro,mode=755 none {tmp_path} && exec "$@"', "sh")
    if subprocess.run([*mount, "true"], check=False, capture_output=True).returncode:
        missing("mounting a read-only folder needs root")
    environment = {**SETTINGS, "STATE_DIR": str(tmp_path), "RUNTIME_DIR": str(tmp_path.parent / "run")}
    done = run_module("stages.publisher", environment=environment, before=mount)
    assert done.returncode == 1
    assert f"STATE_DIR: {tmp_path} " in done.stdout
    assert "ead-only" in done.stdout


def test_a_runtime_directory_that_is_too_long_for_sockets_is_a_settings_error(tmp_path: Path) -> None:
    environment = {**SETTINGS, "STATE_DIR": str(tmp_path), "RUNTIME_DIR": f"/{'x' * 100}"}
    done = run_module("stages.publisher", environment=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("RUNTIME_DIR: ")
    assert "has 101 characters, which is too long for the path of a socket" in done.stderr
