"""Wherever standard output goes, everything starts and logs there."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, Pipeline

STARTED = {"monitor", "token_broker", "publisher", "embedder_00", "rate_limiter", "fetcher"}


@contextmanager
def supervisord(sandbox: Sandbox, folder: Path, output: int) -> Iterator[Pipeline]:
    """A pipeline whose standard output is this descriptor."""
    pipeline = Pipeline(sandbox, folder)
    configuration = folder / "supervisord.conf"
    text = (ROOT / "supervisord.conf").read_text()
    configuration.write_text(text.replace("%(here)s/data/", f"{folder}/").replace("%(here)s", str(ROOT)))
    command = ["supervisord", "-c", str(configuration)]
    with subprocess.Popen(
        command, env=pipeline.environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
    ) as process:
        try:
            yield pipeline
        finally:
            process.terminate()


def started(read: Callable[[], bytes], seconds: float = 60.0) -> set[str]:
    """The stages whose `started` has been read from the output."""
    found: set[str] = set()
    text = b""
    deadline = time.monotonic() + seconds
    while found != STARTED and time.monotonic() < deadline:
        text += read()
        lines = text.split(b"\n")[:-1]
        found = {
            json.loads(line)["stage"] for line in lines if line.startswith(b'{"time"') and b'"process_started"' in line
        }
    return found


def test_it_starts_and_logs_where_standard_output_is_a_socket_as_under_systemd(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, theirs, supervisord(sandbox, tmp_path, theirs.fileno()):
        assert started(lambda: ours.recv(65_536)) == STARTED


def test_a_log_file_is_never_overwritten_from_its_beginning(sandbox: Sandbox, tmp_path: Path) -> None:
    log = tmp_path / "all.log"
    log.write_text("what was there before\n")
    with log.open("r+b") as output:  # as `> file` would have it, but behind what is there
        output.seek(0, 2)
        seen = 0

        def more() -> bytes:
            nonlocal seen
            time.sleep(0.05)
            new = log.read_bytes()[seen:]
            seen += len(new)
            return new

        with supervisord(sandbox, tmp_path, output.fileno()):
            assert started(more) == STARTED
    assert log.read_text().startswith("what was there before\n")
    assert all(line.startswith(("{", "what", "20")) for line in log.read_text().splitlines())


def test_a_program_that_cannot_be_started_is_named_on_the_screen(sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = Pipeline(sandbox, tmp_path)
    configuration = tmp_path / "supervisord.conf"
    text = (ROOT / "supervisord.conf").read_text().replace("command=python -m stages.fetcher", "command=no-such-python")
    configuration.write_text(text.replace("%(here)s/data/", f"{tmp_path}/").replace("%(here)s", str(ROOT)))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["supervisord", "-c", str(configuration)], env=pipeline.environment, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 30
        while b"fetcher cannot be started" not in (tmp_path / "log").read_bytes():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(60)
