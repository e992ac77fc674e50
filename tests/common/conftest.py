"""Fixtures of the tests of `common`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.looping import Bench


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
