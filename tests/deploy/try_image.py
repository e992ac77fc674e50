"""Runs a built image against the sandbox without a Docker engine: `python -m tests.deploy.try_image [image]`.

It needs root, and the image in the store of buildah (`deploy/build-without-docker.sh`). It does by hand what an engine
does: the command of the image becomes PID 1 of its own PID namespace, with the user and the environment of the image,
pipes that belong to this user, and a volume. Everything else except /tmp is read-only, as in docker-compose.yml. It
uses the network of the host, so that the sandbox is on loopback.

It shows that tasks are processed, that the health check passes and fails when it should, that supervisord starts
`EMBEDDER_PROCESSES`, that a start after SIGKILL finds its state and finishes the tasks, and that SIGTERM drains and
ends with status 0.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from sandbox.client import Json, Sandbox
from sandbox.pipeline import free_port

TASKS = 2000
STOP_S = 160
"""The same as `stop_grace_period` in docker-compose.yml."""


class Image:
    """An image in the store of buildah, mounted at `root`."""

    def __init__(self, name: str, root: Path) -> None:
        self.root = root
        inspected = json.loads(_output("buildah", "inspect", "--type", "image", name))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        self.owner = int(self.config["User"].split(":")[0])

    def command(self, *arguments: str, **settings: str) -> list[str]:
        """The command line that runs `arguments` in the image, with its user and environment."""
        inherited = dict(item.split("=", 1) for item in self.config["Env"])
        environment = [f"{name}={value}" for name, value in {**inherited, **settings}.items()]
        chdir = f"--chdir={self.config['WorkingDir']}"
        return ["chroot", f"--userspec={self.config['User']}", str(self.root), "env", "-i", chdir, *environment,
                *arguments]  # fmt: skip


MOUNTS = """
    mount --bind "$0" "$0" && cd "$0" && mount --bind "$1" app/data && mount -t tmpfs tmpfs tmp &&
    mount -t proc proc proc && mount --rbind /dev dev && mount -o remount,bind,ro "$0" && shift && exec "$@"
"""
"""A script for `sh -c`; its arguments are the root of the image, the volume and the command."""


class Container:
    """The command of the image as PID 1, with `volume` for its state."""

    def __init__(self, image: Image, volume: Path, log: Path, settings: dict[str, str]) -> None:
        self._image, self._settings = image, settings
        unshare = ["unshare", "--fork", "--pid", "--mount", "--kill-child", "sh", "-c", MOUNTS]
        read, write = os.pipe()
        os.fchown(write, image.owner, -1)  # as engines do: supervisord opens /dev/stdout again
        command = [*unshare, str(image.root), str(volume), *image.command(*image.config["Cmd"], **settings)]
        self._process = subprocess.Popen(command, stdout=write, stderr=write)
        os.close(write)
        with log.open("ab") as out:
            self._tee = subprocess.Popen(["cat"], stdin=read, stdout=out)
        os.close(read)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` does."""
        pid = str(psutil.Process(self._process.pid).children()[0].pid)
        enter = ["nsenter", "--target", pid, "--mount", "--pid"]
        command = self._image.command(*arguments, **self._settings)
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)

    def supervisorctl(self, *arguments: str) -> str:
        """Run supervisorctl; returns its output."""
        return self.run("supervisorctl", "-c", "supervisord.conf", *arguments).stdout

    def healthy(self) -> bool:
        """Whether the health check of the image passes."""
        check = self._image.config["Healthcheck"]["Test"][1:]  # after the word CMD
        return self.run(*check).returncode == 0

    def stop(self, number: int) -> int:
        """Send a signal to PID 1; returns its exit status."""
        for child in psutil.Process(self._process.pid).children():
            child.send_signal(number)
        status = self._process.wait(STOP_S)
        self._tee.wait()
        return status


def main(name: str) -> None:
    """Test the image; raises an exception if anything fails."""
    with tempfile.TemporaryDirectory() as folder, _mounted(name) as root, Sandbox.start() as sandbox:
        image, volume, log = Image(name, root), Path(folder) / "volume", Path(folder) / "log"
        volume.mkdir(0o700)
        os.chown(volume, image.owner, image.owner)
        try:
            _try(image, sandbox, volume, log)
        except BaseException:
            sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-30:]))
            raise


def _try(image: Image, sandbox: Sandbox, volume: Path, log: Path) -> None:
    settings = {**sandbox.environment(), "METRICS_PORT": str(free_port()), "PROCESSING_MODE": "mock",
                "EMBEDDER_PROCESSES": "3", "POLLING_INTERVAL_SECONDS": "1"}  # fmt: skip
    _print(f"{_megabytes(image)} MB on disk, user {image.config['User']}, command {' '.join(image.config['Cmd'])}")
    container = Container(image, volume, log, settings)
    _until("the health check passes", container.healthy)
    if "Read-only" not in container.run("touch", "/var/tmp/any").stderr:
        raise RuntimeError("the image is writable, so that the test proves too little")
    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: _done(summary) == TASKS, 60)
    _print(f"{TASKS} tasks done")
    programs = container.supervisorctl("status").splitlines()
    _print("supervisorctl: " + ", ".join(" ".join(line.split()[:2]) for line in programs))
    container.supervisorctl("stop", "publisher")
    _until("without a publisher, the health check fails", lambda: not container.healthy())
    container.supervisorctl("start", "publisher")
    _until("with it, the health check passes", container.healthy)

    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: _done(summary) > TASKS, 60)
    container.stop(signal.SIGKILL)
    _print(f"killed when {_done(sandbox.summary())} tasks of {2 * TASKS} were done")
    container = Container(image, volume, log, settings)
    sandbox.wait_until(lambda summary: _done(summary) == 2 * TASKS, 90)
    _print(f"started again on the same volume: {2 * TASKS} tasks done")

    _until("the health check passes", container.healthy)
    began = time.monotonic()
    status = container.stop(signal.SIGTERM)
    _print(f"SIGTERM: status {status} after {time.monotonic() - began:.1f} s")
    if status != 0:
        raise RuntimeError("supervisord did not end with status 0")


def _megabytes(image: Image) -> int:
    return int(_output("du", "--summarize", "--block-size=1M", "-x", str(image.root)).split()[0])


def _done(summary: Json) -> int:
    return int(summary["api"]["tasks"].get("succeeded", 0))


def _until(what: str, condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > 60:
            raise TimeoutError(what)
        time.sleep(0.1)
    _print(f"{what} after {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def _mounted(name: str) -> Iterator[Path]:
    container = _output("buildah", "from", "--pull-never", name)
    try:
        yield Path(_output("buildah", "mount", container))
    finally:
        _output("buildah", "rm", container)


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ai-task-processor")
