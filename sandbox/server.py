"""The sandbox process: listens, announces its addresses, and stops on a signal."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from sandbox.control import Control
from sandbox.world import HOST, Listener, World


async def run(ports: dict[str, int], announce: Path | None, *, until_stdin_closes: bool) -> None:
    """Serve on `ports` (0: a free port) until SIGTERM or SIGINT, or until the parent process has ended."""
    # Millions of records are never freed. With the default thresholds, garbage collection would cost more than serving.
    gc.set_threshold(100_000, 50, 1000)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _read_stdin, stop)
    world = World(ports)
    control = Listener(Control(world), ports["control"])
    await world.up()
    await control.up()
    line = msgspec.json.encode(_addresses(world, control)).decode()
    if announce is not None:
        _write_atomically(announce, line)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    await stop.wait()


def _addresses(world: World, control: Listener) -> dict[str, Any]:
    """Everything that a client needs to use the sandbox."""
    url = {name: f"http://{HOST}:{listener.port}" for name, listener in world.listeners.items()}
    return {
        "api": url["api"],
        "oauth2": url["oauth2"],
        "token_url": f"{url['oauth2']}/oauth2/token",
        "openai": f"{url['openai']}/v1",
        "ollama": url["ollama"],
        "control": f"http://{HOST}:{control.port}",
        "client_id": world.oauth2.settings.client_id,
        "client_secret": world.oauth2.settings.client_secret,
        "pid": os.getpid(),
    }


def _write_atomically(path: Path, line: str) -> None:
    """Write the file so that a reader sees the complete line or no file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(line + "\n")
    temporary.replace(path)


def _read_stdin(stop: asyncio.Event) -> None:
    """Set `stop` when the parent process has closed its end of the pipe."""
    with contextlib.suppress(BlockingIOError):
        if not os.read(sys.stdin.fileno(), 4096):
            stop.set()
