"""What headers ask to wait, in the forms in which servers write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.failures.wait_hints import LONGEST_WAIT_S, seconds

NOW = 1_795_593_600.0
"""2026-11-25T08:00:00Z."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("6", 6.0),
        ("0.5", 0.5),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("120ms", 0.12),
        ("6m0s", 360.0),
        ("1h", 3600.0),
        ("1m30.5s", 90.5),
        (str(int(NOW) + 6), 6.0),
        (str((int(NOW) + 6) * 1000), 6.0),
        (str((int(NOW) + 6) * 10**6), 6.0),
        (str((int(NOW) + 6) * 10**9), 6.0),
        ("Wed, 25 Nov 2026 08:00:06 GMT", 6.0),
        ("2026-11-25T08:00:06Z", 6.0),
        ("-5", 0.0),
        (str(int(NOW) - 60), 0.0),
        ("999999", LONGEST_WAIT_S),
        ("2d", LONGEST_WAIT_S),
    ],
)
def test_each_form_is_read_as_what_it_means(value: str, expected: float) -> None:
    assert seconds(value, NOW) == pytest.approx(expected)


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "s", "30x", "1m30", "-", "0x10s", "Wed, 99 Nov"])
def test_what_cannot_be_read_asks_for_nothing(value: str) -> None:
    assert seconds(value, NOW) is None


@given(st.text(max_size=40))
def test_any_value_is_a_bounded_wait_or_none(value: str) -> None:
    found = seconds(value, NOW)
    assert found is None or 0 <= found <= LONGEST_WAIT_S
