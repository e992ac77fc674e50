"""For all tests: their order, and what most of the slow ones need."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import Start, left_as_found, ready

SLOW = ("edges", "extending", "providers", "oidc", "nestjs", "system", "faults", "bench")
"""Folders with real processes, in the order in which they run, after all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run decisions first: they take seconds, and say more precisely what is wrong."""

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
    """A sandbox as at its start: one process for all tests, reset before each."""
    _sandbox.reset()
    return _sandbox


@pytest.fixture
def start(sandbox: Sandbox, tmp_path: Path) -> Iterator[Start]:
    """Starts ready pipelines on the sandbox, any number of them; they stop at the end of the test."""
    with contextlib.ExitStack() as stopping:
        numbers = itertools.count()

        def start(**settings: object) -> Pipeline:
            folder = tmp_path / f"p{next(numbers)}"
            folder.mkdir()
            return stopping.enter_context(ready(sandbox, folder, **settings))

        yield start


@pytest.fixture
def outside(pipeline: Pipeline) -> Iterator[Sandbox]:
    """The sandbox of a pipeline that tests share; what a test breaks there is mended for the next one."""
    with left_as_found(pipeline.sandbox) as sandbox:
        yield sandbox


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path leaves room for those of sockets, which have at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)
