from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import running


@pytest.fixture(scope="session", autouse=True)
def _short_polling_interval() -> Iterator[None]:
    """The benchmarks wait for the first poll of an idle pipeline; the tests need not wait long for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "POLL_S", 0.5)
        yield
