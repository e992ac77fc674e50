"""The process: listens, announces its addresses, and stops when told to."""

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
    """Serve on `ports` (0: a free one) until SIGTERM or SIGINT, or until the parent has gone."""
    # Millions of records live for ever; looking through them for garbage again and again would cost more than serving.
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
    """What a caller must know to use the sandbox."""
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
    """A reader sees the whole line or no file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(line + "\n")
    draft.replace(path)


def _read_stdin(stop: asyncio.Event) -> None:
    """A parent that has gone closes its end."""
    with contextlib.suppress(BlockingIOError):
        if not os.read(sys.stdin.fileno(), 4096):
            stop.set()
