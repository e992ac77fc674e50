"""Run a built image for real against the sandbox, without a Docker engine: `python -m tests.deploy.try_image [image]`.

Needs root, and the image in buildah's store (`deploy/build-without-docker.sh`). What an engine does, this does by hand:
the image's command becomes PID 1 of its own PID namespace, as the image's user, with the image's environment and
nothing else, and with pipes that belong to that user. The network is the host's, so that the sandbox is on loopback.

It shows that tasks get done, that the health check passes (and fails once the service is gone), that supervisord
makes `EMBEDDER_PROCESSES`, that a start after SIGKILL finds its state and finishes the tasks, and that SIGTERM drains
and ends with status 0.
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
STOP_SECONDS = 160
"""As `stop_grace_period` in docker-compose.yml."""


class Image:
    """An image of buildah's store, mounted at `root`."""

    def __init__(self, name: str, root: Path) -> None:
        self.root = root
        told = json.loads(_output("buildah", "inspect", "--type", "image", name))
        self.config: dict[str, Any] = told["Docker"]["config"]
        self.owner = int(self.config["User"].split(":")[0])

    def command(self, *arguments: str, **settings: str) -> list[str]:
        """The command line that runs `arguments` inside, as the image's user, in the image's environment."""
        inherited = dict(item.split("=", 1) for item in self.config["Env"])
        environment = [f"{name}={value}" for name, value in {**inherited, **settings}.items()]
        chdir = f"--chdir={self.config['WorkingDir']}"
        return ["chroot", f"--userspec={self.config['User']}", str(self.root), "env", "-i", chdir, *environment,
                *arguments]  # fmt: skip

    def healthy(self, **settings: str) -> bool:
        """Whether the image's own health check passes."""
        check = self.config["Healthcheck"]["Test"][1:]  # after the word CMD
        return subprocess.run(self.command(*check, **settings), stderr=subprocess.DEVNULL, check=False).returncode == 0


class Container:
    """The image's command as PID 1."""

    def __init__(self, image: Image, log: Path, **settings: str) -> None:
        mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec "$@"'
        unshare = ["unshare", "--fork", "--pid", "--mount", "--kill-child", "sh", "-c", mounts, str(image.root)]
        read, write = os.pipe()
        os.fchown(write, image.owner, -1)  # as engines do: supervisord opens /dev/stdout anew
        self._process = subprocess.Popen(
            [*unshare, *image.command(*image.config["Cmd"], **settings)], stdout=write, stderr=write
        )
        os.close(write)
        with log.open("ab") as out:
            self._tee = subprocess.Popen(["cat"], stdin=read, stdout=out)
        os.close(read)

    def stop(self, number: int) -> int:
        """Send a signal to PID 1; the status with which it ended."""
        for child in psutil.Process(self._process.pid).children():
            child.send_signal(number)
        status = self._process.wait(STOP_SECONDS)
        self._tee.wait()
        return status


def main(name: str) -> None:
    """Try the image; any failure is an exception."""
    with tempfile.TemporaryDirectory() as folder, _mounted(name) as root, Sandbox.start() as sandbox:
        log = Path(folder) / "log"
        try:
            _try(Image(name, root), sandbox, log)
        except BaseException:
            sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-30:]))
            raise


def _try(image: Image, sandbox: Sandbox, log: Path) -> None:
    settings = {**sandbox.environment(), "METRICS_PORT": str(free_port()), "PROCESSING_MODE": "mock",
                "EMBEDDER_PROCESSES": "3", "POLLING_INTERVAL_SECONDS": "1"}  # fmt: skip
    _say(f"{_megabytes(image)} MB on disk, user {image.config['User']}, command {' '.join(image.config['Cmd'])}")
    container = Container(image, log, **settings)
    _until("health check passes", lambda: image.healthy(**settings))
    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: _done(summary) == TASKS, 60)
    _say(f"{TASKS} tasks done")
    told = _output(*image.command("supervisorctl", "-c", "supervisord.conf", "status", **settings))
    _say("supervisorctl: " + ", ".join(line.split()[0] + " " + line.split()[1] for line in told.splitlines()))

    sandbox.queue(TASKS)
    sandbox.wait_until(lambda summary: _done(summary) > TASKS, 60)
    _say(f"killed with tasks under way: status {container.stop(signal.SIGKILL)}")
    _say(f"health check now: {'passes' if image.healthy(**settings) else 'fails, as it must'}")
    container = Container(image, log, **settings)
    summary = sandbox.wait_until(lambda summary: _done(summary) == 2 * TASKS, 90)
    _say(f"started again on the same volume: {_done(summary)} tasks done")

    _until("health check passes", lambda: image.healthy(**settings))
    began = time.monotonic()
    status = container.stop(signal.SIGTERM)
    _say(f"SIGTERM: status {status} after {time.monotonic() - began:.1f} s")
    if status != 0:
        raise RuntimeError("supervisord did not end well")


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
    _say(f"{what} after {time.monotonic() - began:.1f} s")


@contextlib.contextmanager
def _mounted(name: str) -> Iterator[Path]:
    container = _output("buildah", "from", "--pull-never", name)
    try:
        yield Path(_output("buildah", "mount", container))
    finally:
        _output("buildah", "rm", container)


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "ai-task-processor")
