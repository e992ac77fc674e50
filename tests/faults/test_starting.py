"""What must not be started, or cannot be, says so in a sentence and ends: with 1, or with 2 if settings are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.store import Store
from sandbox.pipeline import ROOT, Pipeline
from tests.needs import missing
from tests.samples import ENVIRONMENT

OWNERS = ["fetcher", "rate_limiter", "publisher"]
NOBODY = 65_534
SETTINGS = {**ENVIRONMENT, "METRICS_PORT": "0"}


def run(environment: dict[str, str], *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", *words],
        cwd=ROOT, env={**os.environ, **environment}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_no_second_copy_starts(pipeline: Pipeline) -> None:
    for program, told in pipeline.programs().items():
        words = ["embedder", program] if program.startswith("embedder") else [program]
        ended = run(pipeline.environment, f"stages.{words[0]}", *words[1:])
        assert ended.returncode == 1
        assert f"is in use by another process (pid {told['pid']}); stop that one first" in ended.stdout
        assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("stage", OWNERS)
def test_state_of_another_version_is_refused(stage: str, tmp_path: Path) -> None:
    store = Store(tmp_path, stage, ())
    with store._env.begin(write=True) as txn:
        txn.put(b"version", b"0")
    store.close()
    ended = run({**SETTINGS, "STATE_DIR": str(tmp_path)}, f"stages.{stage}")
    assert ended.returncode == 1
    assert f"STATE_DIR: {tmp_path}/{stage} was written by another version" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_state_directory_of_another_user_is_named(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    ended = run({**SETTINGS, "STATE_DIR": str(tmp_path)}, "stages.publisher")
    assert ended.returncode == 1
    assert f"{tmp_path} belongs to user {NOBODY}, and this process runs as user 0" in ended.stdout


def test_a_read_only_state_directory_is_named(tmp_path: Path) -> None:
    mount = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o ro,mode=755 none {tmp_path} && exec "$@"', "sh")
    if subprocess.run([*mount, "true"], check=False, capture_output=True).returncode:
        missing("mounting a read-only folder needs root")
    environment = {**SETTINGS, "STATE_DIR": str(tmp_path), "RUNTIME_DIR": str(tmp_path.parent / "run")}
    ended = run(environment, "stages.publisher", before=mount)
    assert ended.returncode == 1
    assert f"STATE_DIR: {tmp_path} " in ended.stdout
    assert "ead-only" in ended.stdout


def test_a_runtime_directory_too_long_for_sockets_is_a_wrong_setting(tmp_path: Path) -> None:
    ended = run({**SETTINGS, "STATE_DIR": str(tmp_path), "RUNTIME_DIR": f"/{'x' * 100}"}, "stages.publisher")
    assert ended.returncode == 2
    assert ended.stderr.startswith("RUNTIME_DIR: ")
    assert "101 characters long" in ended.stderr
