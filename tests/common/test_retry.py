"""Back-off as a value: how long to wait after a number of failures in a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.errors import Throttled, Transient
from common.failures.retry import Backoff

DOUBLING = Backoff(first=0.5, factor=2.0, longest=60.0)


@pytest.mark.parametrize(("failures", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (10_000, 60.0)])
def test_the_wait_doubles_up_to_the_longest(failures: int, most: float) -> None:
    assert DOUBLING.delay(failures, rand=lambda: 1.0) == most


def test_half_of_the_wait_is_random() -> None:
    assert DOUBLING.delay(3, rand=lambda: 0.0) == 1.0
    assert DOUBLING.delay(3, rand=lambda: 0.5) == 1.5


def test_the_wait_is_at_least_what_the_other_side_asks_for() -> None:
    assert DOUBLING.delay(1, Throttled("busy", 7.0), rand=lambda: 1.0) == 7.0
    assert DOUBLING.delay(8, Throttled("busy", 7.0), rand=lambda: 1.0) == 60.0


def test_an_error_other_than_throttled_does_not_change_the_wait() -> None:
    assert DOUBLING.delay(1, Transient("down"), rand=lambda: 1.0) == 0.5


@given(
    st.floats(0.001, 100), st.floats(1, 60), st.floats(0.001, 3600), st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_the_wait_is_positive_and_limited_for_any_number_of_failures(
    first: float, factor: float, longest: float, n: int, rand: float
) -> None:
    wait = Backoff(first, factor, longest).delay(n, rand=lambda: rand)
    assert 0 < wait <= longest
