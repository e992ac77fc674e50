"""Pipelines for the tests. They take seconds to start, so tests that restore what they change share one."""

from __future__ import annotations

import contextlib
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.client import Json, Sandbox
from sandbox.pipeline import Pipeline

Start = Callable[..., Pipeline]
"""A function that starts a pipeline with these settings, and waits until it is ready."""


@contextmanager
def ready_pipeline(sandbox: Sandbox, folder: Path, **settings: object) -> Iterator[Pipeline]:
    """A pipeline on this sandbox that is ready to process tasks."""
    with Pipeline(sandbox, folder, **settings) as pipeline:
        pipeline.wait_ready()
        yield pipeline
        # All programs at once: supervisord stops them one after another when it ends, which takes ten seconds.
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            pipeline.supervisor("stopAllProcesses", False)


@contextmanager
def pipeline_with_own_sandbox(
    folder: Path, outside: dict[str, Json] | None = None, **settings: object
) -> Iterator[Pipeline]:
    """A ready pipeline with its own sandbox; `outside` holds settings of the sandbox, by service."""
    with Sandbox.start() as sandbox:
        sandbox.settings(**(outside or {}))
        with ready_pipeline(sandbox, folder, **settings) as pipeline:
            yield pipeline


@contextmanager
def restored(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Restore the sandbox at the end, except for its tasks: faults, held responses, settings, closed ports."""
    settings = sandbox.settings()
    try:
        yield sandbox
    finally:
        sandbox.clear_faults()
        sandbox.release()
        for service in settings:
            sandbox.up(service)
        sandbox.settings(**settings)
