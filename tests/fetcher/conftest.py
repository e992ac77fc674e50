"""Fetchers that several files need."""

from __future__ import annotations

import pytest

from tests.fetcher.claiming import ClaimingFetching


@pytest.fixture
def claiming() -> ClaimingFetching:
    fetcher = ClaimingFetching()
    fetcher.page("a", "b")
    return fetcher
