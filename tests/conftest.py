"""For all tests: their order, and the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox

SLOW = ("edges", "extending", "providers", "oidc", "nestjs", "system", "faults", "bench")
"""Folders with real processes, in the order in which they run, after all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run decisions first: they take seconds, and say more precisely what is wrong."""

    def tier(item: pytest.Item) -> int:
        folder = Path(item.path).parent.name
        return SLOW.index(folder) + 1 if folder in SLOW else 0

    items.sort(key=tier)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox of its own."""
    with Sandbox.start() as running:
        yield running
