"""Fixtures of the tests of `common`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.settings.settings import NAMES
from tests.common.looping import Bench
from tests.common.settings_problems import REQUIRED


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    umask = os.umask(0o077)
    made = Bench(folder)
    yield made
    made.fetcher.close()
    made.monitor.close()
    made.loop.sockets._context.destroy(linger=0)
    os.umask(umask)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def settings_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the required variables, in a folder without a `.env` whose path is short enough for sockets."""
    for field in NAMES:
        for variable in (field.upper(), f"{field.upper()}_FILE"):
            monkeypatch.delenv(variable, raising=False)
    for variable, value in REQUIRED.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(folder)
