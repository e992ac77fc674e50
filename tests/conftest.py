"""For all tests: their order, and the fixtures that most of the slow ones need."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import Start, ready_pipeline, restored

SLOW = ("edges", "attribution", "extending", "providers", "oidc", "nestjs", "system", "faults", "bench")
"""Folders whose tests start real processes. They run after all others, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast unit tests first: their failures are more precise."""

    def tier(item: pytest.Item) -> int:
        folder = Path(item.path).parent.name
        return SLOW.index(folder) + 1 if folder in SLOW else 0

    items.sort(key=tier)


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox.start() as running:
        yield running


@pytest.fixture
def sandbox(_sandbox: Sandbox) -> Sandbox:
    """A sandbox in its initial state: one process for all tests, reset before each."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def start(sandbox: Sandbox, tmp_path: Path) -> Iterator[Start]:
    """A function that starts ready pipelines on the sandbox; they stop at the end of the test."""
    with contextlib.ExitStack() as stopping:
        numbers = itertools.count()

        def start(**settings: object) -> Pipeline:
            folder = tmp_path / f"p{next(numbers)}"
            folder.mkdir()
            return stopping.enter_context(ready_pipeline(sandbox, folder, **settings))

        yield start


@pytest.fixture
def outside(pipeline: Pipeline) -> Iterator[Sandbox]:
    """The sandbox of a shared pipeline; the changes of a test are undone for the next one."""
    with restored(pipeline.sandbox) as sandbox:
        yield sandbox


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)
