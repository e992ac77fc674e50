"""Runs the same tests with every kind of installation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.settings.model_limits import Strategy
from tests.contracts.installations import KINDS, Installation
from tests.decisions import START
from tests.samples import settings


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def install(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Installation]]:
    made: list[Installation] = []

    def make(strategy: Strategy = Strategy.ROLLING, **fields: Any) -> Installation:
        configured = settings(rate_limit_strategy=strategy, **fields)
        made.append(request.param(configured, tmp_path, monkeypatch, START.wall))
        return made[-1]

    yield make
    for installation in made:
        installation.close()
