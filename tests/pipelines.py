"""Pipelines for the tests: they take seconds to start, so tests that leave them as they were share one."""

from __future__ import annotations

import contextlib
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.client import Json, Sandbox
from sandbox.pipeline import Pipeline

Start = Callable[..., Pipeline]
"""Starts a pipeline with these settings, and waits until it is ready."""


@contextmanager
def ready(sandbox: Sandbox, folder: Path, **settings: object) -> Iterator[Pipeline]:
    """A pipeline on this sandbox that could process a task now."""
    with Pipeline(sandbox, folder, **settings) as pipeline:
        pipeline.wait_ready()
        yield pipeline
        # all programs together: one after another, as supervisord does it at its own end, takes ten seconds
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            pipeline.supervisor("stopAllProcesses", False)


@contextmanager
def alone(folder: Path, outside: dict[str, Json] | None = None, **settings: object) -> Iterator[Pipeline]:
    """A ready pipeline with a sandbox of its own, whose settings are those of `outside`, by service."""
    with Sandbox.start() as sandbox:
        sandbox.settings(**(outside or {}))
        with ready(sandbox, folder, **settings) as pipeline:
            yield pipeline


@contextmanager
def left_as_found(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Undo at the end what was done to the sandbox, but for its tasks: faults, held answers, settings, who is down."""
    settings = sandbox.settings()
    try:
        yield sandbox
    finally:
        sandbox.clear_faults()
        sandbox.release()
        for service in settings:
            sandbox.up(service)
        sandbox.settings(**settings)
